//! A switch of a running fabric: its VM and the state of its BGP sessions.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout};

use super::power::has_no_qemu;
use super::sessions::Report;
use crate::live::Live;
use api::{NodeState, NodeStatus, Sessions};
use dataplane::clock;
use model::{topology, utc};
use vm::{Vm, VmState, bgp};

/// How long a switch may take to report its sessions; vtysh alone takes a second under TCG while
/// nine switches boot.
const ANSWER: Duration = Duration::from_secs(20);

/// Intervals between two queries: while sessions are missing, and once all are established.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_secs(3));

/// How long unchanged TCP connections count as proof of unchanged sessions: while sessions are missing,
/// and once all are established. After this, bgpd is asked in any case.
const TRUST: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

/// How long after a change of its TCP connections a switch with missing sessions is asked each time: a
/// session is established later than its connection.
const HANDSHAKE: Duration = Duration::from_secs(6);

/// How long a switch has to notice a carrier before it is asked what that did to its sessions. It also
/// bounds how often a cable that flaps makes the switch work.
const SETTLE: Duration = Duration::from_millis(300);

/// A switch that runs.
pub(crate) struct Switch {
    name: String,
    role: String,
    vm: Vm,
    report: Mutex<Report>,
    /// The last state that was noticed, and when, in ns since 1970.
    since: Mutex<(NodeState, u64)>,
    /// Notified when one of its cables has changed.
    doubted: Notify,
}

/// The TCP connections in the switch's kernel when bgpd was last asked.
struct Proof {
    connections: BTreeSet<String>,
    /// When these connections were first seen.
    since: Instant,
    /// When bgpd answered.
    at: Instant,
    /// Whether bgpd reported every session established.
    is_well: bool,
}

impl Proof {
    /// Whether bgpd would say what it said, as long as the connections are the same.
    fn holds(&self) -> bool {
        if self.is_well {
            self.at.elapsed() < TRUST.1
        } else {
            self.at.elapsed() < TRUST.0 && self.since.elapsed() > HANDSHAKE
        }
    }
}

