//! One forwarding thread: the loop that moves frames, [`Worker`].

mod commands;
mod shares;
mod stats;
mod supervision;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::adaptive_poll::AdaptivePoll;
use crate::cable::Cable;
use crate::clock;
use crate::command::{CableId, Command, EndedImpairment, Event};
use crate::lane::Bursts;
use crate::mailbox::Inbox;
use crate::port::Port;
use crate::side::Side;
use crate::timer::Timer;

use commands::Control;
use shares::{Lead, Shares, Turn};
pub(crate) use stats::WorkerStats;
pub use supervision::panic_text;

/// What a worker does when no frame waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Idle {
    /// Polls a little longer, then sleeps until a frame comes. An idle worker takes no CPU time.
    #[default]
    Sleep,
    /// Never sleeps while it has a cable: the lowest latency, for a whole core.
    Spin,
}

/// Rounds over the active ports between two looks at epoll and at the clock.
const ROUNDS_PER_POLL: u32 = 32;

pub(crate) const WAKE: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// Notifies control that an event waits for it.
pub(crate) type Notifier = Arc<dyn Fn() + Send + Sync>;

/// The ends of a worker's channels to and from control.
pub(crate) struct WorkerChannels {
    pub(crate) commands: Inbox<Command>,
    pub(crate) events: Sender<Event>,
    pub(crate) notifier: Notifier,
    pub(crate) stats: Arc<WorkerStats>,
}

pub(crate) struct Worker {
    poll: Poll,
    channels: WorkerChannels,
    idle: Idle,
    /// Each cable keeps its index for as long as it stays; indices are reused.
    cables: Vec<Option<CableSlot>>,
    indices: BTreeMap<CableId, usize>,
    /// Cables that another worker is about to hand over, and the commands that wait for them.
    expected: BTreeMap<CableId, Vec<Command>>,
    /// Ports that carried frames lately. Only these are polled.
    active: Vec<ActivePort>,
    /// Lanes in which frames wait for their time.
    waiting: Vec<WaitingLane>,
    shares: Shares,
    timer: Timer,
    polling: AdaptivePoll,
    memory: Bursts,
}

struct CableSlot {
    id: CableId,
    cable: Cable,
    /// By side: the port is in the list of active ones.
    active: [bool; 2],
    /// By the side that the lane begins at: it is in the list of waiting ones.
    waiting: [bool; 2],
}

/// A lane in which frames wait.
struct WaitingLane {
    /// Of its cable.
    index: usize,
    from: Side,
    /// When the first of them is due, in ns of [`clock::now`].
    next: u64,
    lead: Lead,
}

/// The outcome of polling all active ports once.
#[derive(Default)]
struct Round {
    /// Frames were received.
    received: bool,
    /// Another round costs system calls.
    needs_syscall: bool,
    /// A lane has frames and waits for others.
    throttled: bool,
}

struct ActivePort {
    /// Of its cable.
    index: usize,
    side: Side,
    quiet_since: Option<Instant>,
    lead: Lead,
}

impl Worker {
    /// # Errors
    /// When the kernel has no timer for it.
    pub(crate) fn new(poll: Poll, channels: WorkerChannels, idle: Idle) -> io::Result<Self> {
        let timer = Timer::new()?;
        poll.registry()
            .register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        Ok(Worker {
            poll,
            channels,
            idle,
            cables: Vec::new(),
            indices: BTreeMap::new(),
            expected: BTreeMap::new(),
            active: Vec::new(),
            waiting: Vec::new(),
            shares: Shares::default(),
            timer,
            polling: AdaptivePoll::default(),
            memory: Bursts::default(),
        })
    }

