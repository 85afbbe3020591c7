//! Where vhost-user front ends plug in: [`VhostUserSockets`].
//!
//! Each socket belongs to one end of a cable. A front end (QEMU, DPDK's virtio-user) connects to it,
//! or we connect to the front end's socket; that is a *session*. The front end shares the guest's
//! memory and says where the rings are, by the vhost-user protocol (QEMU's
//! `docs/interop/vhost-user.rst`). Rings that are started and enabled become a port: the session
//! makes a [`VhostUser`](crate::port::VhostUser) of them, and the [`Panel`] puts it in place of the
//! cable's end. Before anything about the rings changes (a ring stops, memory is remapped, the front
//! end leaves) the port is taken out again, and the worker that used it has let go of it when that
//! returns. So workers know nothing of sessions, and no memory goes away while a worker uses it.
//!
//! ```text
//!   socket ── session ── backend ──(VhostUser)──> cable end ──> panel ──> worker
//!   SocketThread: one thread for all sockets        <──alarm── a guest broke a rule
//! ```
//!
//! One thread, `vhost-sockets`, serves all sockets. It never waits for a front end: whatever a front
//! end sends, in however small pieces, can cost only its own session, which ends with one sentence
//! that says why.

#[cfg(any(test, fuzzing))]
pub(crate) mod arbitrary;
mod backend;
mod cable_end;
mod closer;
mod event;
mod message;
mod ring;
mod session;
mod socket;
mod thread;
mod token_bucket;

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use mio::Poll;

use crate::command::CableId;
use crate::mailbox::{Ended, Mailbox, Running, mailbox};
use crate::panel::{Answerer, Panel, PanelError};
use crate::port::Port;
use crate::reply::{Answer, Reply, one_shot};
use crate::seccomp;
use crate::side::Side;

use cable_end::ExchangePort;
use thread::{Channels, Request, SocketThread, WAKE};

pub use event::SocketEvent;

/// Events that may wait for control.
const EVENTS: usize = 1024;

/// Closing a session takes one exchange of ports. A thread that has not ended after this waits for a
/// worker that is stuck.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// Names a socket for as long as [`VhostUserSockets`] lives; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(usize);

/// Which side connects.
#[derive(Debug)]
pub enum Role {
    /// The front end connects to this socket, one at a time.
    Server(UnixListener),
    /// We connect to the front end's socket, every 200 ms until it is there.
    Client(PathBuf),
}

/// Describes a socket that is to be opened.
#[derive(Debug)]
pub struct SocketSpec {
    /// Begins the sentences of its events.
    pub name: String,
    /// The cable that a front end plugs into.
    pub cable: CableId,
    /// Which end of the cable.
    pub side: Side,
    /// Which side connects.
    pub role: Role,
    /// The longest IP packet, in bytes, that is advertised to guests (VIRTIO_NET_F_MTU); `None`
    /// advertises no MTU.
    pub mtu: Option<u16>,
}

/// All vhost-user sockets of a panel.
///
/// A handle: clones are the same sockets. Their thread ends when [`VhostUserSockets::stop`] is called
/// or the last clone is dropped, whichever comes first.
#[derive(Debug, Clone)]
pub struct VhostUserSockets {
    thread: Arc<Mutex<Thread>>,
    events: Receiver<SocketEvent>,
}

/// `None` once it was stopped.
#[derive(Debug)]
struct Thread(Option<(Mailbox<Request>, Running<()>)>);

impl VhostUserSockets {
    /// Starts the thread. `notifier` is called on it whenever an event has become available from
    /// [`VhostUserSockets::event`]; it must not block.
    ///
    /// # Errors
    /// When the process is out of threads or descriptors.
    pub fn start(panel: Panel, notifier: impl Fn() + Send + Sync + 'static) -> io::Result<Self> {
        Self::start_with(panel, notifier)
    }

