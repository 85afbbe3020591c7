//! The thread that serves all vhost-user sockets: [`SocketThread`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TryRecvError};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};

use crate::mailbox::Inbox;
use crate::panel::PanelError;
use crate::port::Port;
use crate::reply::Answer;
use crate::vhost_sockets::cable_end::ExchangePort;
use crate::vhost_sockets::closer::Closer;
use crate::vhost_sockets::event::SocketEvent;
use crate::vhost_sockets::socket::VhostUserSocket;
use crate::vhost_sockets::{Role, SocketId, SocketSpec};
use crate::worker::Notifier;

pub(crate) const WAKE: Token = Token(usize::MAX);

/// Control to the sockets' thread. Each is answered when it has taken effect.
#[derive(Debug)]
pub(crate) enum Request {
    Add(SocketSpec, Answer<io::Result<SocketId>>),
    Remove(SocketId, Answer<()>),
    SetCarrier(SocketId, bool, Answer<()>),
    SetAccepting(SocketId, bool, Answer<()>),
    SetFallbackPort(
        SocketId,
        Option<Port>,
        Answer<Result<Option<Port>, PanelError>>,
    ),
}

/// The ends of the thread's channels to and from control.
pub(crate) struct Channels {
    pub(crate) requests: Inbox<Request>,
    pub(crate) events: Sender<SocketEvent>,
    pub(crate) notifier: Notifier,
}

/// A descriptor that may be readable. Ordered so that of one socket the connection comes first: a
/// front end that left makes way for one that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Connection(usize),
    Listener(usize),
}

