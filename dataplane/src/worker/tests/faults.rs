//! Workers with a port that panics, hangs or lies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use crate::impair::Impairment;
use crate::panel::WorkerState;
use crate::port::{Fault, MemoryHost, memory};
use crate::{
    Answerer, Cable, CableHandle, CableState, DropReason, Event, Panel, PanelChange, PanelError,
    PanelOptions, Port, Side, VnetHeader,
};

const SOON: Duration = Duration::from_secs(10);

/// Longest pause of other cables, and of calls of control.
const PAUSE: Duration = Duration::from_millis(100);

struct Wire {
    cable: CableHandle,
    hosts: [MemoryHost; 2],
}

impl Wire {
    fn plug(panel: &Panel, fault: Option<Fault>) -> Self {
        let (mut port, a) = memory(64).unwrap();
        if let Some(fault) = fault {
            port = port.with_fault(fault);
        }
        let (other, b) = memory(64).unwrap();
        let cable = Cable::new(Port::Memory(port), Port::Memory(other));
        Wire {
            cable: panel.add(cable).wait().unwrap(),
            hosts: [a, b],
        }
    }

    fn send(&self, tag: u8) {
        assert!(self.hosts[0].send(VnetHeader::default(), &[tag; 60]));
    }

    /// How long a frame takes to the other end.
    fn pause(&self) -> Duration {
        let began = Instant::now();
        self.send(1);
        self.hosts[1].receive(SOON).expect("a frame");
        began.elapsed()
    }

    /// Conservation; what was dropped.
    fn drops(&self) -> u64 {
        let seen = self.cable.lanes[0].snapshot();
        assert_eq!(seen.frames_in, seen.frames_out + seen.held + seen.dropped());
        seen.drops[DropReason::Fault as usize]
    }
}

/// As the program does, workers write one line for a panic: with `RUST_BACKTRACE` the standard library
/// reads debug information for longer than a pause may take.
fn shorten_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match std::thread::current().name() {
            Some(name) if name.starts_with("worker") && !name.contains(':') => {
                eprintln!("{name}: {panic}");
            }
            _ => before(panic),
        }));
    });
}

