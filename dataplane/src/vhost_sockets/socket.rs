//! One socket, the front end that is connected to it, and which others may connect:
//! [`VhostUserSocket`].

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown,
    socket_with,
};

use crate::panel::PanelError;
use crate::port::Port;
use crate::port::vhost_user::Alarm;
use crate::vhost_sockets::backend::SessionError;
use crate::vhost_sockets::cable_end::{CableEnd, ExchangePort};
use crate::vhost_sockets::closer::Closer;
use crate::vhost_sockets::event::SocketEvent;
use crate::vhost_sockets::message::MessageError;
use crate::vhost_sockets::session::Session;
use crate::vhost_sockets::token_bucket::TokenBucket;
use crate::vhost_sockets::{Role, SocketSpec};

/// Most connections that are accepted or turned away at a time.
const ACCEPTS: usize = 16;

/// The pause after a connection failed or ended, before the next one is tried.
const RETRY: Duration = Duration::from_millis(200);

/// One socket. Its methods never wait for a front end.
#[derive(Debug)]
pub(crate) struct VhostUserSocket<P> {
    name: String,
    role: Role,
    mtu: Option<u16>,
    cable_end: CableEnd<P>,
    alarm: Alarm,
    alarmed: Arc<AtomicBool>,
    session: Option<Session>,
    /// The number of sessions so far, this one included.
    sessions: u64,
    closer: Closer,
    /// `false`: the cable is cut. Disconnecting is how a guest learns that.
    carrier: bool,
    /// `false`: another port carries the cable.
    accepting: bool,
    /// When to accept or connect again.
    retry: Option<Instant>,
    /// A front end was turned away, and no other is accepted before this. A QEMU that starts tries
    /// again at once, as fast as it can.
    away_until: Option<Instant>,
    /// When rings that are ready may be plugged in, if the rate limit made them wait.
    replug: Option<Instant>,
    plugs: TokenBucket,
    faults: TokenBucket,
    reported_plugged: bool,
    reported_refused: bool,
    events: Vec<SocketEvent>,
}

impl<P: ExchangePort> VhostUserSocket<P> {
    /// Workers call `wake` to have the sockets' thread call [`VhostUserSocket::check_alarm`].
    pub(crate) fn new(
        spec: SocketSpec,
        panel: P,
        wake: impl Fn() + Send + Sync + 'static,
        now: Instant,
    ) -> Self {
        let alarmed = Arc::new(AtomicBool::new(false));
        let raised = alarmed.clone();
        let alarm = Alarm::new(move || {
            raised.store(true, Ordering::Release);
            wake();
        });
        let retry = matches!(spec.role, Role::Client(_)).then_some(now);
        VhostUserSocket {
            name: spec.name,
            role: spec.role,
            mtu: spec.mtu,
            cable_end: CableEnd {
                panel,
                cable: spec.cable,
                side: spec.side,
                fallback: None,
            },
            alarm,
            alarmed,
            session: None,
            sessions: 0,
            closer: Closer::default(),
            carrier: true,
            accepting: true,
            retry,
            away_until: None,
            replug: None,
            // A guest that masks interrupts replaces its call descriptors now and then.
            plugs: TokenBucket::new(64, Duration::from_millis(50)),
            faults: TokenBucket::new(5, Duration::from_secs(10)),
            reported_plugged: false,
            reported_refused: false,
            events: Vec::new(),
        }
    }

    /// The descriptor to watch for new front ends.
    pub(crate) fn listener(&self) -> Option<RawFd> {
        match &self.role {
            Role::Server(listener) => Some(listener.as_raw_fd()),
            Role::Client(_) => None,
        }
    }

    /// The descriptor to watch for messages, and the number of its session: descriptors are reused.
    pub(crate) fn connection(&self) -> Option<(u64, RawFd)> {
        let session = self.session.as_ref()?;
        Some((self.sessions, session.stream.as_raw_fd()))
    }

    /// The events since the last call.
    pub(crate) fn events(&mut self) -> impl Iterator<Item = SocketEvent> {
        self.events.drain(..)
    }