impl Switch {
    pub(crate) fn new(planned: &topology::Switch, vm: Vm) -> Self {
        Switch {
            name: planned.name.clone(),
            role: planned.role.to_string(),
            vm,
            report: Mutex::default(),
            since: Mutex::new((NodeState::Booting, utc::now_ns())),
            doubted: Notify::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Whether the other ends of its cables have no carrier, because it is off, or dead and not back yet.
    pub(crate) fn has_no_qemu_running(&self) -> bool {
        has_no_qemu(self.vm.status().state)
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        let report = self.report.lock();
        report.expect("no holder of this lock can panic")
    }

    /// Notes when its state has changed.
    pub(crate) fn note_state(&self) {
        let state = self.state();
        let mut since = self.since.lock().expect("no holder of this lock can panic");
        if since.0 != state {
            *since = (state, utc::now_ns());
        }
    }

    /// Since when it is in this state, if that has been noticed yet.
    fn since(&self, state: NodeState) -> Option<u64> {
        let since = *self.since.lock().expect("no holder of this lock can panic");
        (since.0 == state).then_some(since.1)
    }

    /// See [`Report::says`]. A switch that does not run has no session.
    pub(crate) fn says(&self, nic: &str, since: u64) -> bool {
        self.vm.state() == VmState::Running && self.report().says(nic, since)
    }

    pub(crate) fn state(&self) -> NodeState {
        to_api(self.vm.state())
    }

    /// What `status` shows of it. `silent` names the cables of its sessions that pass no frame.
    pub(crate) fn status(&self, bgp: Sessions, silent: &[&str]) -> NodeStatus {
        let vm = self.vm.status();
        let state = to_api(vm.state);
        let note = match state {
            NodeState::Restarting | NodeState::Failed => vm.last_error.unwrap_or_default(),
            NodeState::Running => match self.report().note.clone() {
                note if note.is_empty() => pass_no_frame(silent),
                note => note,
            },
            NodeState::Booting if vm.restarts > 0 => {
                let times = if vm.restarts == 1 {
                    "once"
                } else {
                    "several times"
                };
                format!("died {times}: {}", vm.last_error.unwrap_or_default())
            }
            NodeState::Booting | NodeState::Off => String::new(),
        };
        NodeStatus {
            name: self.name.clone(),
            role: self.role.clone(),
            state,
            since_ns: self.since(state),
            bgp,
            note: note.lines().next().unwrap_or_default().to_owned(),
        }
    }

    /// One of its cables has changed: it is asked for its sessions soon, and bgpd itself.
    pub(crate) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// What it said no longer counts, because it does not run any more.
    pub(crate) fn forget(&self) {
        *self.report() = Report::default();
    }

    /// Keeps the record of its sessions up to date until the VM is stopped. `turn` limits how many
    /// switches are queried at a time: under TCG each query slows down a booting datacenter.
    pub(crate) async fn follow(&self, turn: &Semaphore, live: &Live) {
        let mut vm = self.vm.watch();
        let mut proof = None;
        loop {
            let running = vm.borrow_and_update().state == VmState::Running;
            let patience = if running {
                self.ask(&mut proof, turn, live).await
            } else {
                proof = None;
                self.forget();
                live.notices.signal();
                Duration::MAX
            };
            tokio::select! {
                changed = timeout(patience, vm.changed()) => match changed {
                    Ok(Ok(())) => live.notices.signal(),
                    Ok(Err(_)) => return, // stopped
                    Err(_) => {}
                },
                () = self.doubted.notified() => {
                    proof = None;
                    sleep(SETTLE).await;
                }
            }
        }
    }

    async fn ask(&self, proof: &mut Option<Proof>, turn: &Semaphore, live: &Live) -> Duration {
        let _turn = turn.acquire().await;
        let agent = self.vm.agent();
        let asked = clock::now();
        // Listing the kernel's connections costs much less than vtysh. Before the query, so that what changes
        // meanwhile is seen as a change.
        let connections = bgp::connections(agent, ANSWER).await.ok();
        let known = proof.take();
        let known = known.filter(|known| connections.as_ref() == Some(&known.connections));
        let since = match known {
            Some(known) if known.holds() => return ask_again(proof.insert(known).is_well),
            Some(known) => known.since,
            None => Instant::now(),
        };
        let (established, note) = match bgp::read(agent, ANSWER).await {
            Ok(summary) => (summary.established().collect(), String::new()),
            Err(bgp::BgpError::Vtysh { .. }) => (BTreeSet::new(), "FRR is starting".into()),
            Err(error) => (BTreeSet::new(), error.to_string()),
        };
        let has_answered = note.is_empty();
        self.learn(
            Report {
                established,
                asked,
                note,
            },
            live,
        );
        let is_well = live.state().is_well(&self.name);
        *proof = connections
            .filter(|_| has_answered)
            .map(|connections| Proof {
                connections,
                since,
                at: Instant::now(),
                is_well,
            });
        ask_again(is_well)
    }

    fn learn(&self, report: Report, live: &Live) {
        // A switch that has stopped meanwhile is as if it had not answered.
        if self.vm.state() == VmState::Running {
            *self.report() = report;
            live.notices.signal();
        }
    }
}

/// When to look again at a switch.
fn ask_again(is_well: bool) -> Duration {
    if is_well { ASK_AGAIN.1 } else { ASK_AGAIN.0 }
}

fn pass_no_frame(cables: &[&str]) -> String {
    match cables {
        [] => String::new(),
        [one] => format!("no frame passes {one}"),
        [one, more @ ..] => format!("no frame passes {one} and {} more", more.len()),
    }
}

fn to_api(state: VmState) -> NodeState {
    match state {
        VmState::Booting => NodeState::Booting,
        VmState::Running => NodeState::Running,
        VmState::Restarting => NodeState::Restarting,
        VmState::Off => NodeState::Off,
        VmState::Failed => NodeState::Failed,
    }
}
