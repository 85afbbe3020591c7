//! One forwarding thread: the loop that moves frames, [`Worker`].

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::cable::{Cable, Side};
use crate::clock;
use crate::command::{CableId, Command, EndedImpairment, Event};
use crate::lane::Bursts;
use crate::patience::Patience;
use crate::port::Port;
use crate::stats::WorkerStats;
use crate::timer::Timer;

/// What a worker does when no frame waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Idle {
    /// Looks for frames a little longer, then sleeps until one comes. Costs nothing idle.
    #[default]
    Sleep,
    /// Never sleeps while a cable is there: the lowest latency for a whole core.
    Spin,
}

/// Rounds over the hot ports between two looks at the others and at the clock.
const ROUNDS_PER_POLL: u32 = 32;

pub(crate) const WAKE: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// Tells the control side that an event waits for it.
pub(crate) type Bell = Arc<dyn Fn() + Send + Sync>;

/// What joins a worker to the control side.
pub(crate) struct Wires {
    pub(crate) commands: Receiver<Command>,
    pub(crate) events: Sender<Event>,
    pub(crate) bell: Bell,
    pub(crate) stats: Arc<WorkerStats>,
}

pub(crate) struct Worker {
    poll: Poll,
    wires: Wires,
    idle: Idle,
    /// Cables, each at its place for as long as it stays; places are reused.
    cables: Vec<Option<Slot>>,
    places: BTreeMap<CableId, usize>,
    /// Ports that carried frames lately. Only these are polled.
    hot: Vec<HotPort>,
    /// Lanes in which frames wait for their time.
    waiting: Vec<WaitingLane>,
    timer: Timer,
    patience: Patience,
    memory: Bursts,
}

struct Slot {
    id: CableId,
    cable: Cable,
    hot: [bool; 2],
    /// By the side that the lane begins at: it is in the list of waiting ones.
    waiting: [bool; 2],
}

/// A lane in which frames wait.
struct WaitingLane {
    place: usize,
    from: Side,
    /// When the first of them is due.
    next: u64,
}

/// What one look at all hot ports brought.
#[derive(Default)]
struct Round {
    /// Frames.
    some: bool,
    /// Looking again would cost system calls.
    dear: bool,
}

struct HotPort {
    place: usize,
    side: Side,
    quiet_since: Option<Instant>,
}

impl Worker {
    /// # Errors
    /// When the kernel has no timer for it.
    pub(crate) fn new(poll: Poll, wires: Wires, idle: Idle) -> io::Result<Self> {
        let timer = Timer::new()?;
        poll.registry()
            .register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        Ok(Worker {
            poll,
            wires,
            idle,
            cables: Vec::new(),
            places: BTreeMap::new(),
            hot: Vec::new(),
            waiting: Vec::new(),
            timer,
            patience: Patience::default(),
            memory: Bursts::default(),
        })
    }

