//! The thread that all jacks share: [`Room`].

use std::collections::BTreeSet;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

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
    jacks: Vec<Jack<P>>,
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
            jacks: Vec::new(),
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
        for jack in 0..self.jacks.len() {
            self.jacks[jack].socket.close(now);
            self.after(jack, now);
        }
        let jacks = std::mem::take(&mut self.jacks);
        Disposal::default().drop_elsewhere(jacks);
    }

    fn patience(&self) -> Option<std::time::Duration> {
        if !self.ready.is_empty() {
            return Some(std::time::Duration::ZERO);
        }
        let next = self.jacks.iter().filter_map(|jack| jack.socket.next_tick());
        let next = next.min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Orders and alarms. `false`: told to stop.
    fn obey(&mut self, now: Instant) -> bool {
        while let Ok(order) = self.orders.try_recv() {
            // Whoever asked may have stopped waiting for the answer.
            match order {
                Order::Add(spec, done) => _ = done.send(self.add(spec, now)),
                Order::Carrier(JackId(jack), up, done) => {
                    self.jacks[jack].socket.set_carrier(up, now);
                    self.after(jack, now);
                    let _ = done.send(());
                }
                Order::Gate(JackId(jack), open, done) => {
                    self.jacks[jack].socket.set_gate(open, now);
                    self.after(jack, now);
                    let _ = done.send(());
                }
                Order::Beside(JackId(jack), port, done) => {
                    let _ = done.send(self.jacks[jack].socket.set_beside(port));
                }
                Order::Stop => return false,
            }
        }
        for jack in 0..self.jacks.len() {
            self.jacks[jack].socket.look_for_alarm(now);
            self.after(jack, now);
        }
        true
    }

    fn add(&mut self, spec: JackSpec, now: Instant) -> io::Result<JackId> {
        let jack = self.jacks.len();
        let waker = self.waker.clone();
        let wake = move || {
            // It fails only for lack of memory in the kernel; the next order wakes it then.
            let _ = waker.wake();
        };
        let socket = Socket::new(spec, self.panel.clone(), wake, now);
        if let Some(listener) = socket.listener() {
            self.watch(listener, Source::Listener(jack))?;
        }
        self.jacks.push(Jack {
            socket,
            watched: None,
        });
        Ok(JackId(jack))
    }

    fn tick(&mut self, now: Instant) {
        for jack in 0..self.jacks.len() {
            let socket = &mut self.jacks[jack].socket;
            if socket.next_tick().is_some_and(|due| due <= now) {
                if socket.tick(now) {
                    self.ready.insert(Source::Listener(jack));
                }
                self.after(jack, now);
            }
        }
    }

    fn look(&mut self, source: Source, now: Instant) {
        let (Source::Connection(jack) | Source::Listener(jack)) = source;
        let socket = &mut self.jacks[jack].socket;
        let more = match source {
            Source::Connection(_) => socket.serve(now),
            Source::Listener(_) => socket.accept(now),
        };
        if more {
            self.ready.insert(source);
        }
        self.after(jack, now);
    }

    /// Watches the connection that the jack has now, and passes on its news.
    fn after(&mut self, jack: usize, now: Instant) {
        let Jack { socket, watched } = &self.jacks[jack];
        let connection = socket.connection();
        let session = connection.map(|(session, _)| session);
        if session != *watched {
            // The old one was closed, and with it its registration.
            let watching = connection.map(|(_, fd)| self.watch(fd, Source::Connection(jack)));
            self.jacks[jack].watched = session;
            if let Some(Err(error)) = watching {
                let socket = &mut self.jacks[jack].socket;
                socket.fault(now, &format!("cannot watch a connection: {error}"));
                socket.end(None, now);
                self.jacks[jack].watched = None;
            } else if connection.is_some() {
                self.ready.insert(Source::Connection(jack));
            }
        }
        let mut told = false;
        for event in self.jacks[jack].socket.news() {
            // Full: control is far behind. It sees the ports in the counters then.
            let _ = self.events.try_send(event);
            told = true;
        }
        if told {
            (self.bell)();
        }
    }

    fn watch(&self, fd: RawFd, source: Source) -> io::Result<()> {
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&fd), source.token(), Interest::READABLE)
    }
}
