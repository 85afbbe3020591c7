//! One forwarding thread: the loop that moves frames, [`Worker`].

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::os::fd::AsRawFd;

use crate::cable::{Cable, Side};
use crate::command::{CableId, Command, Event};
use crate::frame::Burst;
use crate::port::Port;

/// What a worker does when no frame waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Idle {
    /// Looks for frames a little longer, then sleeps until one comes. Costs nothing idle.
    #[default]
    Sleep,
    /// Never sleeps while a cable is there: the lowest latency for a whole core.
    Spin,
}

/// How long a port is polled after its last frame before the worker waits for it in epoll.
/// About what falling asleep and waking up cost together.
const SPIN: Duration = Duration::from_micros(30);

/// Rounds over the hot ports between two looks at the others, while there are frames.
const ROUNDS_PER_POLL: u32 = 16;

pub(crate) const WAKE: Token = Token(usize::MAX);

/// Tells the control side that an event waits for it.
pub(crate) type Bell = Arc<dyn Fn() + Send + Sync>;

pub(crate) struct Worker {
    poll: Poll,
    commands: Receiver<Command>,
    events: Sender<Event>,
    bell: Bell,
    idle: Idle,
    cables: Vec<Slot>,
    places: BTreeMap<CableId, usize>,
    /// Ports that carried frames lately. Only these are polled.
    hot: Vec<HotPort>,
    burst: Burst,
}

struct Slot {
    id: CableId,
    cable: Cable,
    hot: [bool; 2],
}

struct HotPort {
    place: usize,
    side: Side,
    quiet_since: Option<Instant>,
}

impl Worker {
    pub(crate) fn new(
        poll: Poll,
        commands: Receiver<Command>,
        events: Sender<Event>,
        bell: Bell,
        idle: Idle,
    ) -> Self {
        Worker {
            poll,
            commands,
            events,
            bell,
            idle,
            cables: Vec::new(),
            places: BTreeMap::new(),
            hot: Vec::new(),
            burst: Burst::new(),
        }
    }

    /// Forwards until told to stop, then hands back its cables.
    pub(crate) fn run(mut self) -> Vec<Cable> {
        let mut ready = Events::with_capacity(256);
        loop {
            let wait = self.patience();
            match self.poll.poll(&mut ready, wait) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // epoll_wait fails otherwise only for a bad descriptor or address, and
                // both are ours for as long as the worker lives.
                Err(error) => unreachable!("epoll: {error}"),
            }
            for event in &ready {
                if event.token() == WAKE {
                    while let Ok(command) = self.commands.try_recv() {
                        if matches!(command, Command::Stop) {
                            return self.cables.into_iter().map(|slot| slot.cable).collect();
                        }
                        self.obey(command);
                    }
                } else {
                    let (place, side) = port_of(event.token());
                    self.heat(place, side);
                }
            }
            for _ in 0..ROUNDS_PER_POLL {
                if !self.round() {
                    break;
                }
            }
        }
    }

    /// How long epoll may sleep. Registration is edge-triggered, and a port leaves the hot
    /// list only after it said that it is empty: whatever comes later wakes us.
    fn patience(&self) -> Option<Duration> {
        let spin = self.idle == Idle::Spin && !self.cables.is_empty();
        if spin || !self.hot.is_empty() {
            Some(Duration::ZERO)
        } else {
            None
        }
    }

    /// One burst from each hot port. `false` when none had a frame.
    fn round(&mut self) -> bool {
        let mut some = false;
        let mut next = 0;
        while next < self.hot.len() {
            let HotPort { place, side, .. } = self.hot[next];
            match self.cables[place].cable.forward(side, &mut self.burst) {
                Ok(forwarded) if forwarded.some || forwarded.more => {
                    some = true;
                    self.hot[next].quiet_since = None;
                    next += 1;
                }
                Ok(_) if self.stays_hot(next) => next += 1,
                Ok(_) => self.cool(next),
                Err(error) => {
                    self.cool(next);
                    self.give_up(place, side, error);
                }
            }
        }
        some
    }

    fn stays_hot(&mut self, index: usize) -> bool {
        if self.idle == Idle::Spin {
            return true;
        }
        let now = Instant::now();
        now - *self.hot[index].quiet_since.get_or_insert(now) < SPIN
    }

    fn heat(&mut self, place: usize, side: Side) {
        let Some(slot) = self.cables.get_mut(place) else {
            return;
        };
        if !std::mem::replace(&mut slot.hot[side as usize], true) {
            self.hot.push(HotPort {
                place,
                side,
                quiet_since: None,
            });
        }
    }

    fn cool(&mut self, index: usize) {
        let port = self.hot.swap_remove(index);
        self.cables[port.place].hot[port.side as usize] = false;
    }

    fn give_up(&mut self, place: usize, side: Side, error: io::Error) {
        let Slot { id, cable, .. } = &mut self.cables[place];
        let (cable_id, port) = (*id, cable.replace(side, None));
        self.unregister(port.as_ref());
        // A full channel means that control is far behind; it sees the port in the
        // counters then.
        let _ = self.events.try_send(Event::PortFailed {
            cable: cable_id,
            side,
            error,
        });
        (self.bell)();
    }

    fn obey(&mut self, command: Command) {
        let (done, result) = match command {
            Command::Add { id, cable, done } => (done, self.add(id, *cable)),
            Command::SetState { id, state, done } => {
                let slot = self.slot(id);
                (done, slot.map(|slot| slot.cable.set_state(state)))
            }
            Command::Replace {
                id,
                side,
                port,
                done,
            } => (done, self.replace(id, side, port)),
            Command::Stop => return,
        };
        // Whoever asked may have stopped waiting for the answer.
        let _ = done.send(result);
    }

    fn add(&mut self, id: CableId, cable: Cable) -> io::Result<()> {
        let place = self.cables.len();
        for side in [Side::A, Side::B] {
            self.register(cable.port(side), place, side)?;
        }
        self.cables.push(Slot {
            id,
            cable,
            hot: [false; 2],
        });
        self.places.insert(id, place);
        // What waited before the registration makes no edge.
        for side in [Side::A, Side::B] {
            self.heat(place, side);
        }
        Ok(())
    }

    fn replace(&mut self, id: CableId, side: Side, port: Option<Port>) -> io::Result<()> {
        let place = *self.places.get(&id).ok_or(io::ErrorKind::NotFound)?;
        self.register(port.as_ref(), place, side)?;
        let old = self.cables[place].cable.replace(side, port);
        self.unregister(old.as_ref());
        self.heat(place, side);
        Ok(())
    }

    fn slot(&mut self, id: CableId) -> io::Result<&mut Slot> {
        let place = self.places.get(&id).ok_or(io::ErrorKind::NotFound)?;
        Ok(&mut self.cables[*place])
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
    (
        token.0 / 2,
        if token.0.is_multiple_of(2) {
            Side::A
        } else {
            Side::B
        },
    )
}
