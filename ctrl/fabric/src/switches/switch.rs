//! A switch of a running fabric: its VM and the state of its BGP sessions.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::power::has_no_light;
use crate::notices::Notices;
use api::{NodeState, NodeStatus, Sessions};
use model::topology::{self, SwitchPort};
use vm::{Vm, VmState, bgp};

/// How long a switch may take to report its sessions; vtysh alone takes a second under TCG while
/// nine switches boot.
const ANSWER: Duration = Duration::from_secs(20);

/// Intervals between two queries: while sessions are missing, and once all are established.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_secs(3));

/// How long unchanged TCP connections count as proof of unchanged sessions. After this, bgpd is
/// asked in any case.
const TRUST: Duration = Duration::from_secs(60);

/// A switch that runs.
pub(crate) struct Switch {
    name: String,
    role: String,
    /// The interfaces that lead to other running switches.
    nics: Mutex<Vec<String>>,
    vm: Vm,
    health: Mutex<Health>,
}

#[derive(Default)]
struct Health {
    established: usize,
    note: String,
}

/// The TCP connections in the switch's kernel when bgpd last reported every session established.
struct Proof {
    connections: BTreeSet<String>,
    at: Instant,
}

impl Switch {
    /// `sessions`: the ports that must have a session.
    pub(crate) fn new<'t>(
        planned: &topology::Switch,
        sessions: impl Iterator<Item = &'t SwitchPort>,
        vm: Vm,
    ) -> Self {
        Switch {
            name: planned.name.clone(),
            role: planned.role.to_string(),
            nics: Mutex::new(sessions.map(|port| port.nic.clone()).collect()),
            vm,
            health: Mutex::default(),
        }
    }

    /// Sets the ports that must have a session.
    pub(crate) fn expect<'t>(&self, sessions: impl Iterator<Item = &'t SwitchPort>) {
        *self.nics() = sessions.map(|port| port.nic.clone()).collect();
    }

    fn nics(&self) -> MutexGuard<'_, Vec<String>> {
        self.nics.lock().expect("no holder of this lock can panic")
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Whether the other ends of its cables have no carrier, because it is off, or dead and not back yet.
    pub(crate) fn is_dark(&self) -> bool {
        has_no_light(self.vm.status().state)
    }

    pub(crate) fn status(&self) -> NodeStatus {
        let vm = self.vm.status();
        let health = self
            .health
            .lock()
            .expect("no holder of this lock can panic");
        let state = to_api(vm.state);
        let note = match state {
            NodeState::Restarting | NodeState::Failed => vm.last_error.unwrap_or_default(),
            NodeState::Running => health.note.clone(),
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
        let established = if state == NodeState::Running {
            health.established
        } else {
            0
        };
        NodeStatus {
            name: self.name.clone(),
            role: self.role.clone(),
            state,
            bgp: Sessions {
                established,
                expected: self.nics().len(),
            },
            note: note.lines().next().unwrap_or_default().to_owned(),
        }
    }

    /// Whether it runs with all its sessions established.
    pub(crate) fn is_well(&self) -> bool {
        let status = self.status();
        status.state == NodeState::Running && status.bgp.established == status.bgp.expected
    }

    /// Keeps the record of its sessions up to date until the VM is stopped. `turn` limits how many
    /// switches are queried at a time: under TCG each query slows down a booting datacenter.
    pub(crate) async fn follow(&self, turn: &Semaphore, notices: &Notices) {
        let mut vm = self.vm.watch();
        let mut proof = None;
        loop {
            let running = vm.borrow_and_update().state == VmState::Running;
            let patience = if running {
                self.ask(&mut proof, turn, notices).await
            } else {
                proof = None;
                self.learn(0, String::new(), notices);
                Duration::MAX
            };
            match timeout(patience, vm.changed()).await {
                Ok(Ok(())) => notices.signal(),
                Ok(Err(_)) => return, // stopped
                Err(_) => {}
            }
        }
    }

    async fn ask(
        &self,
        proof: &mut Option<Proof>,
        turn: &Semaphore,
        notices: &Notices,
    ) -> Duration {
        let _turn = turn.acquire().await;
        let agent = self.vm.agent();
        // Listing the kernel's connections is much cheaper than vtysh: as long as they are the same
        // as when all sessions were established, so are the sessions.
        if let Some(known) = proof.as_ref().filter(|known| known.at.elapsed() < TRUST) {
            let connections = bgp::connections(agent, ANSWER).await;
            if connections.is_ok_and(|now| now == known.connections) {
                return ASK_AGAIN.1;
            }
        }
        // Forgotten before the query, whose answer may be that a session is missing.
        *proof = None;
        match bgp::read(agent, ANSWER).await {
            Ok(summary) => {
                let nics = self.nics().clone();
                let established = summary.established(nics.iter().map(String::as_str));
                self.learn(established, String::new(), notices);
            }
            Err(bgp::BgpError::Vtysh { .. }) => self.learn(0, "FRR is starting".into(), notices),
            Err(error) => self.learn(0, error.to_string(), notices),
        }
        if !self.is_well() {
            return ASK_AGAIN.0;
        }
        // Only a complete set of sessions is worth proving: otherwise the next query must go to
        // bgpd.
        if let Ok(connections) = bgp::connections(agent, ANSWER).await {
            let at = Instant::now();
            *proof = Some(Proof { connections, at });
        }
        ASK_AGAIN.1
    }

    fn learn(&self, established: usize, note: String, notices: &Notices) {
        let mut health = self
            .health
            .lock()
            .expect("no holder of this lock can panic");
        if health.established != established || health.note != note {
            *health = Health { established, note };
            notices.signal();
        }
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
