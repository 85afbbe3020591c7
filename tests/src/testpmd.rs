//! DPDK's testpmd with virtio-user ports, the front end of DPDK programs.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::patience::{SOON, ended, ensure, until};
use crate::skip;

const PROGRAM: &str = "dpdk-testpmd";

/// A running testpmd; killed when dropped.
#[derive(Debug)]
pub struct Testpmd {
    process: Child,
    log: PathBuf,
}

impl Testpmd {
    /// Whether it is installed; prints SKIP if not.
    ///
    /// # Panics
    /// Under CI, where nothing may be skipped.
    pub fn is_there() -> bool {
        let found = host::program::find(PROGRAM).is_some();
        if !found {
            skip("needs dpdk-testpmd (apt-get install dpdk-dev)");
        }
        found
    }

    /// Starts it with a virtio-user port for each socket. `options` are further options of DPDK's
    /// `net_virtio_user`, and `more` are arguments of testpmd. It forwards frames from each port to
    /// the next one; a single port sends its frames back.
    ///
    /// It uses small pages in a memfd, so that it needs neither huge pages nor root.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(folder: &Path, sockets: &[PathBuf], options: &str, more: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let log = folder.join(format!("testpmd{number}.log"));
        let out = File::create(&log).expect("the folder is ours");
        let mut command = Command::new(PROGRAM);
        command
            .args(["--lcores", "0@0,1@0", "--no-huge", "-m", "128", "--no-pci"])
            .args(["--single-file-segments", "--no-telemetry", "--file-prefix"])
            .arg(format!("ikvtest{}-{number}", std::process::id()));
        for (port, socket) in sockets.iter().enumerate() {
            let path = socket.display();
            command.arg("--vdev").arg(format!(
                "net_virtio_user{port},path={path},mac=02:00:00:00:0d:0{port}{options}"
            ));
        }
        let process = command
            .args(["--", "-i", "--no-mlockall", "--total-num-mbufs=8192"])
            .args(["--nb-cores=1", "--burst=32"])
            .args(more)
            .env("XDG_RUNTIME_DIR", folder)
            // It ends with its standard input.
            .stdin(Stdio::piped())
            .stdout(out.try_clone().expect("a descriptor"))
            .stderr(out)
            .spawn()
            .expect("it can be started");
        let testpmd = Testpmd { process, log };
        // It writes the prompt without a line end, and the rest of its output in blocks.
        until("testpmd to be ready", SOON, || {
            let said = testpmd.said();
            ensure(said.contains("testpmd>"), || said)
        });
        testpmd
    }

    /// Types a command line.
    ///
    /// # Panics
    /// When it has ended.
    pub fn type_line(&mut self, command: &str) {
        let input = self.process.stdin.as_mut().expect("it is a pipe");
        writeln!(input, "{command}").unwrap_or_else(|error| panic!("{error}: {}", self.said()));
    }

    /// Its output so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as a user does. Returns its output, which ends with its counters.
    ///
    /// # Panics
    /// When it does not end.
    pub fn quit(mut self) -> String {
        self.type_line("stop");
        self.type_line("quit");
        let status = ended(&mut self.process, SOON);
        assert!(
            status.is_some_and(|status| status.success()),
            "{}",
            self.said()
        );
        self.said()
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
