//! The thread that all jacks share: [`Room`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use crate::jack::disposal::Disposal;
use crate::jack::news::JackEvent;
use crate::jack::outlet::Patching;
use crate::jack::socket::Socket;
use crate::jack::{JackId, JackSpec};
use crate::panel::PanelError;
use crate::port::Port;
use crate::worker::Bell;

pub(crate) const WAKE: Token = Token(usize::MAX);

/// Control to the jacks' thread. Each is answered when it has taken effect.
#[derive(Debug)]
pub(crate) enum Order {
    Add(JackSpec, Sender<io::Result<JackId>>),
    Remove(JackId, Sender<()>),
    Carrier(JackId, bool, Sender<()>),
    Gate(JackId, bool, Sender<()>),
    Beside(
        JackId,
        Option<Port>,
        Sender<Result<Option<Port>, PanelError>>,
    ),
    Stop,
}

/// What may have something for us. Ordered so that of one jack the connection comes first:
/// whoever left makes room for whoever comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Connection(usize),
    Listener(usize),
}

impl Source {
    fn token(self) -> Token {
        match self {
            Source::Connection(jack) => Token(jack * 2),
            Source::Listener(jack) => Token(jack * 2 + 1),
        }
    }

    fn of(token: Token) -> Self {
        if token.0.is_multiple_of(2) {
            Source::Connection(token.0 / 2)
        } else {
            Source::Listener(token.0 / 2)
        }
    }
}

/// Sockets, sessions and time of all jacks.
pub(crate) struct Room<P> {
    pub(crate) poll: Poll,
    pub(crate) waker: Arc<Waker>,
    pub(crate) orders: Receiver<Order>,
    pub(crate) events: Sender<JackEvent>,
    pub(crate) bell: Bell,
    pub(crate) panel: P,
    jacks: BTreeMap<usize, Jack<P>>,
    /// The number of the next jack; none is used twice.
    next: usize,
    /// Registration is edge-triggered: who had more than we took is looked at again.
    ready: BTreeSet<Source>,
}

struct Jack<P> {
    socket: Socket<P>,
    /// The session whose connection is registered.
    watched: Option<u64>,
}

impl<P: Patching + Clone> Room<P> {
    pub(crate) fn new(
        poll: Poll,
        waker: Arc<Waker>,
        orders: Receiver<Order>,
        events: Sender<JackEvent>,
        bell: Bell,
        panel: P,
    ) -> Self {
        Room {
            poll,
            waker,
            orders,
            events,
            bell,
            panel,
            jacks: BTreeMap::new(),
            next: 0,
            ready: BTreeSet::new(),
        }
    }

    /// Serves until told to stop; then every session is closed and every port taken out.
    pub(crate) fn run(mut self) {
        let mut happened = Events::with_capacity(256);
        loop {
            match self.poll.poll(&mut happened, self.patience()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // As in the workers: the descriptor is ours for as long as the thread lives.
                Err(error) => unreachable!("epoll: {error}"),
            }
            let now = Instant::now();
            let mut woken = false;
            for event in &happened {
                if event.token() == WAKE {
                    woken = true;
                } else {
                    self.ready.insert(Source::of(event.token()));
                }
            }
            if woken && !self.obey(now) {
                break;
            }
            self.tick(now);
            for source in std::mem::take(&mut self.ready) {
                self.look(source, now);
            }
        }
        let now = Instant::now();
        for jack in self.numbers() {
            self.with(jack, now, |socket| socket.close(now));
        }
        let jacks = std::mem::take(&mut self.jacks);
        Disposal::default().drop_elsewhere(jacks);
    }

