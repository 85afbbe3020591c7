//! The running whole: cables, switches, and what can be asked of them.
//!
//! [`bring_up`] makes one, [`Fabric`] answers for it, [`Running::take_down`] takes it away.

mod accuracy;
mod bring_up;
mod cables;
mod capture;
mod change;
mod claims;
mod descriptors;
mod displays;
mod ends;
mod impair;
mod ipmi;
mod links;
mod look_ahead;
mod options;
mod owner;
mod patch;
mod places;
pub mod preflight;
pub mod progress;
mod ready;
pub mod reconfigure;
mod recorder;
mod reports;
mod rights;
mod seeds;
mod sockets;
mod start;
mod switch;
pub mod vm_args;
mod warm;
mod whole;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use dataplane::sys::tap;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

use api::capture::{CaptureRequest, CaptureStream};
use api::{
    ApiError, ApplyAnswer, ApplyRequest, Backend, CableBatchDone, CableChanged, CableReport,
    ConsoleStream, ExecAnswer, ExecRequest, IpmiAccess, LaneImpairment, NodeStatus, Peer,
    Positions, Recording, SshAccess, Status,
};
use host::execute::HostTaps;
use host::lock::StatePaths;
use model::cable_change::{CableBatch, CableChange, CableState, ImpairmentChange};
use model::plugging::PlugOptions;
use model::power::PowerAction;
use model::topology::{EndOwner, Side, TopologyJson};
use vm::Vm;
use vm::agent::{Limits, MAX_OUTPUT};

pub use bring_up::{Running, bring_up, listen};
pub use cables::{Cables, CablesError};
use change::Change;
use impair::{CheckedBatch, Names};
use ipmi::Ipmi;
pub use look_ahead::preflight;
pub use options::{BringUpError, Options};
pub use owner::{NoSuchUser, Person};
pub use patch::{Patch, PortSpec};
pub use recorder::RecorderOptions;
use recorder::{Asked, Recorder};
use start::Fleet;
use switch::Switch;
use whole::Whole;

/// Time for one command by `exec`. Long ones belong into `ssh`.
const EXEC_LIMIT: Duration = Duration::from_secs(600);

/// Notices that may wait to be shown; the rest is lost.
const NOTICES: usize = 100;

/// A fabric while it runs.
pub struct Fabric {
    /// What it consists of now; `apply` puts another one in its place.
    whole: Mutex<Arc<Whole>>,
    /// The files beside the API's socket, by absolute paths.
    paths: StatePaths,
    recorder: Option<Recorder>,
    /// Second descriptors of the host's own taps, for their carrier.
    host_taps: HostTaps,
    /// What its switches are made with, if it has any.
    fleet: Option<Fleet>,
    /// What VNC clients must know, if anything.
    display_password: Option<String>,
    /// The switches' BMCs, if they have any.
    ipmi: OnceLock<Ipmi>,
    ready: AtomicBool,
    plugged: links::Plugged,
    notices: Mutex<VecDeque<String>>,
    /// Rung when something that `status` tells has changed, or a notice waits.
    news: Notify,
    change: Change,
}

impl Fabric {
    /// Whether it is ready, in DESIGN's sense of the word.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Waits until something that [`Backend::status`] tells may have changed.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// All cables' lanes added up: frames and bytes in, frames dropped.
    pub fn traffic(&self) -> (u64, u64, u64) {
        self.whole().cables.traffic()
    }

    /// At how many ends somebody is plugged in.
    pub fn plugged(&self) -> usize {
        self.plugged.len()
    }

    /// What happened that the user should know of; each is given once.
    pub fn notices(&self) -> Vec<String> {
        self.notices
            .lock()
            .expect("no holder of this lock can panic")
            .drain(..)
            .collect()
    }

    fn notice(&self, text: String) {
        let mut notices = self
            .notices
            .lock()
            .expect("no holder of this lock can panic");
        notices.truncate(NOTICES - 1);
        notices.push_back(text);
        drop(notices);
        self.news.notify_waiters();
    }

    /// What it consists of at this moment. Whoever asks several things takes it once.
    fn whole(&self) -> Arc<Whole> {
        let whole = self.whole.lock();
        whole.expect("no holder of this lock can panic").clone()
    }

    /// Looks for what the recorder's triggers wait for, for ever.
    async fn attend_recorder(self: Arc<Self>) {
        if let Some(recorder) = &self.recorder {
            recorder.attend(|told| self.notice(told)).await;
        }
    }