    /// Forwards until told to stop, then hands back its cables.
    pub(crate) fn run(mut self) -> Vec<Cable> {
        let mut ready = Events::with_capacity(256);
        loop {
            let wait = self.wait();
            let slept = wait.is_none().then(Instant::now);
            match self.poll.poll(&mut ready, wait) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // epoll_wait fails otherwise only for a bad descriptor or address, and
                // both are ours for as long as the worker lives.
                Err(error) => unreachable!("epoll: {error}"),
            }
            let woken = Instant::now();
            if let Some(since) = slept {
                self.patience.slept(woken - since);
            }
            for event in &ready {
                if event.token() == WAKE {
                    while let Ok(command) = self.wires.commands.try_recv() {
                        if matches!(command, Command::Stop) {
                            let slots = self.cables.into_iter().flatten();
                            return slots.map(|slot| slot.cable).collect();
                        }
                        self.obey(command);
                    }
                } else if event.token() != TIMER {
                    let (place, side) = port_of(event.token());
                    self.heat(place, side);
                }
            }
            let mut busy = 0;
            for _ in 0..ROUNDS_PER_POLL {
                if self.hot.is_empty() && self.waiting.is_empty() {
                    break;
                }
                let released = self.release_due();
                let round = self.round(woken);
                busy += u32::from(round.some || released);
                if !round.some && round.dear {
                    break;
                }
            }
            if busy > 0 {
                let time = woken.elapsed() * busy / ROUNDS_PER_POLL;
                self.wires.stats.add_busy(time);
            }
        }
    }

    /// How long epoll may sleep. Registration is edge-triggered, and a port leaves the hot
    /// list only after it said that it is empty: whatever comes later wakes us.
    fn wait(&mut self) -> Option<Duration> {
        let spin = self.idle == Idle::Spin && !self.places.is_empty();
        if spin || !self.hot.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = self.waiting.iter().map(|lane| lane.next).min();
        match next {
            // Too near to sleep, or the kernel has no timer left: look at the clock till then.
            Some(next) if !self.timer.set_ahead_of(next) => Some(Duration::ZERO),
            _ => None,
        }
    }

    /// Sends the frames whose time has come. `true` when there were some.
    fn release_due(&mut self) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let now = clock::now();
        let mut some = false;
        let mut at = 0;
        while at < self.waiting.len() {
            let WaitingLane { place, from, next } = self.waiting[at];
            if next > now {
                at += 1;
                continue;
            }
            some = true;
            let slot = self.cables.get_mut(place).and_then(Option::as_mut);
            let next = slot.and_then(|slot| slot.cable.release(from, now, &mut self.memory));
            if let Some(next) = next {
                self.waiting[at].next = next;
                at += 1;
            } else {
                self.waiting.swap_remove(at);
                self.dry(place, from);
            }
            // The answer may be there before epoll can tell.
            self.heat(place, from.other());
        }
        some
    }

    /// No frame waits in a lane any more.
    fn dry(&mut self, place: usize, from: Side) {
        let Some(Some(slot)) = self.cables.get_mut(place) else {
            return;
        };
        slot.waiting[from as usize] = false;
        let lane = slot.cable.lane_mut(from);
        if let Some(ended) = lane.take_ended() {
            let event = Event::Ended(EndedImpairment(ended));
            if let Err(refused) = self.wires.events.try_send(event) {
                // Control is far behind; it gets this with the next impairment of the lane.
                if let Event::Ended(EndedImpairment(ended)) = refused.into_inner() {
                    slot.cable.lane_mut(from).put_back(ended);
                }
                return;
            }
            (self.wires.bell)();
        }
    }

    /// Looks whether frames wait in a lane, and when for.
    #[inline]
    fn watch_lane(&mut self, place: usize, from: Side) {
        let Some(Some(slot)) = self.cables.get_mut(place) else {
            return;
        };
        let Some(next) = slot.cable.lane(from).next_release() else {
            return;
        };
        if !std::mem::replace(&mut slot.waiting[from as usize], true) {
            self.waiting.push(WaitingLane { place, from, next });
            return;
        }
        let mut lanes = self.waiting.iter_mut();
        if let Some(lane) = lanes.find(|lane| (lane.place, lane.from) == (place, from)) {
            lane.next = next;
        }
    }

    /// One burst from each hot port.
    fn round(&mut self, now: Instant) -> Round {
        let mut round = Round::default();
        let mut next = 0;
        while next < self.hot.len() {
            let HotPort { place, side, .. } = self.hot[next];
            let Some(slot) = &mut self.cables[place] else {
                self.hot.swap_remove(next);
                continue;
            };
            round.dear |= slot.cable.port(side).is_some_and(Port::is_dear);
            match slot.cable.forward(side, &mut self.memory) {
                Ok(forwarded) if forwarded.some || forwarded.more => {
                    round.some = true;
                    self.hot[next].quiet_since = None;
                    next += 1;
                    self.watch_lane(place, side);
                    // The answer may be there before epoll can tell.
                    self.heat(place, side.other());
                }
                Ok(_) if self.stays_hot(next, now) => next += 1,
                Ok(_) => self.cool(next),
                Err(error) => {
                    self.hot.swap_remove(next);
                    self.give_up(place, side, error);
                }
            }
        }
        round
    }

    fn stays_hot(&mut self, index: usize, now: Instant) -> bool {
        if self.idle == Idle::Spin {
            return true;
        }
        now - *self.hot[index].quiet_since.get_or_insert(now) < self.patience.spin()
    }

    /// Polls the port from now on.
    fn heat(&mut self, place: usize, side: Side) {
        let Some(Some(slot)) = self.cables.get_mut(place) else {
            return;
        };
        let Some(port) = slot.cable.port_mut(side) else {
            return;
        };
        if !std::mem::replace(&mut slot.hot[side as usize], true) {
            port.disarm();
            self.hot.push(HotPort {
                place,
                side,
                quiet_since: None,
            });
        }
    }

    /// Waits for the port in epoll from now on, unless frames come just as it is told so.
    fn cool(&mut self, index: usize) {
        let HotPort { place, side, .. } = self.hot[index];
        if let Some(slot) = &mut self.cables[place] {
            if slot.cable.port_mut(side).is_some_and(Port::arm) {
                return;
            }
            slot.hot[side as usize] = false;
        }
        self.hot.swap_remove(index);
    }

    fn give_up(&mut self, place: usize, side: Side, error: io::Error) {
        let Some(slot) = &mut self.cables[place] else {
            return;
        };
        slot.hot[side as usize] = false;
        let (cable, port) = (slot.id, slot.cable.replace(side, None));
        self.unregister(port.as_ref());
        // A full channel means that control is far behind; it sees the port in the
        // counters then.
        let _ = self.wires.events.try_send(Event::PortFailed {
            cable,
            side,
            port,
            error,
        });
        (self.wires.bell)();
    }

    /// Whoever asked may have stopped waiting for the answer.
    fn obey(&mut self, command: Command) {
        match command {
            Command::Add { id, cable, done } => _ = done.send(self.add(id, *cable)),
            Command::Release { id, done } => _ = done.send(self.release(id)),
            Command::SetState { id, state, done } => {
                let slot = self.slot(id);
                _ = done.send(slot.map(|(_, slot)| slot.cable.set_state(state)));
            }
            Command::Exchange {
                id,
                side,
                port,
                done,
            } => _ = done.send(self.exchange(id, side, port)),
            Command::Impair {
                id,
                from,
                impaired,
                done,
            } => {
                let slot = self.slot(id);
                let old = slot.map(|(place, slot)| {
                    let old = slot.cable.lane_mut(from).impair(impaired);
                    (place, old)
                });
                if let Ok((place, _)) = old {
                    self.watch_lane(place, from);
                }
                _ = done.send(old.map(|(_, old)| old));
            }
            Command::Accuracy { id, from, done } => {
                let slot = self.slot(id);
                _ = done.send(slot.map(|(_, slot)| slot.cable.lane(from).accuracy()));
            }
            Command::Tap {
                id,
                from,
                tap,
                done,
            } => {
                let slot = self.slot(id);
                _ = done.send(slot.map(|(_, slot)| slot.cable.lane_mut(from).tap(tap).err()));
            }
            Command::Untap {
                id,
                from,
                number,
                done,
            } => {
                let slot = self.slot(id);
                _ = done.send(slot.map(|(_, slot)| slot.cable.lane_mut(from).untap(number)));
            }
            Command::Record {
                id,
                from,
                recorder,
                done,
            } => {
                let slot = self.slot(id);
                _ = done.send(slot.map(|(_, slot)| slot.cable.lane_mut(from).record(recorder)));
            }
            Command::Stop => {}
        }
    }

    fn add(&mut self, id: CableId, cable: Cable) -> io::Result<()> {
        let vacant = self.cables.iter().position(Option::is_none);
        let place = vacant.unwrap_or(self.cables.len());
        self.register(cable.port(Side::A), place, Side::A)?;
        self.register(cable.port(Side::B), place, Side::B)
            .inspect_err(|_| self.unregister(cable.port(Side::A)))?;
        let slot = Some(Slot {
            id,
            cable,
            hot: [false; 2],
            waiting: [false; 2],
        });
        if place == self.cables.len() {
            self.cables.push(slot);
        } else {
            self.cables[place] = slot;
        }
        self.places.insert(id, place);
        // What waited before the registration makes no edge.
        for side in [Side::A, Side::B] {
            self.heat(place, side);
            self.watch_lane(place, side);
        }
        Ok(())
    }

    fn release(&mut self, id: CableId) -> io::Result<Box<Cable>> {
        let place = self.places.remove(&id).ok_or(io::ErrorKind::NotFound)?;
        let slot = self.cables[place].take().ok_or(io::ErrorKind::NotFound)?;
        self.hot.retain(|hot| hot.place != place);
        self.waiting.retain(|lane| lane.place != place);
        for side in [Side::A, Side::B] {
            self.unregister(slot.cable.port(side));
        }
        Ok(Box::new(slot.cable))
    }

    fn exchange(
        &mut self,
        id: CableId,
        side: Side,
        port: Option<Port>,
    ) -> io::Result<Option<Port>> {
        let (place, slot) = self.slot(id)?;
        let old = slot.cable.replace(side, None);
        // It goes first: the other port may well be another handle of the same device.
        self.unregister(old.as_ref());
        if let Err(error) = self.register(port.as_ref(), place, side) {
            let back = self.register(old.as_ref(), place, side);
            let (_, slot) = self.slot(id)?;
            slot.cable.replace(side, old);
            return back.and(Err(error));
        }
        let (_, slot) = self.slot(id)?;
        slot.cable.replace(side, port);
        // It is polled once at least, whatever the old one was: what waited before the
        // registration makes no edge.
        slot.hot[side as usize] = false;
        self.hot
            .retain(|hot| (hot.place, hot.side) != (place, side));
        self.heat(place, side);
        Ok(old)
    }

    fn slot(&mut self, id: CableId) -> io::Result<(usize, &mut Slot)> {
        let place = *self.places.get(&id).ok_or(io::ErrorKind::NotFound)?;
        let slot = self.cables[place].as_mut();
        Ok((place, slot.ok_or(io::ErrorKind::NotFound)?))
    }

    fn register(&self, port: Option<&Port>, place: usize, side: Side) -> io::Result<()> {
        let Some(port) = port else { return Ok(()) };
        let token = Token(place * 2 + side as usize);
        self.poll
            .registry()
            .register(&mut SourceFd(&port.as_raw_fd()), token, Interest::READABLE)
    }

    fn unregister(&self, port: Option<&Port>) {
        if let Some(port) = port {
            // Fails only where it is not registered, which is what we want.
            let _ = self
                .poll
                .registry()
                .deregister(&mut SourceFd(&port.as_raw_fd()));
        }
    }
}

fn port_of(token: Token) -> (usize, Side) {
    let side = if token.0.is_multiple_of(2) {
        Side::A
    } else {
        Side::B
    };
    (token.0 / 2, side)
}