    /// The next time at which [`VhostUserSocket::tick`] has something to do.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.retry.into_iter().chain(self.replug).min()
    }

    /// Does what is due. `true` when connections may wait.
    pub(crate) fn tick(&mut self, now: Instant) -> bool {
        if self.replug.is_some_and(|due| due <= now) {
            self.settle(now);
        }
        if self.retry.is_none_or(|due| due > now) {
            return false;
        }
        self.retry = None;
        match &self.role {
            Role::Server(_) => true,
            Role::Client(_) if self.closer.is_full() => {
                self.connect_at(now + RETRY);
                false
            }
            Role::Client(path) => {
                match connect_to(path) {
                    Ok(stream) => self.begin(stream),
                    // The front end does not listen yet, or its queue is full.
                    Err(_) => self.connect_at(now + RETRY),
                }
                false
            }
        }
    }

    /// Accepts or turns away the front ends that wait at the listener. `true` when more may wait.
    pub(crate) fn accept(&mut self, now: Instant) -> bool {
        for _ in 0..ACCEPTS {
            let Role::Server(listener) = &self.role else {
                return false;
            };
            if let Some(until) = self.away_until.filter(|until| *until > now)
                && !self.admits()
            {
                self.retry = Some(until);
                return false;
            }
            if self.closer.is_full() {
                self.retry = Some(now + RETRY);
                return false;
            }
            match accept_from(listener) {
                Ok(Some(stream)) => self.arrive(stream, now),
                Ok(None) => return false,
                Err(error) => {
                    self.fault(now, &format!("cannot take a connection: {error}"));
                    self.retry = Some(now + RETRY);
                    return false;
                }
            }
        }
        true
    }

    /// Handles messages of the front end. `true` when more may wait.
    pub(crate) fn serve(&mut self, now: Instant) -> bool {
        let Some(session) = &mut self.session else {
            return false;
        };
        match session.serve(&mut self.cable_end) {
            Ok(true) => return true,
            Ok(false) => self.settle(now),
            Err(error) => self.end(Some(error), now),
        }
        false
    }

    /// Ends the session if a worker has reported that the guest broke a rule.
    pub(crate) fn check_alarm(&mut self, now: Instant) {
        if !self.alarmed.swap(false, Ordering::Acquire) {
            return;
        }
        if let Some(session) = &mut self.session {
            match session.backend.unplug(&mut self.cable_end) {
                Ok(()) => self.settle(now),
                Err(error) => self.end(Some(error), now),
            }
        }
    }

    pub(crate) fn set_carrier(&mut self, up: bool, now: Instant) {
        if up != self.carrier {
            self.carrier = up;
            self.admission_changed(now);
        }
        if !up {
            self.end(None, now);
        }
    }

    pub(crate) fn set_accepting(&mut self, open: bool, now: Instant) {
        if open != self.accepting {
            self.accepting = open;
            self.admission_changed(now);
        }
        if !open && !self.is_plugged() {
            self.end(None, now);
        }
    }

    /// See [`VhostUserSockets::set_fallback_port`](crate::vhost_sockets::VhostUserSockets::set_fallback_port).
    pub(crate) fn set_fallback_port(
        &mut self,
        port: Option<Port>,
    ) -> Result<Option<Port>, PanelError> {
        if self.is_plugged() {
            return Ok(std::mem::replace(&mut self.cable_end.fallback, port));
        }
        let CableEnd {
            panel, cable, side, ..
        } = &self.cable_end;
        panel.exchange(*cable, *side, port)
    }

    fn is_plugged(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.backend.is_plugged())
    }

    /// Ends the session, if there is one. `None`: the front end did nothing wrong.
    pub(crate) fn end(&mut self, reason: Option<SessionError>, now: Instant) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        let parting = session.backend.unplug(&mut self.cable_end).err();
        // At once, for the front end that waits at the other end; closing may take its time.
        let _ = shutdown(&session.stream, Shutdown::Both);
        self.closer.drop_in_background(session);
        match reason.or(parting) {
            None | Some(SessionError::Message(MessageError::HungUp)) => {}
            Some(error) => self.fault(now, &error.to_string()),
        }
        self.replug = None;
        self.reported_refused = false;
        self.report_plugged(false);
        self.connect_at(now + RETRY);
        self.look_again(now);
    }

    /// Ends the session and accepts no other. Connections that wait at the listener are closed with
    /// it.
    pub(crate) fn close(&mut self, now: Instant) {
        if let Role::Server(listener) = &self.role {
            // A front end that connects while the listener is being closed is refused at once.
            let _ = shutdown(listener, Shutdown::Both);
        }
        self.end(None, now);
    }

    /// Whether a front end that connects now is accepted.
    fn admits(&self) -> bool {
        self.carrier && self.accepting && self.session.is_none()
    }

    /// A front end that waits at the listener may be acceptable now.
    fn look_again(&mut self, now: Instant) {
        if self.away_until.take().is_some() {
            self.retry = Some(now);
        }
    }

    /// As a client, connects at that time, unless no front end is admitted: one that is connected to
    /// and left at once may not listen again, as DPDK's does not.
    fn connect_at(&mut self, time: Instant) {
        if matches!(self.role, Role::Client(_)) {
            self.retry = self.admits().then_some(time);
        }
    }

    fn admission_changed(&mut self, now: Instant) {
        self.reported_refused = false;
        self.connect_at(now);
        self.look_again(now);
    }

    fn arrive(&mut self, stream: UnixStream, now: Instant) {
        // The previous front end may have left, and this one come, before we heard of either.
        self.serve(now);
        if self.admits() {
            return self.begin(stream);
        }
        self.away_until = Some(now + RETRY);
        self.closer.hang_up(stream);
        if !self.carrier {
            // The operator cut the cable and knows: no event.
        } else if !self.accepting {
            self.refuse("turned a front end away: another port carries the cable");
        } else {
            self.refuse("turned a front end away: one is plugged in already");
        }
    }

    fn begin(&mut self, stream: UnixStream) {
        self.session = Some(Session::new(stream, self.mtu));
        self.sessions += 1;
        self.reported_refused = false;
    }

    /// Plugs in the rings that run, takes out those that do not.
    fn settle(&mut self, now: Instant) {
        let Some(session) = &mut self.session else {
            return;
        };
        if session.backend.is_settled() {
            self.replug = None;
        } else if let Err(later) = self.plugs.take(now) {
            self.replug = Some(later);
            return;
        } else {
            self.replug = None;
            if let Err(error) = session.backend.settle(&mut self.cable_end, &self.alarm) {
                return self.end(Some(error), now);
            }
        }
        let plugged = session.backend.is_plugged();
        self.report_plugged(plugged);
    }

    fn report_plugged(&mut self, plugged: bool) {
        if plugged == std::mem::replace(&mut self.reported_plugged, plugged) {
            return;
        }
        let (cable, side) = (self.cable_end.cable, self.cable_end.side);
        self.events.push(if plugged {
            SocketEvent::Plugged { cable, side }
        } else {
            SocketEvent::Unplugged { cable, side }
        });
    }

    pub(crate) fn fault(&mut self, now: Instant, reason: &str) {
        if self.faults.take(now).is_ok() {
            self.events.push(SocketEvent::Fault {
                cable: self.cable_end.cable,
                side: self.cable_end.side,
                reason: format!("{}: {reason}", self.name),
            });
        }
    }

    fn refuse(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.reported_refused, true) {
            self.events.push(SocketEvent::Refused {
                cable: self.cable_end.cable,
                side: self.cable_end.side,
                reason: format!("{}: {reason}", self.name),
            });
        }
    }
}

