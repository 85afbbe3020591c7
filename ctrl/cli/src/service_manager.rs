//! What `run` reports to the service manager that started it: systemd's protocol, sd_notify(3).
//!
//! The crate sd-notify sends on a socket that blocks: whoever owns the receiving socket and does not read
//! it could make the fabric wait. This socket never blocks; what finds no room is sent at the next look.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use model::printable;

/// The most characters of a status.
const LONGEST: usize = 300;

/// The service manager, or nobody: then every call returns at once and does nothing.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager {
    socket: Option<UnixDatagram>,
    heartbeat: Option<Heartbeat>,
    /// What it has received.
    ready: bool,
    status: String,
}

/// The sign of life that the manager waits for.
#[derive(Debug)]
struct Heartbeat {
    /// Half of what the manager waits, as sd_watchdog_enabled(3) advises.
    every: Duration,
    last: Option<Instant>,
}

impl ServiceManager {
    /// The one that this process's environment names.
    pub(crate) fn of_environment() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let Some(address) = variable("NOTIFY_SOCKET") else {
            return Self::default();
        };
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        // Another process's watchdog, if this one was started by the one that was to send.
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let limit = number("WATCHDOG_USEC").filter(|limit| is_ours && *limit > 0);
        Self::at(&address, limit.map(Duration::from_micros)).unwrap_or_else(|error| {
            let address = address.to_string_lossy();
            tracing::warn!(
                "the service manager at {address} learns nothing from this run: {error}"
            );
            Self::default()
        })
    }

    /// The one that listens at `address`, a path, or a name behind `@`, and waits for a sign of life for
    /// as long as `limit`.
    fn at(address: &OsStr, limit: Option<Duration>) -> io::Result<Self> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::other("it is neither a path nor a name behind @")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // Only once, before anything runs: to look the path up could take time.
        socket.connect_addr(&address)?;
        Ok(Self {
            socket: Some(socket),
            heartbeat: limit.map(|limit| Heartbeat {
                every: limit / 2,
                last: None,
            }),
            ..Self::default()
        })
    }

    /// Whether anybody is to be told.
    pub(crate) fn exists(&self) -> bool {
        self.socket.is_some()
    }

    /// How long to wait before [`ServiceManager::report`] is called again, at most `longest`.
    pub(crate) fn pause(&self, longest: Duration) -> Duration {
        let heartbeat = self.heartbeat.as_ref();
        heartbeat.map_or(longest, |it| longest.min(it.every))
    }

    /// Sends what has changed: the first time that the fabric is ready, a status of one line that is not
    /// the last one, and a sign of life when it is time for one.
    pub(crate) fn report(&mut self, ready: bool, status: &str) {
        if !self.exists() {
            return;
        }
        let status = printable::head(status.as_bytes(), LONGEST);
        let now = Instant::now();
        let lives = self.heartbeat.as_ref().is_some_and(|it| it.is_due(now));
        let mut message = String::new();
        if ready && !self.ready {
            message += "READY=1\n";
        }
        if status != self.status {
            message += &format!("STATUS={status}\n");
        }
        if lives {
            message += "WATCHDOG=1\n";
        }
        // Otherwise all of it is due at the next look, too.
        if !message.is_empty() && self.send(&message) {
            self.ready |= ready;
            self.status = status;
            if let Some(heartbeat) = self.heartbeat.as_mut().filter(|_| lives) {
                heartbeat.last = Some(now);
            }
        }
    }

    /// Says that the fabric ends.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=taking everything away\n");
    }

    /// Whether the message was taken.
    fn send(&self, message: &str) -> bool {
        let Some(socket) = &self.socket else {
            return false;
        };
        let sent = socket.send(message.as_bytes());
        if let Err(error) = &sent {
            tracing::debug!(%error, "the service manager took no message");
        }
        sent.is_ok()
    }
}

impl Heartbeat {
    fn is_due(&self, now: Instant) -> bool {
        // The wait before this look ends a little early or late.
        let almost = self.every / 2;
        self.last.is_none_or(|last| now - last >= almost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(limit: Option<Duration>) -> (tempfile::TempDir, UnixDatagram, ServiceManager) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let manager = ServiceManager::at(path.as_os_str(), limit).unwrap();
        (folder, listener, manager)
    }

    fn received(listener: &UnixDatagram) -> Option<String> {
        let mut bytes = [0; 4096];
        let length = listener.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
    }

    #[test]
    fn only_changes_are_reported() {
        let (_folder, listener, mut manager) = manager(None);
        let mut says = |ready, status: &str| {
            manager.report(ready, status);
            received(&listener)
        };
        assert_eq!(says(false, "coming up").unwrap(), "STATUS=coming up\n");
        assert_eq!(says(false, "coming up"), None);
        assert_eq!(says(true, "ready").unwrap(), "READY=1\nSTATUS=ready\n");
        assert_eq!(says(false, "NOT READY").unwrap(), "STATUS=NOT READY\n");
        assert_eq!(says(true, "NOT READY"), None, "it is ready once");
        assert_eq!(
            says(true, "a\nREADY=1\u{1b}").unwrap(),
            "STATUS=a\\nREADY=1\\u{1b}\n",
            "a status is one line"
        );
        manager.stopping();
        let last = received(&listener).unwrap();
        assert!(last.starts_with("STOPPING=1\n"), "{last}");
    }

    #[test]
    fn a_watchdog_gets_signs_of_life() {
        let limit = Duration::from_secs(3600);
        let (_folder, listener, mut manager) = manager(Some(limit));
        assert_eq!(manager.pause(2 * limit), limit / 2);
        assert_eq!(manager.pause(limit / 4), limit / 4);
        manager.report(false, "");
        assert_eq!(received(&listener).unwrap(), "WATCHDOG=1\n");
        manager.report(false, "");
        assert_eq!(received(&listener), None, "not before its time");
        let heartbeat = manager.heartbeat.as_mut().unwrap();
        heartbeat.last = Instant::now().checked_sub(limit / 2);
        assert!(
            heartbeat
                .last
                .is_none_or(|last| last.elapsed() >= limit / 4)
        );
        manager.report(false, "");
        assert_eq!(received(&listener).unwrap(), "WATCHDOG=1\n");
    }

    #[test]
    fn a_manager_that_does_not_read_makes_nobody_wait_and_misses_nothing_that_still_holds() {
        let (_folder, listener, mut manager) = manager(None);
        // net.unix.max_dgram_qlen is 10 by default; a system may allow more.
        let full = (0..100_000).any(|number| {
            let status = number.to_string();
            manager.report(false, &status);
            manager.status != status
        });
        assert!(full, "the socket takes everything");
        let began = Instant::now();
        manager.report(true, "ready");
        assert!(began.elapsed() < Duration::from_secs(1));
        assert!(!manager.ready);
        while received(&listener).is_some() {}
        manager.report(true, "ready");
        assert_eq!(received(&listener).unwrap(), "READY=1\nSTATUS=ready\n");
    }

    #[test]
    fn abstract_names_are_addresses_and_other_words_are_none() {
        let name = format!("ikv-fabric-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        let mut manager = ServiceManager::at(format!("@{name}").as_ref(), None).unwrap();
        manager.report(true, "");
        assert_eq!(received(&listener).unwrap(), "READY=1\n");
        assert!(ServiceManager::at("vsock:2:1234".as_ref(), None).is_err());
        assert!(ServiceManager::at("/nonexistent/notify".as_ref(), None).is_err());
    }
}