    /// Tells an end whether it has carrier. What could not be told, as a sentence.
    async fn set_carrier(
        &self,
        whole: &Whole,
        cable: usize,
        side: Side,
        up: bool,
    ) -> Option<String> {
        let end = whole.topology.cables[cable].end(side);
        match (end.owner, self.host_taps.get(&end.tap)) {
            (EndOwner::Host | EndOwner::IpmiHost, Some(tap)) => tap::set_carrier(tap, up)
                .err()
                .map(|error| format!("the carrier of {} could not be set: {error}", end.tap)),
            (EndOwner::Switch { switch, port }, _) if whole.switches.contains_key(&switch) => {
                let result = whole.switches[&switch].vm().set_link(port, up).await;
                result
                    .err()
                    .map(|error| format!("{} does not know yet: {error}", end.alias))
            }
            (EndOwner::Open, _) => None,
            _ => {
                let told = self.plugged.of(&end.tap).front_end;
                whole.cables.set_carrier(cable, side, up);
                (!up && !told).then(|| {
                    format!(
                        "whoever is plugged in at {} ({}) still has carrier: a tap cannot tell \
                         QEMU; for it this is a blackhole",
                        end.tap, end.alias
                    )
                })
            }
        }
    }

    /// Takes the carrier of cables that are cut from the start; switches learn it when they run.
    async fn tell_ends_of(&self, whole: &Whole, cut: &[usize]) {
        for index in cut {
            for (side, end) in whole.topology.cables[*index].ends() {
                if is_host(end.owner) || whole.is_pluggable(end.owner) {
                    self.set_carrier(whole, *index, side, false).await;
                }
            }
        }
    }

    /// A switch that was started anew knows nothing of the cables that are cut.
    async fn tell_cut_cables(&self, switch: &str) {
        let whole = self.whole();
        for (index, cable) in whole.topology.cables.iter().enumerate() {
            if whole.cables.state(index) != CableState::Down {
                continue;
            }
            for (side, end) in cable.ends() {
                if matches!(end.owner, EndOwner::Switch { switch: owner, .. }
                    if whole.topology.switches[owner].name == switch)
                {
                    self.set_carrier(&whole, index, side, false).await;
                }
            }
        }
    }

    /// The two tasks that follow a switch until its VM is stopped: what its sessions do, and
    /// what it must be told.
    fn followers(self: &Arc<Self>, switch: &Arc<Switch>) -> [BoxFuture<'static, ()>; 2] {
        let (told, followed) = (self.clone(), switch.clone());
        let sessions = async move { followed.follow(told.change.turn(), &told.news).await };
        [
            sessions.boxed(),
            self.clone().follow_vm(switch.clone()).boxed(),
        ]
    }