/// `Ok(None)` when no connection waits.
fn accept_from(listener: &UnixListener) -> io::Result<Option<UnixStream>> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(Some(stream)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(None),
                io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                _ => return Err(error),
            },
        }
    }
}

/// Connects, but does not wait for a listener whose queue is full.
fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CableId;
    use crate::side::Side;

    /// A panel without workers.
    struct NoPanel;

    type Set = fn(&mut VhostUserSocket<NoPanel>, bool, Instant);

    impl ExchangePort for NoPanel {
        fn exchange(
            &self,
            _: CableId,
            _: Side,
            port: Option<Port>,
        ) -> Result<Option<Port>, PanelError> {
            drop(port);
            Ok(None)
        }
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn a_client_does_not_connect_while_nobody_may() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let spec = SocketSpec {
            name: "socket1".into(),
            cable: CableId(0),
            side: Side::B,
            role: Role::Client(path),
            mtu: None,
        };
        let mut now = Instant::now();
        let mut socket = VhostUserSocket::new(spec, NoPanel, || {}, now);
        let changes: [(&str, Set); 2] = [
            ("the cable is cut", VhostUserSocket::set_carrier),
            ("another port carries it", VhostUserSocket::set_accepting),
        ];
        for (what, set) in changes {
            // With a front end, and after it left by itself.
            for leaves in [false, true] {
                socket.tick(now);
                let (front, _) = listener.accept().expect("a connection");
                assert!(socket.connection().is_some());
                drop(front);
                if leaves {
                    socket.serve(now);
                    assert!(socket.next_tick().is_some(), "it tries again");
                }
                set(&mut socket, false, now);
                for _ in 0..3 {
                    now += RETRY;
                    assert!(!socket.tick(now));
                    assert_eq!(socket.next_tick(), None, "{what}");
                    assert!(listener.accept().is_err(), "{what}");
                }
                set(&mut socket, true, now);
                assert_eq!(socket.next_tick(), Some(now));
            }
        }
    }
}
