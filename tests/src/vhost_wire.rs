//! A wire between two vhost-user sockets, run by `ikv-fabric patch` without root.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::patience::{SOON, ended, ensure, until, wait_until};
use crate::{ikv_fabric, run};

/// A running wire; killed when dropped.
#[derive(Debug)]
pub struct VhostWire {
    folder: tempfile::TempDir,
    process: Child,
}

/// The counters of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lane {
    /// Frames that entered the lane.
    pub frames_in: u64,
    /// Frames that left the lane.
    pub frames_out: u64,
    /// Frames that the lane holds.
    pub held: u64,
    /// Frames that were dropped for any reason.
    pub dropped: u64,
}

impl VhostWire {
    /// Starts a wire between the sockets `a` and `b` in a new folder.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for sockets");
        let process = spawn(folder.path());
        let wire = VhostWire { folder, process };
        wire.wait_up();
        wire
    }

    /// Kills it and starts it again with the same sockets.
    ///
    /// # Panics
    /// As [`VhostWire::start`].
    pub fn kill_and_start_again(&mut self) {
        self.process.kill().expect("it is ours");
        self.process.wait().expect("it is ours");
        self.process = spawn(self.folder.path());
        self.wait_up();
    }

    fn wait_up(&self) {
        wait_until("the wire's sockets", SOON, || {
            let status = self.command("status").output();
            status.is_ok_and(|output| output.status.success())
                && ["a", "b"].iter().all(|end| self.socket(end).exists())
        });
    }

    /// The socket of end `a` or `b`.
    pub fn socket(&self, end: &str) -> PathBuf {
        self.folder.path().join(end)
    }

    /// The folder with its sockets.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(ikv_fabric());
        let socket = self.folder.path().join("control");
        command.args(["--json", "--socket"]).arg(socket).arg(verb);
        command
    }

    /// The counters of both directions in `cables --json`.
    ///
    /// # Panics
    /// When a frame is not accounted for.
    pub fn lanes(&self) -> [Lane; 2] {
        let output = run(&mut self.command("cables"));
        let cables: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        [0, 1].map(|lane| {
            let lane = &cables[0]["lanes"][lane];
            let count = |key: &str| {
                lane[key]
                    .as_u64()
                    .unwrap_or_else(|| panic!("{key}: {lane}"))
            };
            let drops = lane["drops"].as_object().expect("an object").values();
            let seen = Lane {
                frames_in: count("frames_in"),
                frames_out: count("frames_out"),
                held: count("held"),
                dropped: drops.filter_map(Value::as_u64).sum(),
            };
            let accounted = seen.frames_out + seen.held + seen.dropped;
            assert_eq!(seen.frames_in, accounted, "{lane}");
            seen
        })
    }

    /// Waits until the counters no longer change, and returns them.
    ///
    /// # Panics
    /// When they do not.
    pub fn quiet(&self) -> [Lane; 2] {
        let mut before = self.lanes();
        until("the counters to settle", SOON, || {
            let now = self.lanes();
            let last = std::mem::replace(&mut before, now);
            ensure(last == now, || format!("{now:?}")).map(|()| now)
        })
    }

    /// Ends it as a user does, and asserts that it leaves no file.
    ///
    /// # Panics
    /// When it does not end with status 0.
    pub fn end(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::INT).expect("it is ours");
        let status = ended(&mut self.process, SOON).expect("it ends on SIGINT");
        assert!(status.success(), "{status}");
        for end in ["a", "b", "control"] {
            assert!(!self.socket(end).exists(), "{end} is left");
        }
    }
}

impl Drop for VhostWire {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(folder: &Path) -> Child {
    let port = |end: &str| format!("vhost-user:{}", folder.join(end).display());
    Command::new(ikv_fabric())
        .arg("--socket")
        .arg(folder.join("control"))
        .args(["patch", &port("a"), &port("b")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program can be started")
}