impl Source {
    fn token(self) -> Token {
        match self {
            Source::Connection(number) => Token(number * 2),
            Source::Listener(number) => Token(number * 2 + 1),
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

/// All sockets, their sessions, and when each has something to do.
pub(crate) struct SocketThread<P> {
    poll: Poll,
    channels: Channels,
    panel: P,
    sockets: BTreeMap<usize, Entry<P>>,
    /// The number of the next socket; none is used twice.
    next: usize,
    /// Registration is edge-triggered: a source that had more than was taken is looked at again.
    ready: BTreeSet<Source>,
}

struct Entry<P> {
    socket: VhostUserSocket<P>,
    /// The session whose connection is registered.
    watched: Option<u64>,
}

impl<P: ExchangePort + Clone> SocketThread<P> {
    pub(crate) fn new(poll: Poll, channels: Channels, panel: P) -> Self {
        SocketThread {
            poll,
            channels,
            panel,
            sockets: BTreeMap::new(),
            next: 0,
            ready: BTreeSet::new(),
        }
    }

    /// Serves until no request can come any more; then closes every session and takes every port out.
    pub(crate) fn run(mut self) {
        let mut happened = Events::with_capacity(256);
        loop {
            match self.poll.poll(&mut happened, self.timeout()) {
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
            if woken && self.handle_requests(now) == TryRecvError::Disconnected {
                break;
            }
            self.tick(now);
            for source in std::mem::take(&mut self.ready) {
                self.serve(source, now);
            }
        }
        let now = Instant::now();
        for number in self.numbers() {
            self.with(number, now, |socket| socket.close(now));
        }
        let sockets = std::mem::take(&mut self.sockets);
        Closer::default().drop_in_background(sockets);
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = self.sockets.values();
        let next = next.filter_map(|entry| entry.socket.next_tick());
        let next = next.min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Handles requests and alarms. Returns why there is no further request.
    fn handle_requests(&mut self, now: Instant) -> TryRecvError {
        let end = loop {
            match self.channels.requests.next() {
                Ok(request) => self.handle(request, now),
                Err(end) => break end,
            }
        };
        // A worker's alarm wakes this thread by the same token.
        for number in self.numbers() {
            self.with(number, now, |socket| socket.check_alarm(now));
        }
        end
    }

    fn handle(&mut self, request: Request, now: Instant) {
        match request {
            Request::Add(spec, done) => done.send(self.add(spec, now)),
            Request::Remove(SocketId(number), done) => {
                self.with(number, now, |socket| socket.close(now));
                if let Some(entry) = self.sockets.remove(&number) {
                    Closer::default().drop_in_background(entry);
                }
                done.send(());
            }
            Request::SetCarrier(SocketId(number), up, done) => {
                self.with(number, now, |socket| socket.set_carrier(up, now));
                done.send(());
            }
            Request::SetAccepting(SocketId(number), accepting, done) => {
                self.with(number, now, |socket| socket.set_accepting(accepting, now));
                done.send(());
            }
            Request::SetFallbackPort(SocketId(number), port, done) => {
                let entry = self.sockets.get_mut(&number);
                let set = entry.map(|entry| entry.socket.set_fallback_port(port));
                done.send(set.unwrap_or(Err(PanelError::NoSuchCable)));
            }
        }
    }

    fn numbers(&self) -> Vec<usize> {
        self.sockets.keys().copied().collect()
    }

    /// Does something to a socket that is still there, and what follows from it. A panic in it, most
    /// likely provoked by what a front end sent, closes this socket and no other.
    fn with(&mut self, number: usize, now: Instant, act: impl FnOnce(&mut VhostUserSocket<P>)) {
        let Some(Entry { socket, .. }) = self.sockets.get_mut(&number) else {
            return;
        };
        // Nothing but the socket can be inconsistent afterwards, and nobody looks at it any more.
        let acted = catch_unwind(AssertUnwindSafe(|| act(socket)));
        if acted.is_ok() {
            return self.after(number, now);
        }
        // Its port goes, too, if that still works.
        let _ = catch_unwind(AssertUnwindSafe(|| socket.close(now)));
        socket.fault(
            now,
            "closed after a fault of this program: restart the fabric to plug in here again, and \
             please report it",
        );
        self.after(number, now);
        if let Some(entry) = self.sockets.remove(&number) {
            Closer::default().drop_in_background(entry);
        }
    }

    fn add(&mut self, spec: SocketSpec, now: Instant) -> io::Result<SocketId> {
        let number = self.next;
        self.next += 1;
        if let Role::Server(listener) = &spec.role {
            listener.set_nonblocking(true)?;
        }
        let waker = self.channels.requests.waker();
        let wake = move || {
            // Fails only when the kernel is out of memory; the next request wakes the thread then.
            let _ = waker.wake();
        };
        let socket = VhostUserSocket::new(spec, self.panel.clone(), wake, now);
        if let Some(listener) = socket.listener() {
            watch(self.poll.registry(), listener, Source::Listener(number))?;
        }
        let watched = None;
        self.sockets.insert(number, Entry { socket, watched });
        Ok(SocketId(number))
    }

    fn tick(&mut self, now: Instant) {
        let is_due = |entry: &Entry<P>| entry.socket.next_tick().is_some_and(|due| due <= now);
        let due = self.sockets.iter().filter(|(_, entry)| is_due(entry));
        for number in due.map(|(number, _)| *number).collect::<Vec<_>>() {
            let mut waiting = false;
            self.with(number, now, |socket| waiting = socket.tick(now));
            if waiting {
                self.ready.insert(Source::Listener(number));
            }
        }
    }

    fn serve(&mut self, source: Source, now: Instant) {
        let (Source::Connection(number) | Source::Listener(number)) = source;
        let mut more = false;
        self.with(number, now, |socket| {
            more = match source {
                Source::Connection(_) => socket.serve(now),
                Source::Listener(_) => socket.accept(now),
            };
        });
        if more {
            self.ready.insert(source);
        }
    }

    /// Watches the connection that the socket has now, and passes on its events.
    fn after(&mut self, number: usize, now: Instant) {
        let Some(Entry { socket, watched }) = self.sockets.get_mut(&number) else {
            return;
        };
        let registry = self.poll.registry();
        let connection = socket.connection();
        let session = connection.map(|(session, _)| session);
        if session != *watched {
            // The old one was closed, and with it its registration.
            let source = Source::Connection(number);
            let watching = connection.map(|(_, fd)| watch(registry, fd, source));
            *watched = session;
            if let Some(Err(error)) = watching {
                let reason = format!("cannot watch a connection: {error}");
                socket.fault(now, &reason);
                socket.end(None, now);
                *watched = None;
            } else if connection.is_some() {
                self.ready.insert(source);
            }
        }
        let mut any = false;
        for event in socket.events() {
            // Full: control is far behind. It sees the ports in the counters then.
            let _ = self.channels.events.try_send(event);
            any = true;
        }
        if any {
            (self.channels.notifier)();
        }
    }
}

fn watch(registry: &Registry, fd: RawFd, source: Source) -> io::Result<()> {
    registry.register(&mut SourceFd(&fd), source.token(), Interest::READABLE)
}