    fn patience(&self) -> Option<std::time::Duration> {
        if !self.ready.is_empty() {
            return Some(std::time::Duration::ZERO);
        }
        let next = self.jacks.values();
        let next = next.filter_map(|jack| jack.socket.next_tick());
        let next = next.min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Orders and alarms. `false`: told to stop.
    fn obey(&mut self, now: Instant) -> bool {
        while let Ok(order) = self.orders.try_recv() {
            // Whoever asked may have stopped waiting for the answer.
            match order {
                Order::Add(spec, done) => _ = done.send(self.add(spec, now)),
                Order::Remove(JackId(jack), done) => {
                    self.with(jack, now, |socket| socket.close(now));
                    if let Some(jack) = self.jacks.remove(&jack) {
                        Disposal::default().drop_elsewhere(jack);
                    }
                    let _ = done.send(());
                }
                Order::Carrier(JackId(jack), up, done) => {
                    self.with(jack, now, |socket| socket.set_carrier(up, now));
                    let _ = done.send(());
                }
                Order::Gate(JackId(jack), open, done) => {
                    self.with(jack, now, |socket| socket.set_gate(open, now));
                    let _ = done.send(());
                }
                Order::Beside(JackId(jack), port, done) => {
                    let jack = self.jacks.get_mut(&jack);
                    let set = jack.map(|jack| jack.socket.set_beside(port));
                    let _ = done.send(set.unwrap_or(Err(PanelError::NoSuchCable)));
                }
                Order::Stop => return false,
            }
        }
        for jack in self.numbers() {
            self.with(jack, now, |socket| socket.look_for_alarm(now));
        }
        true
    }

    fn numbers(&self) -> Vec<usize> {
        self.jacks.keys().copied().collect()
    }

    /// Does something to a jack that is still there, and what follows from it.
    fn with(&mut self, jack: usize, now: Instant, act: impl FnOnce(&mut Socket<P>)) {
        if let Some(found) = self.jacks.get_mut(&jack) {
            act(&mut found.socket);
            self.after(jack, now);
        }
    }

    fn add(&mut self, spec: JackSpec, now: Instant) -> io::Result<JackId> {
        let jack = self.next;
        self.next += 1;
        let waker = self.waker.clone();
        let wake = move || {
            // It fails only for lack of memory in the kernel; the next order wakes it then.
            let _ = waker.wake();
        };
        let socket = Socket::new(spec, self.panel.clone(), wake, now);
        if let Some(listener) = socket.listener() {
            watch(self.poll.registry(), listener, Source::Listener(jack))?;
        }
        let watched = None;
        self.jacks.insert(jack, Jack { socket, watched });
        Ok(JackId(jack))
    }

    fn tick(&mut self, now: Instant) {
        let due = |jack: &Jack<P>| jack.socket.next_tick().is_some_and(|due| due <= now);
        let jacks = self.jacks.iter().filter(|(_, jack)| due(jack));
        for jack in jacks.map(|(jack, _)| *jack).collect::<Vec<_>>() {
            let mut waiting = false;
            self.with(jack, now, |socket| waiting = socket.tick(now));
            if waiting {
                self.ready.insert(Source::Listener(jack));
            }
        }
    }

    fn look(&mut self, source: Source, now: Instant) {
        let (Source::Connection(jack) | Source::Listener(jack)) = source;
        let mut more = false;
        self.with(jack, now, |socket| {
            more = match source {
                Source::Connection(_) => socket.serve(now),
                Source::Listener(_) => socket.accept(now),
            };
        });
        if more {
            self.ready.insert(source);
        }
    }

    /// Watches the connection that the jack has now, and passes on its news.
    fn after(&mut self, number: usize, now: Instant) {
        let Some(jack) = self.jacks.get_mut(&number) else {
            return;
        };
        let registry = self.poll.registry();
        let connection = jack.socket.connection();
        let session = connection.map(|(session, _)| session);
        if session != jack.watched {
            // The old one was closed, and with it its registration.
            let source = Source::Connection(number);
            let watching = connection.map(|(_, fd)| watch(registry, fd, source));
            jack.watched = session;
            if let Some(Err(error)) = watching {
                let reason = format!("cannot watch a connection: {error}");
                jack.socket.fault(now, &reason);
                jack.socket.end(None, now);
                jack.watched = None;
            } else if connection.is_some() {
                self.ready.insert(source);
            }
        }
        let mut told = false;
        for event in jack.socket.news() {
            // Full: control is far behind. It sees the ports in the counters then.
            let _ = self.events.try_send(event);
            told = true;
        }
        if told {
            (self.bell)();
        }
    }
}

fn watch(registry: &Registry, fd: RawFd, source: Source) -> io::Result<()> {
    registry.register(&mut SourceFd(&fd), source.token(), Interest::READABLE)
}
