//! A worker that is stuck holds up no thread of control, and one that is not ends with its panel.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ikv_dataplane::capture::TapSpec;
use ikv_dataplane::impair::Impairment;
use ikv_dataplane::port::{MemoryHost, memory};
use ikv_dataplane::vhost_sockets::{Role, SocketSpec, VhostUserSockets};
use ikv_dataplane::{
    Answerer, Cable, CableHandle, CableState, Panel, PanelChange, PanelError, PanelOptions, Port,
    Side, VnetHeader,
};

const SOON: Duration = Duration::from_secs(10);

/// Captures of one lane at the same time.
const MAX_CAPTURES: usize = 16;

/// Far longer than sending a command takes, far shorter than a wait for a worker.
const AT_ONCE: Duration = Duration::from_millis(100);

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "waiting for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn plug(panel: &Panel) -> (CableHandle, MemoryHost, MemoryHost) {
    let (port_a, a) = memory(8).unwrap();
    let (port_b, b) = memory(8).unwrap();
    let cable = Cable::new(Port::Memory(port_a), Port::Memory(port_b));
    (panel.add(cable).wait().unwrap(), a, b)
}

fn impair(id: ikv_dataplane::CableId, delay: Option<Duration>) -> Vec<PanelChange> {
    let impairment = delay.map(|delay| {
        Box::new(Impairment {
            delay,
            ..Impairment::default()
        })
    });
    vec![PanelChange::Impair {
        id,
        from: Side::A,
        impairment,
    }]
}

/// Two workers. The first is stuck until `released`, in the notifier of an impairment's end.
struct Stuck {
    panel: Panel,
    /// Of the stuck worker.
    cable: CableHandle,
    released: Arc<AtomicBool>,
    _hosts: [MemoryHost; 2],
}

impl Stuck {
    fn new() -> Self {
        let (released, entered) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let notifier = {
            let (released, entered) = (released.clone(), entered.clone());
            move || {
                entered.store(true, Ordering::Relaxed);
                while !released.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        };
        let options = PanelOptions {
            workers: 2,
            ..Default::default()
        };
        let panel = Panel::start(&options, notifier).unwrap();
        let (cable, a, b) = plug(&panel);
        let delay = Duration::from_millis(200);
        panel.commit(impair(cable.id, Some(delay))).wait().unwrap();
        assert!(a.send(VnetHeader::default(), &[1; 60]));
        until("the frame to wait", || cable.lanes[0].snapshot().held == 1);
        panel.commit(impair(cable.id, None)).wait().unwrap();
        until("the worker to be stuck", || entered.load(Ordering::Relaxed));
        Stuck {
            panel,
            cable,
            released,
            _hosts: [a, b],
        }
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.released.store(true, Ordering::Relaxed);
    }
}

fn is_silent(error: &PanelError, from: Answerer) -> bool {
    matches!(error, PanelError::Silent(silent) if *silent == from)
}

#[test]
fn commands_to_a_stuck_worker_return_at_once_and_time_out() {
    let stuck = Stuck::new();
    let (panel, id) = (&stuck.panel, stuck.cable.id);
    // The other worker serves its cables meanwhile.
    let (other, a, b) = plug(panel);
    assert_eq!(panel.owner(other.id).unwrap(), 1);
    let start = Instant::now();
    let replies = [
        panel.set_state(id, CableState::Down),
        panel.commit(impair(id, None)),
        panel.move_cable(id, 1),
    ];
    assert!(start.elapsed() < AT_ONCE);
    for mut reply in replies {
        assert!(reply.try_take().is_none());
        let error = reply.wait_for(Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, PanelError::Silent(_)), "{error}");
    }
    assert!(a.send(VnetHeader::default(), &[2; 60]));
    assert!(b.receive(SOON).is_some());
}

/// A stuck worker's channel fills up: that is an answer, too.
#[test]
fn a_stuck_worker_is_not_sent_commands_without_end() {
    let stuck = Stuck::new();
    let start = Instant::now();
    let refused = (0..10_000).find_map(|_| {
        let mut reply = stuck.panel.accuracy(stuck.cable.id, Side::A);
        reply.try_take()
    });
    assert!(start.elapsed() < AT_ONCE);
    let error = refused.unwrap().unwrap_err();
    assert!(is_silent(&error, Answerer::Worker(0)), "{error}");
}

/// A capture of all cables sends a command for each lane before its worker reads the first.
#[test]
fn a_worker_that_is_busy_takes_a_command_for_each_lane_of_a_large_fabric() {
    let stuck = Stuck::new();
    let replies: Vec<_> = (0..2000)
        .map(|_| stuck.panel.accuracy(stuck.cable.id, Side::A))
        .collect();
    stuck.released.store(true, Ordering::Relaxed);
    for reply in replies {
        reply.wait().unwrap();
    }
}