    /// Forwards until no command can come any more, then hands back its cables.
    pub(crate) fn run(mut self) -> Vec<Cable> {
        let mut ready = Events::with_capacity(256);
        loop {
            let timeout = self.timeout();
            let asleep = timeout.is_none().then(Instant::now);
            self.channels.stats.turn(asleep.is_some());
            match self.poll.poll(&mut ready, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // epoll_wait fails otherwise only for a bad descriptor or address, and
                // both are ours for as long as the worker lives.
                Err(error) => unreachable!("epoll: {error}"),
            }
            self.channels.stats.turn(false);
            let woken = Instant::now();
            if let Some(since) = asleep {
                self.polling.slept(woken - since);
            }
            for event in &ready {
                match event.token() {
                    WAKE => {
                        if self.survive(Self::handle_commands) == Some(Control::Gone) {
                            let slots = self.cables.into_iter().flatten();
                            return slots.map(|slot| slot.cable).collect();
                        }
                    }
                    // It only ends the sleep: `forward` looks at what is due.
                    TIMER => {}
                    token => {
                        let (index, side) = port_of(token);
                        self.activate(index, side);
                    }
                }
            }
            self.survive(|worker| worker.forward(woken));
        }
    }

    /// Some rounds over the active ports, and the frames that come due meanwhile.
    fn forward(&mut self, now: Instant) {
        let mut busy = 0;
        for _ in 0..ROUNDS_PER_POLL {
            if self.active.is_empty() && self.waiting.is_empty() {
                break;
            }
            self.shares.begin_round();
            let released = self.release_due();
            let round = self.round(now);
            busy += u32::from(round.received || released);
            // A poll in memory costs next to nothing. One that is a system call is better spent
            // on epoll, which looks at all ports at once.
            if !round.received && round.needs_syscall && !round.throttled {
                break;
            }
        }
        if busy > 0 {
            let time = now.elapsed() * busy / ROUNDS_PER_POLL;
            self.channels.stats.add_busy(time);
        }
    }

    /// How long epoll may sleep; `None`: until something happens. Registration is edge-triggered, and
    /// a port leaves the active list only when it is empty: a frame that comes later makes an edge.
    fn timeout(&mut self) -> Option<Duration> {
        let spin = self.idle == Idle::Spin && !self.indices.is_empty();
        if spin || !self.active.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = self.waiting.iter().map(|lane| lane.next).min();
        match next {
            // Too near to sleep, or the kernel has no timer left: poll the clock until then.
            Some(next) if !self.timer.set_ahead_of(next) => Some(Duration::ZERO),
            _ => None,
        }
    }

