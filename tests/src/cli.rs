//! Commands as a user of a running fabric types them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::pace::slowness;
use crate::{Answer, Netns};

/// Seconds of the reference machine after which timeout(1) ends a command, so that one that hangs
/// fails its test.
const LIMIT: f64 = 120.0;

/// Runs commands for one fabric in its host's namespace.
#[derive(Debug, Clone)]
pub struct Cli {
    netns: String,
    socket: PathBuf,
}

impl Cli {
    /// For the fabric that listens at `socket` in the namespace `host`.
    pub fn new(host: &Netns, socket: &Path) -> Self {
        Cli {
            netns: host.name().into(),
            socket: socket.into(),
        }
    }

    /// A command that is ready to start.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let limit = (LIMIT * slowness()).to_string();
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.netns, "timeout", "-k", "5", &limit])
            .arg(crate::ikv_fabric())
            .arg("--socket")
            .arg(&self.socket)
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command, which may fail. Its exit status is 124 if it took too long.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Answer {
        let output = self.command(arguments).output();
        output.expect("ip can be started").into()
    }

    /// Runs a command that must succeed, and returns its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(0), "ikv-fabric {arguments:?}: {said:#?}");
        said.stdout
    }

    /// Runs a command with `--json` that must succeed.
    ///
    /// # Panics
    /// When it fails or prints no JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[&["--json"], arguments].concat());
        parse(&text, arguments)
    }

    /// Runs a command on a switch by `exec`; it must succeed. Returns its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn exec(&self, node: &str, argv: &[&str]) -> String {
        self.ok(&[&["exec", node, "--"], argv].concat())
    }

    /// As [`Cli::exec`], with a JSON answer.
    ///
    /// # Panics
    /// When it fails or prints no JSON.
    pub fn exec_json(&self, node: &str, argv: &[&str]) -> Value {
        parse(&self.exec(node, argv), argv)
    }

    /// `vtysh -c COMMAND` on a switch, `json` appended.
    ///
    /// # Panics
    /// When it fails or prints no JSON.
    pub fn vtysh(&self, node: &str, command: &str) -> Value {
        self.exec_json(node, &["vtysh", "-c", &format!("{command} json")])
    }

    /// A switch's entry in `status --json`.
    ///
    /// # Panics
    /// When no switch has that name, or no fabric answers.
    pub fn node(&self, name: &str) -> Value {
        // Status 1 means that the fabric is not ready, which is not a failure here.
        let said = self.run(&["--json", "status"]);
        let status = parse(&said.stdout, &["status"]);
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let mut found = nodes.into_iter().filter(|node| node["name"] == name);
        found.next().unwrap_or_else(|| panic!("{name}: {status}"))
    }

    /// Waits until the fabric is ready.
    ///
    /// # Panics
    /// If it is not within `seconds` of the reference machine.
    pub fn wait_ready(&self, seconds: u32) {
        let seconds = (f64::from(seconds) * slowness()).ceil();
        self.ok(&["status", "--wait", &seconds.to_string()]);
    }
}

fn parse(text: &str, what: &[&str]) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{what:?}: {error} in {text:?}"))
}