    /// Tells a switch of cut cables whenever it was started, until its VM is stopped.
    async fn follow_vm(self: Arc<Self>, switch: Arc<Switch>) {
        let mut status = switch.vm().watch();
        let mut known = None;
        let mut bad_state = None;
        loop {
            let now = status.borrow_and_update().clone();
            let commanded = now.pid.filter(|_| now.commanded);
            if commanded.is_some() && commanded != known {
                self.tell_cut_cables(switch.name()).await;
            }
            known = commanded;
            if now.bad_state != bad_state {
                if let Some(reason) = &now.bad_state {
                    self.notice(bad_state_notice(switch.name(), reason));
                }
                bad_state = now.bad_state;
            }
            if status.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Whether an end is a device of the host's own.
fn is_host(owner: EndOwner) -> bool {
    matches!(owner, EndOwner::Host | EndOwner::IpmiHost)
}

impl Backend for Fabric {
    fn status(&self) -> Status {
        let whole = self.whole();
        let nodes = whole.switches.values();
        Status {
            ready: self.is_ready(),
            nodes: nodes.map(|switch| switch.status()).collect(),
            cables: whole.cables.len(),
            workers: whole.cables.workers(),
            applying: self.change.doing(),
        }
    }

    fn topology(&self) -> Result<TopologyJson, ApiError> {
        Ok(TopologyJson::from(&self.whole().topology))
    }

    async fn cables(&self, names: &[String]) -> Result<Vec<CableReport>, ApiError> {
        let whole = self.whole();
        if names.is_empty() {
            return Ok((0..whole.cables.len())
                .map(|index| whole.cables.report(index))
                .collect());
        }
        names
            .iter()
            .map(|name| Ok(whole.cables.report(whole.cable(name)?)))
            .collect()
    }

    async fn set_cable_state(
        &self,
        name: &str,
        state: CableState,
    ) -> Result<CableChanged, ApiError> {
        let whole = self.whole();
        let index = whole.cable(name)?;
        let change = CableChange {
            cable: name.into(),
            state: Some(state),
            impair: None,
        };
        let done = self.change_cables(CableBatch {
            changes: vec![change],
        });
        Ok(CableChanged {
            notes: done.await?.notes,
            name: whole.topology.cables[index].name.clone(),
            state,
        })
    }

    async fn impair(
        &self,
        name: &str,
        set: ImpairmentChange,
    ) -> Result<[LaneImpairment; 2], ApiError> {
        let whole = self.whole();
        let index = whole.cable(name)?;
        let step = CableBatch::of(name, set);
        CheckedBatch::check(&*whole, &whole.cables, &step)?.apply(&whole.cables)?;
        Ok(whole.cables.impairments(index))
    }

    fn impairments(&self) -> Vec<LaneImpairment> {
        self.whole().cables.all_impairments()
    }

    async fn change_cables(&self, step: CableBatch) -> Result<CableBatchDone, ApiError> {
        let whole = self.whole();
        let planned = CheckedBatch::check(&*whole, &whole.cables, &step)?;
        let (at_ns, changed) = planned.apply(&whole.cables)?;
        let ends = changed.into_iter().flat_map(|(index, state)| {
            let (whole, up) = (&whole, state != CableState::Down);
            [Side::A, Side::B].map(|side| self.set_carrier(whole, index, side, up))
        });
        let notes = join_all(ends).await.into_iter().flatten().collect();
        Ok(CableBatchDone { at_ns, notes })
    }

    async fn apply(
        self: Arc<Self>,
        request: ApplyRequest,
        peer: Peer,
    ) -> Result<ApplyAnswer, ApiError> {
        self.change_to(request, peer).await
    }

    fn positions(&self) -> Result<Positions, ApiError> {
        Ok(self.all_places())
    }

    fn vm_args(&self, place: &str, wish: &PlugOptions) -> Result<Vec<String>, ApiError> {
        vm_args::options(&self.whole().topology, &self.paths, place, wish)
            .map_err(ApiError::unknown)
    }

    fn ssh(&self) -> Result<SshAccess, ApiError> {
        let fleet = self.fleet.as_ref().ok_or_else(|| {
            ApiError::conflict("this fabric has no switches: it was started with --switches none")
        })?;
        Ok(SshAccess {
            config: fleet.ssh_config().display().to_string(),
        })
    }

    fn ipmi(&self) -> Result<IpmiAccess, ApiError> {
        self.ipmi_access()
    }

    async fn exec(&self, node: &str, exec: ExecRequest) -> Result<ExecAnswer, ApiError> {
        let switch = self.whole().switch(node)?;
        let input = BASE64
            .decode(&exec.stdin)
            .map_err(|error| ApiError::conflict(format!("stdin is not base64: {error}")))?;
        let limits = Limits {
            time: EXEC_LIMIT,
            output: MAX_OUTPUT,
        };
        let output = switch
            .vm()
            .agent()
            .exec(&exec.argv, &input, limits)
            .await
            .map_err(|error| ApiError::failed(format!("{node}: {error}")))?;
        Ok(ExecAnswer {
            status: output.status.shell_code(),
            stdout: BASE64.encode(output.stdout),
            stderr: BASE64.encode(output.stderr),
            truncated: output.truncated,
        })
    }

    async fn power(&self, node: &str, action: PowerAction) -> Result<NodeStatus, ApiError> {
        let switch = self.whole().switch(node)?;
        let failed = |error| ApiError::conflict(format!("{node}: {error}"));
        switch.vm().power(action).await.map_err(failed)?;
        Ok(switch.status())
    }

    async fn console(&self, node: &str) -> Result<Box<dyn ConsoleStream>, ApiError> {
        let console = console_stream(self.whole().switch(node)?.vm());
        Ok(Box::new(console))
    }

    async fn capture(&self, request: &CaptureRequest) -> Result<CaptureStream, ApiError> {
        let whole = self.whole();
        let alias = |index: usize, side| whole.topology.cables[index].end(side).alias.clone();
        capture::start(&whole.cables, &*whole, alias, request)
    }

    fn recorder(&self) -> Result<impl Recording, ApiError> {
        Asked::of(self.recorder.as_ref(), |name| self.whole().cable(name))
    }
}

/// A console as a stream: what was kept first, then everything as it comes.
fn bad_state_notice(switch: &str, reason: &str) -> String {
    format!(
        "{switch} does not start from its saved state ({}): it boots plainly, as will all that \
         are like it; the state was removed and is made again at the next run",
        reason.lines().next().unwrap_or_default()
    )
}

fn console_stream(vm: &Vm) -> tokio::io::DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let mut console = vm.console().attach();
    let typist = console.typist();
    let (mut from_client, mut to_client) = tokio::io::split(ours);
    let shown = async move {
        let _ = to_client.write_all(&console.backlog).await;
        while let Some(bytes) = console.read().await {
            if to_client.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let typed = async move {
        let mut keys = [0; 1024];
        while let Ok(length @ 1..) =
            tokio::io::AsyncReadExt::read(&mut from_client, &mut keys).await
        {
            if typist.send(keys[..length].to_vec()).await.is_err() {
                return;
            }
        }
    };
    // A client that goes away is not waited for until the switch says something.
    tokio::spawn(async move {
        tokio::select! {
            () = shown => {}
            () = typed => {}
        }
    });
    theirs
}
