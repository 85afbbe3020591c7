//! `ikv-fabric patch` in a namespace of its own: [`Wire`].

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::patience::{SOON, ended, wait_until};
use crate::{Netns, ikv_fabric, run};

/// A running patch in a namespace of its own; killed when dropped.
#[derive(Debug)]
pub struct Wire {
    switch: Netns,
    folder: tempfile::TempDir,
    process: Child,
}

impl Wire {
    /// Starts it between two ports, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn between(switch: Netns, a: &str, b: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for a socket");
        let process = switch
            .command(&ikv_fabric().display().to_string())
            .arg("--socket")
            .arg(folder.path().join("wire.sock"))
            .args(["patch", a, b])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program can be started");
        let wire = Wire {
            switch,
            folder,
            process,
        };
        wait_until("the wire's socket", SOON, || {
            let answer = wire.command("status").output();
            answer.is_ok_and(|answer| answer.status.success())
        });
        wire
    }

    /// Starts it between two taps `pa` and `pb`, each moved into a namespace with an address of
    /// 10.9.0.0/24: .1 and .2.
    ///
    /// # Panics
    /// As [`Wire::between`].
    pub fn with_hosts() -> (Self, [Netns; 2]) {
        let hosts = [Netns::new("left"), Netns::new("right")];
        let wire = Wire::between(Netns::new("wire"), "tap:pa", "tap:pb");
        for (host, (tap, address)) in hosts.iter().zip([("pa", 1), ("pb", 2)]) {
            let name = host.name();
            wire.switch.ip(&format!("link set {tap} netns {name}"));
            host.ip(&format!("addr add 10.9.0.{address}/24 dev {tap}"));
            host.ip(&format!("link set {tap} up"));
        }
        (wire, hosts)
    }

    /// Where its devices are made.
    pub fn switch(&self) -> &Netns {
        &self.switch
    }

    /// A folder of its own.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// `ikv-fabric --socket …`, to be told what to do.
    pub fn program(&self) -> Command {
        let mut command = Command::new(ikv_fabric());
        let socket = self.folder.path().join("wire.sock");
        command.arg("--socket").arg(socket);
        command
    }

    /// `ikv-fabric --json --socket … VERB`.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = self.program();
        command.args(["--json", verb]);
        command
    }

    /// What `cables NAME…` reports.
    ///
    /// # Panics
    /// When it fails.
    pub fn cables(&self, names: &[&str]) -> Value {
        let output = run(self.command("cables").args(names));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Ends it and expects that nothing of it is left.
    ///
    /// # Panics
    /// When something is.
    pub fn end(mut self) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::INT).expect("it is ours");
        let status = ended(&mut self.process, SOON).expect("it ends when told to");
        assert!(status.success(), "{status}");
        let left = self.folder.path().read_dir().expect("our own folder");
        assert_eq!(left.count(), 0);
        let rules = self.switch.run("nft list ruleset");
        assert_eq!(rules, "", "its guard is gone");
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
