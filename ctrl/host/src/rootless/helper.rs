//! Programs that must act on our namespaces from outside of them: [`Helper`].

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use rustix::pipe::{PipeFlags, pipe_with};

/// Starts the program once a line comes, and kills it when standard input ends. A parent-death signal
/// would not do: a program with an AppArmor profile, as pasta has on Debian, loses it when it starts.
/// The end of a pipe comes however our process ends.
const WAITING: &str = "exec 3<&0
read -r _ <&3 || exit 1
\"$@\" </dev/null 3<&- &
program=$!
{ read -r _ <&3; kill -s KILL $program; } >/dev/null 2>&1 &
wait $program";

/// The most of a program's last words that is kept.
const MOST_WORDS: u64 = 4096;

/// A program that was prepared before this process moved into its namespaces and is started, still
/// outside of them, after that. It ends with this process or when it is dropped.
#[derive(Debug)]
pub(super) struct Helper {
    shell: Child,
    start: Option<ChildStdin>,
    words: File,
}

impl Helper {
    /// Prepares `program`; it does not start yet.
    ///
    /// # Errors
    /// When no process can be started.
    pub(super) fn prepare(program: &[&str]) -> io::Result<Self> {
        // A program whose words nobody reads must not wait for that: the pipe drops what it cannot
        // hold.
        let (words, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let mut shell = Command::new("sh")
            .args(["-c", WAITING, "sh"])
            .args(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::from(theirs))
            // Ctrl-C reaches this process alone, which ends its children in order.
            .process_group(0)
            .spawn()?;
        let start = shell.stdin.take();
        Ok(Self {
            shell,
            start,
            words: words.into(),
        })
    }

    /// Starts the program.
    ///
    /// # Errors
    /// When the process that waits for this is gone.
    pub(super) fn start(&mut self) -> io::Result<()> {
        let start = self.start.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        start.write_all(b"\n")
    }

    /// Waits for the program to end by itself.
    ///
    /// # Errors
    /// Its last words, unless it ends with status 0.
    pub(super) fn finish(mut self) -> Result<(), String> {
        let status = self.shell.wait().map_err(|error| error.to_string())?;
        if status.success() {
            Ok(())
        } else {
            Err(self.last_words(status))
        }
    }

    /// Why the program has ended; `None` while it runs.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.shell.try_wait().ok()??;
        Some(self.last_words(status))
    }

    fn last_words(&mut self, status: ExitStatus) -> String {
        let mut text = Vec::new();
        // Ends with EAGAIN if a process still holds the pipe.
        let _ = (&mut self.words).take(MOST_WORDS).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        let mut words = text.lines().map(str::trim);
        // pasta complains of each line that a machine without a system logger loses.
        let last = words.rfind(|line| !line.is_empty() && !line.ends_with("to syslog"));
        last.map_or_else(|| status.to_string(), str::to_owned)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // The shell reads the end of the pipe and kills the program.
        self.start.take();
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_starts_when_it_is_told_and_its_words_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("made");
        let touch = ["touch", file.to_str().unwrap()];
        drop(Helper::prepare(&touch).unwrap());
        assert!(!file.exists(), "it was never told to start");
        let mut helper = Helper::prepare(&touch).unwrap();
        helper.start().unwrap();
        helper.finish().unwrap();
        assert!(file.exists());
        let mut fails =
            Helper::prepare(&["sh", "-c", "echo first >&2; echo why >&2; exit 3"]).unwrap();
        fails.start().unwrap();
        assert_eq!(fails.finish(), Err("why".to_owned()));
    }

    #[test]
    fn a_program_that_runs_for_ever_ends_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let script = format!("exec 4>'{}'; exec sleep 1000", fifo.display());
        let mut helper = Helper::prepare(&["sh", "-c", &script]).unwrap();
        helper.start().unwrap();
        // Opens once the program has opened the other end, and ends when the program has.
        let mut held = File::open(&fifo).unwrap();
        assert_eq!(helper.ended(), None);
        drop(helper);
        let mut nothing = Vec::new();
        held.read_to_end(&mut nothing).unwrap();
        assert!(nothing.is_empty());
    }
}
