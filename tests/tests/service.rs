//! `run` as a service: what it reports to a service manager, by systemd's protocol (sd_notify(3)).
#![allow(missing_docs, clippy::unwrap_used)]

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use ikv_tests::panel::{PanelFabric, PanelHost};
use ikv_tests::patience::{SOON, wait_for};
use ikv_tests::{Answer, have_root};

/// A service manager: the socket that it listens at.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(host: &PanelHost) -> Self {
        let path = host.folder().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, path }
    }

    /// Starts a patch panel as a service that it watches.
    fn start<'h>(&self, host: &'h PanelHost, watchdog: Duration) -> PanelFabric<'h> {
        let mut command = host.run_command(&[]);
        command
            .env("NOTIFY_SOCKET", &self.path)
            .env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        host.spawn(command)
    }

    fn next(&self) -> Option<String> {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
    }

    /// All lines up to the first datagram that has `line`.
    fn until(&self, line: &str) -> Vec<String> {
        let mut lines = Vec::new();
        wait_for(line, SOON, || {
            while let Some(datagram) = self.next() {
                lines.extend(datagram.lines().map(str::to_owned));
                if datagram.lines().any(|it| it.starts_with(line)) {
                    return Some(());
                }
            }
            None
        });
        std::mem::take(&mut lines)
    }
}

#[test]
fn a_service_manager_learns_when_the_fabric_is_ready_lives_and_ends() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("service");
    let manager = Manager::new(&host);
    let mut fabric = manager.start(&host, Duration::from_millis(400));
    let before = manager.until("READY=1");
    assert_eq!(before[0], "STATUS=coming up", "{before:?}");
    fabric.wait_ready();
    assert_eq!(
        host.ask(&["status"]).code,
        Some(0),
        "READY=1 is what `status` calls ready"
    );
    for _ in 0..3 {
        let lines = manager.until("WATCHDOG=1");
        assert!(
            !lines.iter().any(|line| line == "READY=1"),
            "once: {lines:?}"
        );
    }
    fabric.end();
    let after = manager.until("STOPPING=1");
    assert!(
        after.contains(&"STATUS=taking everything away".to_owned()),
        "{after:?}"
    );
}

#[test]
fn a_status_follows_the_fabric() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("service");
    let manager = Manager::new(&host);
    let fabric = manager.start(&host, Duration::ZERO);
    let before = manager.until("STATUS=ready · 0 plugged in");
    assert!(!before.contains(&"WATCHDOG=1".to_owned()), "{before:?}");
    // It leads a part of the fabric's range elsewhere.
    host.netns.ip("route add 192.168.100.0/24 dev lo");
    manager.until("STATUS=NOT READY · ! ");
    host.netns.ip("route del 192.168.100.0/24");
    manager.until("STATUS=ready · ");
    fabric.end();
}

#[test]
fn a_service_manager_that_never_reads_makes_the_fabric_wait_for_nothing() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("service");
    let manager = Manager::new(&host);
    let writer = UnixDatagram::unbound().unwrap();
    writer.set_nonblocking(true).unwrap();
    while writer.send_to(b"nothing", &manager.path).is_ok() {}
    // A sign of life is due every 5 ms.
    let mut fabric = manager.start(&host, Duration::from_millis(10));
    fabric.wait_ready();
    let began = std::time::Instant::now();
    for _ in 0..10 {
        let answer: Answer = host.ask(&["status"]);
        assert_eq!(answer.code, Some(0), "{answer:?}");
    }
    assert!(began.elapsed() < SOON);
    fabric.end();
}

#[test]
fn without_a_service_manager_or_with_a_wrong_one_it_runs_as_ever() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("service");
    for address in ["", "/nonexistent/notify", "vsock:2:1", "@", "\u{1b}[2J"] {
        let mut command = host.run_command(&[]);
        command.env("NOTIFY_SOCKET", address);
        let mut fabric = host.spawn(command);
        fabric.wait_ready();
        let said = fabric.stderr();
        assert_eq!(
            said.contains("the service manager at"),
            !address.is_empty(),
            "{address:?}: {said}"
        );
        assert!(!said.contains('\u{1b}'), "{said:?}");
        fabric.end();
    }
}
