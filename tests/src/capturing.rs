//! A running `ikv-fabric capture` ([`Capturing`]), and a capture file as Wireshark's programs read
//! it ([`Shark`]).

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::patience::{SOON, ended, until};
use crate::{run, skip};

/// A running capture; killed when dropped.
#[derive(Debug)]
pub struct Capturing {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Capturing {
    /// Starts the command and waits until it captures every lane.
    ///
    /// # Panics
    /// With its standard error, if it does not start.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let said = Arc::new(Mutex::new(String::new()));
        if let Some(stderr) = child.stderr.take() {
            let said = said.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let mut said = said.lock().expect("no holder of this lock panics");
                    *said += &line;
                    said.push('\n');
                }
            });
        }
        let capturing = Capturing { child, said };
        until("the capture to start", SOON, || {
            let said = capturing.said();
            said.lines()
                .any(|line| line == "capturing")
                .then_some(())
                .ok_or(said)
        });
        capturing
    }

    /// Its standard error so far.
    pub fn said(&self) -> String {
        self.said
            .lock()
            .expect("no holder of this lock panics")
            .clone()
    }

    /// Takes its standard output.
    ///
    /// # Panics
    /// When called twice.
    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("not taken yet")
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait(&mut self) -> ExitStatus {
        ended(&mut self.child, SOON).unwrap_or_else(|| panic!("still there: {}", self.said()))
    }

    /// Waits until it ends with status 0, and returns its standard output.
    ///
    /// # Panics
    /// With its standard error, if it fails.
    pub fn finish(mut self) -> String {
        let mut text = String::new();
        self.stdout().read_to_string(&mut text).expect("text");
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.said());
        text
    }

    /// Sends SIGINT, as Ctrl-C does, and waits for its end.
    ///
    /// # Panics
    /// As [`Capturing::finish`].
    pub fn interrupt(self) -> String {
        self.signal(Signal::INT);
        self.finish()
    }
}

impl Drop for Capturing {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A capture file as Wireshark reads it.
#[derive(Debug)]
pub struct Shark(PathBuf);

impl Shark {
    /// Opens a file; capinfos must not complain about it.
    ///
    /// # Panics
    /// When it does.
    pub fn of(path: &Path) -> Self {
        let output = run(Command::new("capinfos").arg(path));
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(complaints, "", "{}", path.display());
        Shark(path.into())
    }

    /// The output of capinfos.
    pub fn info(&self) -> String {
        let output = run(Command::new("capinfos").arg(&self.0));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The number of packets.
    ///
    /// # Panics
    /// When capinfos does not report it.
    pub fn count(&self) -> u64 {
        let output = run(Command::new("capinfos").args(["-TmrcM"]).arg(&self.0));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let count = text
            .trim()
            .rsplit(',')
            .next()
            .and_then(|count| count.parse().ok());
        count.unwrap_or_else(|| panic!("{text}"))
    }

    /// The values of `fields` for each frame that matches the display filter. tshark validates
    /// checksums.
    ///
    /// # Panics
    /// When tshark complains.
    pub fn fields(&self, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
        let mut command = Command::new("tshark");
        for option in ["ip", "tcp", "udp"] {
            command.args(["-o", &format!("{option}.check_checksum:TRUE")]);
        }
        command
            .arg("-r")
            .arg(&self.0)
            .args(["-Y", filter, "-T", "fields"]);
        for field in fields {
            command.args(["-e", field]);
        }
        let output = run(&mut command);
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        // tshark writes this line whenever it runs as root.
        let complaints: Vec<_> = complaints
            .lines()
            .filter(|line| !line.starts_with("Running as user"))
            .collect();
        assert!(complaints.is_empty(), "{complaints:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = text
            .lines()
            .map(|line| line.split('\t').map(str::to_owned).collect());
        lines.collect()
    }

    /// tshark's full description of every frame.
    pub fn verbose(&self) -> String {
        let output = run(Command::new("tshark").arg("-V").arg("-r").arg(&self.0));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Whether Wireshark finds a wrong checksum.
    pub fn has_wrong_checksums(&self) -> bool {
        let wrong =
            "ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0";
        !self.fields(wrong, &["frame.number"]).is_empty()
    }
}

/// The numbers of captured and lost frames in a capture's `--json` report.
///
/// # Panics
/// When the text is not such a report.
pub fn frames_and_lost(report: &str) -> (u64, u64) {
    let report: Value = serde_json::from_str(report).expect("JSON");
    let number = |key: &str| {
        report[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key}: {report}"))
    };
    (number("frames"), number("lost"))
}

/// Whether Wireshark's programs are installed; prints SKIP if not.
///
/// # Panics
/// Under CI, where nothing may be skipped.
pub fn have_shark() -> bool {
    let there = |program: &str| {
        let mut command = Command::new(program);
        command
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let all = ["tshark", "capinfos", "dumpcap"].into_iter().all(there);
    if !all {
        skip("needs Wireshark's programs (apt-get install tshark)");
    }
    all
}

/// The number of a fabric's threads that drain captures.
///
/// # Panics
/// When it has ended.
pub fn drainers(pid: u32) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .expect("it runs")
        .flatten();
    let names =
        threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
    names.filter(|name| name.trim() == "capture").count()
}