    /// Sends the held frames that are due. `true` when there were any.
    fn release_due(&mut self) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let now = clock::now();
        let mut any = false;
        let mut at = 0;
        while at < self.waiting.len() {
            let lane = &mut self.waiting[at];
            let (index, from) = (lane.index, lane.from);
            let turn = self.shares.turn(&mut lane.lead);
            if lane.next > now {
                at += 1;
                continue;
            }
            let slot = self.cables.get_mut(index).and_then(Option::as_mut);
            if let (Turn::Later { first }, Some(slot)) = (turn, &slot) {
                if first {
                    slot.cable.lane(from).stats.add_throttled();
                }
                at += 1;
                continue;
            }
            any = true;
            let stats = &self.channels.stats;
            let (next, work) = slot.map_or_else(Default::default, |slot| {
                stats.take_in_hand(slot.id, Some(from));
                slot.cable.release(from, now, &mut self.memory)
            });
            if let Some(next) = next {
                let lane = &mut self.waiting[at];
                self.shares.charge(&mut lane.lead, work);
                lane.next = next;
                at += 1;
            } else {
                self.waiting.swap_remove(at);
                self.drained(index, from);
            }
            // The receiver may answer sooner than epoll reports it.
            self.activate(index, from.other());
        }
        any
    }

    /// The last frame that waited in a lane has left.
    fn drained(&mut self, index: usize, from: Side) {
        let Some(Some(slot)) = self.cables.get_mut(index) else {
            return;
        };
        slot.waiting[from as usize] = false;
        let lane = slot.cable.lane_mut(from);
        if let Some(ended) = lane.take_ended() {
            let event = Event::Ended(EndedImpairment(ended));
            if let Err(refused) = self.channels.events.try_send(event) {
                // Control is far behind. It gets the memory back with the answer to the lane's next
                // impairment: freeing it here would hold up frames.
                if let Event::Ended(EndedImpairment(ended)) = refused.into_inner() {
                    slot.cable.lane_mut(from).put_back(ended);
                }
                return;
            }
            (self.channels.notifier)();
        }
    }

    /// Notes when the first of the frames that wait in a lane is due, if any wait.
    #[inline]
    fn schedule_release(&mut self, index: usize, from: Side) {
        let Some(Some(slot)) = self.cables.get_mut(index) else {
            return;
        };
        let Some(next) = slot.cable.lane(from).next_release() else {
            return;
        };
        if !std::mem::replace(&mut slot.waiting[from as usize], true) {
            let lead = Lead::default();
            self.waiting.push(WaitingLane {
                index,
                from,
                next,
                lead,
            });
            return;
        }
        let mut lanes = self.waiting.iter_mut();
        if let Some(lane) = lanes.find(|lane| (lane.index, lane.from) == (index, from)) {
            lane.next = next;
        }
    }

    /// One burst from each active port.
    fn round(&mut self, now: Instant) -> Round {
        let mut round = Round::default();
        let mut next = 0;
        while next < self.active.len() {
            let ActivePort { index, side, .. } = self.active[next];
            let Some(slot) = &mut self.cables[index] else {
                self.active.swap_remove(next);
                continue;
            };
            if let Turn::Later { first } = self.shares.turn(&mut self.active[next].lead) {
                if first {
                    slot.cable.lane(side).stats.add_throttled();
                }
                round.throttled = true;
                next += 1;
                continue;
            }
            round.needs_syscall |= slot.cable.port(side).is_some_and(Port::needs_syscall);
            self.channels.stats.take_in_hand(slot.id, Some(side));
            match slot.cable.forward(side, &mut self.memory) {
                Ok(forwarded) if forwarded.received || forwarded.more => {
                    round.received = true;
                    let port = &mut self.active[next];
                    port.quiet_since = None;
                    self.shares.charge(&mut port.lead, forwarded.work);
                    next += 1;
                    self.schedule_release(index, side);
                    // The receiver may answer sooner than epoll reports it.
                    self.activate(index, side.other());
                }
                Ok(_) if self.stays_active(next, now) => next += 1,
                Ok(_) => self.deactivate(next),
                Err(error) => {
                    self.active.swap_remove(next);
                    self.remove_failed_port(index, side, error);
                }
            }
        }
        round
    }

    fn stays_active(&mut self, at: usize, now: Instant) -> bool {
        if self.idle == Idle::Spin {
            return true;
        }
        now - *self.active[at].quiet_since.get_or_insert(now) < self.polling.spin()
    }

    /// Polls the port from now on, instead of waiting for it in epoll.
    fn activate(&mut self, index: usize, side: Side) {
        let Some(Some(slot)) = self.cables.get_mut(index) else {
            return;
        };
        if slot.cable.is_closed() {
            return;
        }
        let Some(port) = slot.cable.port_mut(side) else {
            return;
        };
        if !std::mem::replace(&mut slot.active[side as usize], true) {
            port.disarm();
            self.active.push(ActivePort {
                index,
                side,
                quiet_since: None,
                lead: Lead::default(),
            });
        }
    }

    /// Waits for the port in epoll from now on, unless a frame comes before the port has taken note.
    fn deactivate(&mut self, at: usize) {
        let ActivePort { index, side, .. } = self.active[at];
        if let Some(slot) = &mut self.cables[index] {
            if slot.cable.port_mut(side).is_some_and(Port::arm) {
                return;
            }
            slot.active[side as usize] = false;
        }
        self.active.swap_remove(at);
    }

    /// Takes a port out that has failed; the cable stays.
    fn remove_failed_port(&mut self, index: usize, side: Side, error: io::Error) {
        let Some(slot) = &mut self.cables[index] else {
            return;
        };
        slot.active[side as usize] = false;
        let (cable, port) = (slot.id, slot.cable.replace(side, None));
        self.unregister(port.as_ref());
        // A full channel means that control is far behind; it sees the port in the
        // counters then.
        let _ = self.channels.events.try_send(Event::PortFailed {
            cable,
            side,
            port,
            error,
        });
        (self.channels.notifier)();
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
