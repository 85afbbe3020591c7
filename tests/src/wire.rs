//! A running `ikv-fabric patch` ([`Wire`]), and two machines connected by one ([`Pair`]).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::capturing::Capturing;
use crate::patience::{SOON, ended, wait_until};
use crate::{Netns, ikv_fabric, run};

/// A running patch in a namespace made for it.
pub struct Wire {
    /// The namespace where it runs.
    pub switch: Netns,
    folder: tempfile::TempDir,
    process: Child,
}

/// Two machines at the ends of a wire, each a namespace with a tap: `pa` with 10.9.0.1 and `pb`
/// with 10.9.0.2. They have no IPv6 and know each other's MAC addresses, so that only the test's
/// frames pass.
pub struct Pair {
    /// The wire between them.
    pub wire: Wire,
    /// The machine with `pa`.
    pub left: Netns,
    /// The machine with `pb`.
    pub right: Netns,
}

impl Wire {
    /// Starts a wire between two ports, given as typed.
    ///
    /// # Panics
    /// When it does not start.
    pub fn between(switch: Netns, a: &str, b: &str) -> Self {
        Wire::with(switch, &[a, b])
    }

    /// Starts `patch` with these ports and options.
    ///
    /// # Panics
    /// When it does not start.
    pub fn with(switch: Netns, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let process = switch
            .command(ikv_fabric().to_str().expect("its path is ASCII"))
            .arg("--socket")
            .arg(folder.path().join("wire.sock"))
            .arg("patch")
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ip can be started");
        let wire = Wire {
            switch,
            folder,
            process,
        };
        wait_until("the wire's socket", SOON, || {
            let status = wire.command("status").output();
            status.is_ok_and(|output| output.status.success())
        });
        wire
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// `ikv-fabric` with this wire's socket.
    pub fn program(&self) -> Command {
        let mut command = Command::new(ikv_fabric());
        let socket = self.folder.path().join("wire.sock");
        command.arg("--socket").arg(socket);
        command
    }

    /// `ikv-fabric --json VERB` with this wire's socket.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = self.program();
        command.args(["--json", verb]);
        command
    }

    /// Starts `ikv-fabric --json capture wire` with these options, once every lane is tapped.
    ///
    /// # Panics
    /// When the capture does not start.
    pub fn capture(&self, options: &[&str]) -> Capturing {
        Capturing::start(self.command("capture").arg("wire").args(options))
    }

    /// As [`Wire::capture`], into a file.
    ///
    /// # Panics
    /// When the capture does not start.
    pub fn capture_to(&self, file: &Path, options: &[&str]) -> Capturing {
        let mut command = self.command("capture");
        command.arg("wire").args(options).arg("-w").arg(file);
        Capturing::start(&mut command)
    }

    /// Runs a command with `--json` that must succeed.
    ///
    /// # Panics
    /// When it fails or prints no JSON.
    pub fn json(&self, verb: &str, arguments: &[&str]) -> Value {
        let output = run(self.command(verb).args(arguments));
        serde_json::from_slice(&output.stdout).expect("--json prints JSON")
    }

    /// `cables --json`.
    ///
    /// # Panics
    /// When it fails.
    pub fn cables(&self, names: &[&str]) -> Value {
        self.json("cables", names)
    }

    /// The lane in `cables --json` that begins at the port `from`.
    ///
    /// # Panics
    /// When no lane begins there.
    pub fn lane(&self, from: &str) -> Value {
        let cables = self.cables(&[]);
        let lanes = cables[0]["lanes"].as_array().expect("two lanes");
        let found = lanes.iter().find(|lane| lane["from"] == from);
        found.expect("one begins there").clone()
    }

    /// Ends it as a user does, and asserts that it leaves nothing behind.
    ///
    /// # Panics
    /// When it does.
    pub fn end(mut self) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::INT).expect("it is our own process");
        let status = ended(&mut self.process, SOON).expect("it ends on SIGINT");
        assert!(status.success(), "{status}");
        let left = self.folder.path().read_dir().expect("our own folder");
        assert_eq!(left.count(), 0);
        let rules = self.switch.run("nft list ruleset");
        assert_eq!(rules, "", "its guard is left");
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The test has failed: the processes in its namespace must end before that is deleted.
        if let Ok(None) = self.process.try_wait() {
            let _ = kill_process(Pid::from_child(&self.process), Signal::INT);
            let _ = ended(&mut self.process, SOON);
        }
    }
}

