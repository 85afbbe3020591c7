//! A terminal for a program that needs one: [`Pty`].

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::patience::{SOON, ended, ensure, until};

/// A program on a terminal of its own; killed when dropped.
#[derive(Debug)]
pub struct Pty {
    child: Child,
    /// The person's side.
    keys: File,
    /// The program's side.
    terminal: File,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Pty {
    /// Starts a program on a terminal of 80x24.
    ///
    /// # Panics
    /// When there is no terminal, or no such program.
    pub fn start(mut command: Command) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a terminal");
        grantpt(&keys).expect("our own");
        unlockpt(&keys).expect("our own");
        let name = ptsname(&keys, Vec::new()).expect("it has a name");
        let name = name.into_string().expect("it is ASCII");
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.custom_flags(OFlags::NOCTTY.bits().cast_signed());
        let terminal = options.open(name).expect("it is unlocked");
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&terminal, size).expect("a terminal");
        let side = || Stdio::from(terminal.try_clone().expect("a descriptor"));
        let child = command
            .env("TERM", "xterm")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let keys = File::from(keys);
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let mut from = keys.try_clone().expect("a descriptor");
        let kept = written.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Reading ends with an error once nobody has the program's side open.
            while let Ok(count) = from.read(&mut bytes) {
                let mut kept = kept.lock().expect("no holder of this lock panics");
                kept.extend(&bytes[..count]);
            }
        });
        Pty {
            child,
            keys,
            terminal,
            written,
        }
    }

    /// Everything that was written to the terminal so far.
    pub fn written(&self) -> String {
        let written = self.written.lock().expect("no holder of this lock panics");
        String::from_utf8_lossy(&written).into_owned()
    }

    /// Waits until the terminal has got this text.
    ///
    /// # Panics
    /// With what it got instead, after `limit`.
    pub fn wait_written(&self, text: &str, limit: std::time::Duration) {
        until(&format!("{text:?} on the terminal"), limit, || {
            let written = self.written();
            ensure(written.contains(text), || format!("{written:?}"))
        });
    }

    /// Types text.
    ///
    /// # Panics
    /// When the terminal has gone.
    pub fn types(&mut self, text: &str) {
        use std::io::Write;
        self.keys.write_all(text.as_bytes()).expect("it is open");
    }

    /// Sends the program a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// The terminal's settings.
    ///
    /// # Panics
    /// When it has gone.
    pub fn settings(&self) -> Termios {
        tcgetattr(&self.terminal).expect("it is open")
    }

    /// Waits for the program's end.
    ///
    /// # Panics
    /// With what it wrote, if it does not end.
    pub fn wait_end(&mut self) -> ExitStatus {
        ended(&mut self.child, SOON).unwrap_or_else(|| panic!("still there: {:?}", self.written()))
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