/// A capture that is dropped while its worker takes no more commands ends once the worker does.
#[test]
fn a_capture_dropped_at_a_full_worker_still_ends() {
    let stuck = Stuck::new();
    let spec = TapSpec {
        filter: None,
        snap: 64,
        wire: false,
        bytes: 4096,
    };
    let (panel, id) = (&stuck.panel, stuck.cable.id);
    let capture = panel.tap(id, Side::A, spec.clone());
    while panel.accuracy(id, Side::A).try_take().is_none() {}
    // The caller gives up waiting, which drops the capture.
    drop(capture);
    stuck.released.store(true, Ordering::Relaxed);
    panel.accuracy(id, Side::A).wait_for(SOON).ok();
    // A lane has room for few captures: were that one left, these would not all fit.
    until("room for as many captures as a lane has", || {
        let taps: Vec<_> = (0..MAX_CAPTURES)
            .map(|_| panel.tap(id, Side::A, spec.clone()).wait())
            .collect();
        taps.iter().all(Result::is_ok)
    });
}

#[test]
fn stopping_leaves_a_stuck_worker_behind_and_says_so() {
    let stuck = Stuck::new();
    let start = Instant::now();
    assert_eq!(stuck.panel.stop(), [0]);
    assert!(start.elapsed() < Duration::from_secs(2));
    let after = stuck.panel.set_state(stuck.cable.id, CableState::Up).wait();
    assert!(after.is_err());
}

#[test]
fn dropping_a_panel_with_a_stuck_worker_ends() {
    let mut stuck = Stuck::new();
    let other = Panel::start(&PanelOptions::default(), || {}).unwrap();
    let panel = std::mem::replace(&mut stuck.panel, other);
    let start = Instant::now();
    drop(panel);
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn the_sockets_thread_does_not_hold_up_control_either() {
    let stuck = Stuck::new();
    let sockets = VhostUserSockets::start(stuck.panel.clone(), || {}).unwrap();
    let spec = SocketSpec {
        name: "socket".into(),
        cable: stuck.cable.id,
        side: Side::B,
        role: Role::Client("/nowhere/socket".into()),
        mtu: None,
    };
    let socket = sockets.add(spec).wait().unwrap();
    // It asks the stuck worker for an exchange of ports.
    let start = Instant::now();
    let exchanged = sockets.set_fallback_port(socket, None);
    let carrier = sockets.set_carrier(socket, false);
    assert!(start.elapsed() < AT_ONCE);
    let error = exchanged.wait_for(Duration::from_millis(20)).unwrap_err();
    assert!(is_silent(&error, Answerer::VhostUserSockets), "{error}");
    assert!(carrier.wait_for(Duration::from_millis(20)).is_err());
    let start = Instant::now();
    assert!(!sockets.stop(), "it still waits for the worker");
    assert!(start.elapsed() < Duration::from_secs(2));
}

/// The ports are closed as well: nothing but the test holds the counters any more.
#[test]
fn workers_end_when_the_last_handle_of_the_panel_is_dropped() {
    let panel = Panel::start(&PanelOptions::default(), || {}).unwrap();
    let (cable, a, _b) = plug(&panel);
    let other_handle = panel.clone();
    let capture = ikv_dataplane::capture::TapSpec {
        filter: None,
        snap: 64,
        wire: false,
        bytes: 4096,
    };
    let mut capture = panel.tap(cable.id, Side::A, capture).wait().unwrap();
    drop(panel);
    assert!(a.send(VnetHeader::default(), &[1; 60]));
    until("the frame", || cable.lanes[0].snapshot().frames_in == 1);
    drop(other_handle);
    assert_eq!(Arc::strong_count(&cable.lanes[0]), 1);
    assert!(capture.reader().is_finished());
    assert!(capture.end().wait().is_err(), "it ended with the panel");
}

/// The sockets hold a handle of the panel: they end first.
#[test]
fn the_sockets_thread_ends_with_its_last_handle() {
    let panel = Panel::start(&PanelOptions::default(), || {}).unwrap();
    let (cable, ..) = plug(&panel);
    let sockets = VhostUserSockets::start(panel.clone(), || {}).unwrap();
    drop(panel);
    drop(sockets);
    assert_eq!(Arc::strong_count(&cable.lanes[0]), 1);
}

#[test]
fn commands_for_a_cable_on_its_way_wait_at_its_new_worker() {
    let options = PanelOptions {
        workers: 2,
        ..Default::default()
    };
    let panel = Panel::start(&options, || {}).unwrap();
    let (cable, a, b) = plug(&panel);
    for round in 0..200_u32 {
        let (to, state) = match round % 2 {
            0 => (1, CableState::Down),
            _ => (0, CableState::Up),
        };
        let moved = panel.move_cable(cable.id, to);
        let cut = panel.set_state(cable.id, state);
        cut.wait().unwrap();
        moved.wait().unwrap();
    }
    assert!(a.send(VnetHeader::default(), &[3; 60]));
    assert!(b.receive(SOON).is_some());
}