fn panel(workers: usize) -> Panel {
    shorten_panics();
    let options = PanelOptions {
        workers,
        ..PanelOptions::default()
    };
    Panel::start(&options, || {}).unwrap()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waiting for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Looks, as control does, until the first worker is in a state.
fn until_seen(panel: &Panel, is_meant: impl Fn(WorkerState) -> bool) -> WorkerState {
    until("the state of the worker", || {
        let seen = panel.look()[0];
        std::thread::sleep(Panel::LOOK);
        is_meant(seen).then_some(seen)
    })
}

#[test]
fn a_panic_closes_its_cable_and_no_other() {
    let panel = panel(1);
    let (broken, other) = (
        Wire::plug(&panel, Some(Fault::Panics)),
        Wire::plug(&panel, None),
    );
    broken.pause();
    other.pause();
    broken.send(Fault::TRIGGER);
    let pause = other.pause();
    println!("the other cable stood still for {pause:?}");
    assert!(pause < PAUSE, "the other cable stood still for {pause:?}");
    let event = until("an event", || panel.event());
    let Event::CableClosed { cable, side, fault } = event else {
        panic!("{event:?}");
    };
    assert_eq!((cable, side), (broken.cable.id, Some(Side::A)));
    assert_eq!(fault, "a fault was injected");
    assert_eq!((broken.drops(), other.drops()), (1, 0));
    // Nothing passes any more, in either direction, and its frames cost nothing.
    broken.send(2);
    broken.hosts[1].send(VnetHeader::default(), &[3; 60]);
    other.pause();
    assert!(broken.hosts[1].receive(Duration::ZERO).is_none());
    assert!(broken.hosts[0].receive(Duration::ZERO).is_none());
    assert_eq!(panel.look(), [WorkerState::Works]);
    panel
        .set_state(broken.cable.id, CableState::Up)
        .wait()
        .unwrap();
    let (_, waited) = broken.hosts[1].receive(SOON).expect("it is open again");
    assert_eq!(waited[0], 2);
    broken.pause();
}

#[test]
fn frames_that_waited_in_a_closed_cable_are_counted() {
    let panel = panel(1);
    let broken = Wire::plug(&panel, Some(Fault::Panics));
    let impairment = Some(Box::new(Impairment {
        delay: Duration::from_secs(100),
        ..Impairment::default()
    }));
    let impair = PanelChange::Impair {
        id: broken.cable.id,
        from: Side::A,
        impairment,
    };
    panel.commit(vec![impair]).wait().unwrap();
    for _ in 0..5 {
        broken.send(1);
    }
    let held = || broken.cable.lanes[0].snapshot().held;
    until("five frames to wait", || (held() == 5).then_some(()));
    broken.send(Fault::TRIGGER);
    until("an event", || panel.event());
    assert_eq!((broken.drops(), held()), (6, 0));
    panel
        .set_state(broken.cable.id, CableState::Up)
        .wait()
        .unwrap();
    broken.pause();
}

#[test]
fn a_closed_cable_moves_and_takes_ports_but_stays_closed() {
    let panel = panel(2);
    let broken = Wire::plug(&panel, Some(Fault::Panics));
    let id = broken.cable.id;
    broken.send(Fault::TRIGGER);
    until("an event", || panel.event());
    panel.move_cable(id, 1).wait().unwrap();
    let (port, host) = memory(8).unwrap();
    let old = panel.exchange(id, Side::B, Some(Port::Memory(port))).wait();
    assert!(old.unwrap().is_some());
    broken.send(4);
    panel.set_state(id, CableState::Blackhole).wait().unwrap();
    assert_eq!(broken.cable.lanes[0].snapshot().frames_in, 1);
    panel.set_state(id, CableState::Up).wait().unwrap();
    assert_eq!(host.receive(SOON).expect("a frame").1[0], 4);
}

#[test]
fn a_worker_that_hangs_is_named_and_goes_on() {
    let panel = panel(2);
    let released = Arc::new(AtomicBool::new(false));
    let broken = Wire::plug(&panel, Some(Fault::Hangs(released.clone())));
    let other = Wire::plug(&panel, None);
    assert_eq!(panel.owner(other.cable.id).unwrap(), 1);
    broken.send(Fault::TRIGGER);
    let began = Instant::now();
    let seen = until_seen(&panel, |state| state != WorkerState::Works);
    let took = began.elapsed();
    let in_hand = Some((broken.cable.id, Some(Side::A)));
    assert_eq!(seen, WorkerState::Hangs { in_hand });
    assert!(took >= Duration::from_secs(1), "after {took:?}");
    assert_eq!(panel.look()[1], WorkerState::Works);
    // Control does not wait for it, and the command takes effect when it goes on.
    let began = Instant::now();
    let id = broken.cable.id;
    let error = panel.set_state(id, CableState::Down).wait().unwrap_err();
    assert!(matches!(error, PanelError::Silent(Answerer::Worker(0))));
    let batch = [other.cable.id, id].map(|id| PanelChange::State {
        id,
        state: CableState::Up,
    });
    let error = panel.commit(batch.into()).wait().unwrap_err();
    assert!(error.to_string().contains("worker 0"), "{error}");
    assert!(began.elapsed() < PAUSE);
    other.pause();
    // Nor is it given a cable, though it has no more of them than the other.
    let third = Wire::plug(&panel, None);
    assert_eq!(panel.owner(third.cable.id).unwrap(), 1);
    released.store(true, Ordering::Relaxed);
    until_seen(&panel, |state| state == WorkerState::Works);
    panel.set_state(id, CableState::Up).wait().unwrap();
    assert_eq!(broken.drops(), 0);
}

#[test]
fn an_idle_worker_and_a_busy_one_do_not_hang() {
    let panel = panel(2);
    let liar = Wire::plug(&panel, Some(Fault::Lies));
    let other = Wire::plug(&panel, None);
    // It claims that more frames wait, so that its worker never sleeps.
    liar.send(Fault::TRIGGER);
    for _ in 0..6 {
        assert_eq!(panel.look(), [WorkerState::Works; 2]);
        std::thread::sleep(Panel::LOOK);
    }
    other.pause();
}

#[test]
fn stopping_does_not_wait_for_a_worker_that_is_known_to_hang() {
    let panel = panel(1);
    let released = Arc::new(AtomicBool::new(false));
    let broken = Wire::plug(&panel, Some(Fault::Hangs(released.clone())));
    broken.send(Fault::TRIGGER);
    until_seen(&panel, |state| state != WorkerState::Works);
    let began = Instant::now();
    assert_eq!(panel.stop(), [0]);
    assert!(began.elapsed() < Duration::from_millis(500));
    released.store(true, Ordering::Relaxed);
}
