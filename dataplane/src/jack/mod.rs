//! Where front ends plug in: the sockets of vhost-user, [`Jacks`].
//!
//! A *jack* is one end of a cable with a socket. A front end (QEMU, DPDK's virtio-user) connects
//! to it, or the jack connects to the front end's socket; that is a *session*. It shares the
//! guest's memory and tells where the rings are, by the vhost-user protocol (QEMU's
//! `docs/interop/vhost-user.rst`). Rings that are started and enabled *are* a port: the jack
//! makes a [`VhostUser`](crate::port::VhostUser) of them and has the [`Panel`] put it in place
//! of the cable's end. Before anything about the rings changes (a ring stops, memory is remapped,
//! the front end leaves) the port is taken out again; the worker that used it has let go of it
//! when that returns. So workers know nothing of sessions, and no memory goes away under them.
//!
//! ```text
//!   socket ── session ── backend ──(VhostUser)──> outlet ──> panel ──> worker
//!   room: one thread for all of them               <──alarm── a guest broke a rule
//! ```
//!
//! One thread, `jacks`, serves all sockets. It never waits for a front end: whatever one sends,
//! in whatever pieces, costs at most its own session, which ends with one sentence that says why.

#[cfg(any(test, fuzzing))]
pub(crate) mod arbitrary;
mod backend;
mod disposal;
mod news;
mod outlet;
mod ring;
mod room;
mod session;
mod socket;
mod wire;

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::{Poll, Waker};

use crate::cable::Side;
use crate::command::CableId;
use crate::panel::{Panel, PanelError};
use crate::port::Port;

use outlet::Patching;
use room::{Order, Room, WAKE};

pub use news::JackEvent;

/// Orders that may wait for the thread.
const ORDERS: usize = 64;

/// Events that may wait for control.
const EVENTS: usize = 1024;

/// Names a jack for as long as [`Jacks`] lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JackId(usize);

/// Who connects to whom.
#[derive(Debug)]
pub enum Role {
    /// The front end connects to this socket, one at a time.
    Server(UnixListener),
    /// We connect to the front end's socket, again and again until it is there.
    Client(PathBuf),
}

/// What a jack is to be.
#[derive(Debug)]
pub struct JackSpec {
    /// What its events call it.
    pub name: String,
    /// The cable.
    pub cable: CableId,
    /// Its end.
    pub side: Side,
    /// Who connects to whom.
    pub role: Role,
    /// The longest IP packet, in bytes, that guests are told to send; `None` tells nothing.
    pub mtu: Option<u16>,
}

/// All jacks of a panel. Clones are handles to the same ones.
#[derive(Debug, Clone)]
pub struct Jacks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    orders: Sender<Order>,
    waker: Arc<Waker>,
    events: Receiver<JackEvent>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Jacks {
    /// Starts the thread. `bell` is called on it whenever an event has become available from
    /// [`Jacks::event`]; it must not block.
    ///
    /// # Errors
    /// When the process is out of threads or descriptors.
    pub fn start(panel: Panel, bell: impl Fn() + Send + Sync + 'static) -> io::Result<Jacks> {
        Self::start_with(panel, bell)
    }

    fn start_with(
        panel: impl Patching + Clone,
        bell: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Jacks> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (orders, inbox) = bounded(ORDERS);
        let (event_sender, events) = bounded(EVENTS);
        let bell = Arc::new(bell);
        let room = Room::new(poll, waker.clone(), inbox, event_sender, bell, panel);
        let thread = std::thread::Builder::new()
            .name("jacks".into())
            .spawn(move || room.run())?;
        Ok(Jacks(Arc::new(Inner {
            orders,
            waker,
            events,
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// Opens a jack.
    ///
    /// # Errors
    /// When its socket cannot be watched, or [`Jacks::stop`] was called.
    pub fn add(&self, spec: JackSpec) -> io::Result<JackId> {
        if let Role::Server(listener) = &spec.role {
            listener.set_nonblocking(true)?;
        }
        self.order(|done| Order::Add(spec, done))
            .unwrap_or_else(|| Err(io::Error::other("the jacks' thread has ended")))
    }

    /// Closes a jack: its session ends, its port is out of the panel and its socket takes nobody
    /// in any more when this returns. The socket's file is its maker's.
    pub fn remove(&self, id: JackId) {
        // There is nothing to close after `stop`.
        let _ = self.order(|done| Order::Remove(id, done));
    }

    /// Whether the cable has carrier. Without it the front end is disconnected, and whoever
    /// connects is closed at once: QEMU tells its guest that the link is down. In force when
    /// this returns.
    pub fn set_carrier(&self, id: JackId, up: bool) {
        // There is nothing to cut after `stop`.
        let _ = self.order(|done| Order::Carrier(id, up, done));
    }

    /// Whether front ends may connect: closed while something else carries the cable. One whose
    /// rings are a port of the cable goes on, one that has not come so far is disconnected. In
    /// force when this returns.
    pub fn set_gate(&self, id: JackId, open: bool) {
        let _ = self.order(|done| Order::Gate(id, open, done));
    }

    /// The port that carries the cable while no front end does, such as a tap. Gives back the
    /// one that did so before. In force when this returns; [`Panel::exchange`] would take out
    /// a front end that comes at the same time.
    ///
    /// # Errors
    /// As [`Panel::exchange`]; [`PanelError::Stopped`] after [`Jacks::stop`] too.
    pub fn set_beside(&self, id: JackId, port: Option<Port>) -> Result<Option<Port>, PanelError> {
        self.order(|done| Order::Beside(id, port, done))
            .unwrap_or(Err(PanelError::Stopped))
    }

    /// The next event, if one waits.
    pub fn event(&self) -> Option<JackEvent> {
        self.0.events.try_recv().ok()
    }

    /// Ends every session, takes its port out of the panel, and closes the sockets. Call it
    /// before [`Panel::stop`](crate::Panel::stop).
    pub fn stop(self) {
        self.0.stop();
    }

    fn order<T>(&self, order: impl FnOnce(Sender<T>) -> Order) -> Option<T> {
        let (done, answer) = bounded(1);
        self.0.orders.send(order(done)).ok()?;
        self.0.waker.wake().ok()?;
        answer.recv().ok()
    }
}

impl Inner {
    fn stop(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // Both fail only when the thread has ended already.
            let _ = self.orders.send(Order::Stop);
            let _ = self.waker.wake();
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}
