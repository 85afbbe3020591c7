//! A backend without a fabric: [`Fake`].

use model::power::PowerAction;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::io::{copy, duplex, split};
use tokio::sync::mpsc;

use model::cable_change::{CableBatch, CableState, ImpairmentChange};
use model::impairment::ImpairKeys;
use model::plugging::PlugOptions;
use model::topology::TopologyJson;

use crate::capture::{CaptureStart, CaptureStream};
use crate::*;

/// Answers every request with something, and writes down in words what it was asked.
#[derive(Default)]
pub(crate) struct Fake {
    pub(super) asked: Mutex<Vec<String>>,
}

impl Fake {
    fn asked(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

pub(super) fn node() -> NodeStatus {
    NodeStatus {
        name: "leaf1".into(),
        role: "leaf".into(),
        state: NodeState::Off,
        since_ns: None,
        bgp: Sessions::default(),
        note: String::new(),
    }
}

fn capture(interface: &str) -> CaptureStream {
    let (chunks, receiver) = mpsc::channel(1);
    chunks.try_send(interface.as_bytes().to_vec()).unwrap();
    CaptureStream {
        start: CaptureStart::default(),
        chunks: receiver,
        stop: Arc::default(),
    }
}

pub(super) fn lane(cable: &str) -> LaneImpairment {
    LaneImpairment {
        cable: cable.into(),
        from: "a".into(),
        to: "b".into(),
        impairment: ImpairKeys::default(),
    }
}

pub(super) fn recorder_status() -> RecorderStatus {
    RecorderStatus {
        memory: 1,
        snap: 2,
        lanes: 3,
        triggers: vec![Trigger::Down {}],
        dumps: Vec::new(),
    }
}

impl Backend for Fake {
    fn status(&self) -> Status {
        self.asked("status".into());
        Status {
            ready: true,
            problems: Vec::new(),
            host: Vec::new(),
            nodes: vec![node()],
            cables: 1,
            workers: 2,
            hold_memory: 1 << 30,
            hold_memory_taken: 0,
            applying: None,
        }
    }

    fn topology(&self) -> Result<TopologyJson, ApiError> {
        self.asked("topology".into());
        Err(ApiError::conflict("no topology\u{1b}[2J"))
    }

    async fn cables(&self, names: &[String]) -> Result<Vec<CableReport>, ApiError> {
        self.asked(format!("cables {names:?}"));
        Ok(Vec::new())
    }

    async fn set_cable_state(
        &self,
        name: &str,
        state: CableState,
    ) -> Result<CableChanged, ApiError> {
        self.asked(format!("{name} {}", state.name()));
        Ok(CableChanged {
            name: name.into(),
            state,
            notes: Vec::new(),
        })
    }

    async fn impair(
        &self,
        name: &str,
        change: ImpairmentChange,
    ) -> Result<[LaneImpairment; 2], ApiError> {
        self.asked(format!("impair {name}, clear: {}", change.clear));
        Ok([lane(name), lane(name)])
    }

    fn impairments(&self) -> Vec<LaneImpairment> {
        self.asked("impairments".into());
        vec![lane("iksb12")]
    }

    async fn change_cables(&self, batch: CableBatch) -> Result<CableBatchDone, ApiError> {
        self.asked(format!("{} changes", batch.changes.len()));
        Ok(CableBatchDone {
            at_ns: 7,
            notes: Vec::new(),
        })
    }

    async fn apply(
        self: Arc<Self>,
        request: ApplyRequest,
        peer: Peer,
    ) -> Result<ApplyAnswer, ApiError> {
        let own = peer.uid == Some(rustix::process::geteuid().as_raw());
        self.asked(format!(
            "apply, dry run: {}, this user: {own}",
            request.dry_run
        ));
        Ok(ApplyAnswer::default())
    }

    fn stop(&self, peer: Peer) -> Result<Stopping, ApiError> {
        let own = peer.uid == Some(rustix::process::geteuid().as_raw());
        self.asked(format!("stop, this user: {own}"));
        Ok(Stopping { pid: 7 })
    }

    async fn positions(&self, request: PositionsRequest) -> Result<Positions, ApiError> {
        self.asked(format!("positions, learned: {}", request.learned));
        Ok(Positions {
            host: Ipv4Addr::LOCALHOST,
            places: Vec::new(),
            notes: Vec::new(),
        })
    }

    fn vm_args(&self, position: &str, options: &PlugOptions) -> Result<Vec<String>, ApiError> {
        self.asked(format!("vm-args {position} {options:?}"));
        Ok(vec!["-nodefaults".into()])
    }

    fn ssh(&self) -> Result<SshAccess, ApiError> {
        self.asked("ssh".into());
        Err(ApiError::unknown("no switches"))
    }

    fn ipmi(&self) -> Result<IpmiAccess, ApiError> {
        self.asked("ipmi".into());
        Err(ApiError::failed("no BMCs"))
    }

    async fn exec(&self, node: &str, request: ExecRequest) -> Result<ExecAnswer, ApiError> {
        self.asked(format!("exec {node} {:?}", request.argv));
        Ok(ExecAnswer {
            status: 3,
            stdout: String::new(),
            stderr: String::new(),
            truncated: false,
        })
    }

    async fn power(&self, name: &str, action: PowerAction) -> Result<NodeStatus, ApiError> {
        self.asked(format!("power {name} {action:?}"));
        Ok(node())
    }

    async fn console(&self, node: &str) -> Result<Box<dyn ConsoleStream>, ApiError> {
        self.asked(format!("console {node}"));
        let (ours, theirs) = duplex(64);
        tokio::spawn(async move {
            let (mut read, mut write) = split(ours);
            let _ = copy(&mut read, &mut write).await;
        });
        Ok(Box::new(theirs))
    }

    async fn capture(&self, request: &CaptureRequest) -> Result<CaptureStream, ApiError> {
        self.asked(format!("capture {:?}", request.cables));
        Ok(capture("now"))
    }

    fn events(&self, request: EventsRequest) -> BoxStream<'static, Streamed> {
        self.asked(format!(
            "events {:?}, follow: {}",
            request.since, request.follow
        ));
        let event = Event {
            id: 8,
            time: "now".into(),
            kind: EventKind::Notice,
            subject: "fabric".into(),
            text: "é\n".into(),
        };
        let lagged = Lagged {
            missed: 1,
            since: 9,
        };
        let all = [Streamed::Event(Arc::new(event)), Streamed::Lagged(lagged)];
        stream::iter(all).boxed()
    }

    fn workers_busy(&self) -> Vec<Duration> {
        vec![Duration::from_millis(1500)]
    }

    fn page(&self) -> Result<PageLink, ApiError> {
        self.asked("page".into());
        Ok(PageLink {
            link: "http://127.0.0.1:8090/?token=0".into(),
        })
    }

    fn recorder(&self) -> Result<impl Recording, ApiError> {
        Ok(FakeRecorder(self))
    }
}

struct FakeRecorder<'f>(&'f Fake);

impl Recording for FakeRecorder<'_> {
    async fn status(&self) -> RecorderStatus {
        self.0.asked("recorder".into());
        recorder_status()
    }

    async fn dump(&self, request: &DumpRequest) -> Result<CaptureStream, ApiError> {
        self.0.asked(format!("dump {:?}", request.last_ms));
        Ok(capture("before"))
    }

    async fn kept(&self, name: &str) -> Result<CaptureStream, ApiError> {
        self.0.asked(format!("kept {name}"));
        Ok(capture("kept"))
    }

    async fn set_triggers(&self, request: TriggersRequest) -> Result<RecorderStatus, ApiError> {
        self.0.asked(format!("triggers {:?}", request.triggers));
        Ok(recorder_status())
    }
}