    fn start_with(
        panel: impl ExchangePort + Clone,
        notifier: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let (mailbox, inbox) = mailbox(poll.registry(), WAKE)?;
        let (event_sender, events) = bounded(EVENTS);
        let channels = Channels {
            requests: inbox,
            events: event_sender,
            notifier: Arc::new(notifier),
        };
        let thread = SocketThread::new(poll, channels, panel);
        let name = "vhost-sockets".into();
        let running = Running::spawn_prepared(name, seccomp::sockets, || thread.run())?;
        Ok(VhostUserSockets {
            thread: Arc::new(Mutex::new(Thread(Some((mailbox, running))))),
            events,
        })
    }

    /// Opens a socket.
    ///
    /// # Errors
    /// [`PanelError::Socket`] when it cannot be watched; [`PanelError::Stopped`].
    pub fn add(&self, spec: SocketSpec) -> Reply<SocketId> {
        let added = self.request(|done| Request::Add(spec, done));
        Reply::new(Answerer::VhostUserSockets, async {
            added.await?.map_err(PanelError::Socket)
        })
    }

    /// Closes a socket: once the reply is there, its session has ended, its port is out of the panel
    /// and no front end is taken in any more. The socket's file stays: its maker removes it.
    pub fn remove(&self, id: SocketId) -> Reply<()> {
        self.request(|done| Request::Remove(id, done))
    }

    /// Sets whether the cable has carrier. Without it the front end is disconnected, and one that
    /// connects is closed at once: QEMU reports to its guest that the link is down.
    pub fn set_carrier(&self, id: SocketId, up: bool) -> Reply<()> {
        self.request(|done| Request::SetCarrier(id, up, done))
    }

    /// Sets whether front ends may connect; not while another port carries the cable. A front end
    /// whose rings are a port of the cable already stays, one that is still connecting is
    /// disconnected.
    pub fn set_accepting(&self, id: SocketId, accepting: bool) -> Reply<()> {
        self.request(|done| Request::SetAccepting(id, accepting, done))
    }

    /// Sets the port that carries the cable while no front end does, such as a tap. The result is the
    /// one that did so before. [`Panel::exchange`] is not the way: it would take out a front end that
    /// plugs in at the same time.
    ///
    /// # Errors
    /// As [`Panel::exchange`].
    pub fn set_fallback_port(&self, id: SocketId, port: Option<Port>) -> Reply<Option<Port>> {
        let set = self.request(|done| Request::SetFallbackPort(id, port, done));
        Reply::new(Answerer::VhostUserSockets, async { set.await? })
    }

    /// Whether its thread has ended by a panic, although nobody stopped it.
    pub fn has_ended(&self) -> bool {
        let thread = self.lock();
        let running = thread.0.as_ref().map(|(_, running)| running);
        running.is_some_and(Running::is_finished)
    }

    /// The next event, if one waits.
    pub fn event(&self) -> Option<SocketEvent> {
        self.events.try_recv().ok()
    }

    /// Ends every session, takes its port out of the panel, and closes the sockets. Call it
    /// before [`Panel::stop`]. `false` when the thread did not end within a second, because a worker
    /// does not answer: it is left behind and goes on closing.
    pub fn stop(self) -> bool {
        let thread = self.lock().0.take();
        thread.is_none_or(stop)
    }

    fn request<T: Send + 'static>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Reply<T> {
        const FROM: Answerer = Answerer::VhostUserSockets;
        let (done, answer) = one_shot();
        let sent = match &self.lock().0 {
            None => Err(PanelError::Stopped),
            Some((mailbox, _)) => mailbox
                .send(request(done))
                .map_err(|_| PanelError::Silent(FROM)),
        };
        match sent {
            Ok(()) => Reply::new(FROM, async { answer.await.ok_or(PanelError::Stopped) }),
            Err(error) => Reply::ready(FROM, Err(error)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Thread> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stop((mailbox, running): (Mailbox<Request>, Running<()>)) -> bool {
    drop(mailbox);
    !matches!(running.finish(Instant::now() + STOP_LIMIT), Ended::Detached)
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.0.take().map(stop);
    }
}