impl Pair {
    /// Makes two machines that reach each other.
    ///
    /// # Panics
    /// When they do not reach each other.
    pub fn new(label: &str) -> Self {
        Pair::with(label, &[])
    }

    /// As [`Pair::new`] with options of `patch`.
    ///
    /// # Panics
    /// When they do not reach each other.
    pub fn with(label: &str, options: &[&str]) -> Self {
        let named = |end: &str| Netns::new(&format!("{label}-{end}"));
        let (left, right) = (named("left"), named("right"));
        let arguments = [&["tap:pa", "tap:pb"], options].concat();
        let wire = Wire::with(named("wire"), &arguments);
        for (netns, tap, address) in [(&left, "pa", "10.9.0.1/24"), (&right, "pb", "10.9.0.2/24")] {
            netns.run("sysctl -q -w net.ipv6.conf.default.disable_ipv6=1");
            wire.switch
                .ip(&format!("link set {tap} netns {}", netns.name()));
            netns.run(&format!("sysctl -q -w net.ipv6.conf.{tap}.disable_ipv6=1"));
            netns.ip(&format!("addr add {address} dev {tap}"));
            netns.ip(&format!("link set {tap} up"));
        }
        let pair = Pair { wire, left, right };
        assert!(pair.ping(&["-c", "3", "-i", "0.1"]).is_some());
        // Permanent neighbour entries: no ARP request is sent while a test counts frames.
        for (netns, tap, address) in [
            (&pair.left, "pa", "10.9.0.2"),
            (&pair.right, "pb", "10.9.0.1"),
        ] {
            let known = netns.ip("neigh show");
            let mut behind = known
                .split_whitespace()
                .skip_while(|word| *word != "lladdr");
            let mac = behind.nth(1).expect("they have met");
            netns.ip(&format!(
                "neigh replace {address} lladdr {mac} dev {tap} nud permanent"
            ));
        }
        pair
    }

    /// Pings from left to right. Returns the shortest round trip in ms; `None` without an answer.
    pub fn ping(&self, options: &[&str]) -> Option<f64> {
        let mut ping = self.left.command("ping");
        let output = ping
            .args(["-n", "-q"])
            .args(options)
            .arg("10.9.0.2")
            .output();
        let output = output.expect("ping can be started");
        let text = String::from_utf8_lossy(&output.stdout);
        let (_, figures) = text.split_once("min/avg/max/mdev = ")?;
        figures.split('/').next()?.parse().ok()
    }

    /// Pings `count` times from left to right; each request is answered.
    ///
    /// # Panics
    /// When an answer is missing.
    pub fn ping_answered(&self, count: u32) {
        let count = count.to_string();
        let mut ping = self.left.command("ping");
        run(ping.args(["-c", &count, "-i", "0.05", "-w", "10", "10.9.0.2"]));
    }

    /// Sends `bytes` bytes from left to right by TCP, in segments that the sender leaves to be
    /// cut (TSO).
    ///
    /// # Panics
    /// When they do not arrive.
    pub fn send_tcp(&self, bytes: usize) {
        let address = "10.9.0.2:5000";
        let listener = self
            .right
            .enter(|| TcpListener::bind(address).expect("the port is free"));
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                let (mut stream, _) = listener.accept().expect("the sender connects");
                let mut all = Vec::new();
                stream.read_to_end(&mut all).expect("a whole stream")
            });
            let connect = || TcpStream::connect(address).expect("the receiver listens");
            let mut stream = self.left.enter(connect);
            let sent = stream.write_all(&vec![7; bytes]);
            sent.expect("the receiver reads");
            drop(stream);
            assert_eq!(receiver.join().expect("the receiver does not panic"), bytes);
        });
    }

    /// Ends the wire, and asserts that it leaves nothing behind.
    ///
    /// # Panics
    /// As [`Wire::end`].
    pub fn end(self) {
        self.wire.end();
    }
}
