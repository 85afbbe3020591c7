//! Network namespaces made for one test each: [`Netns`] has a name, by which other programs enter
//! it; that of [`in_namespace`] lasts as long as the test's thread.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::{lacks_for_host, skip};

/// A named network namespace; deleted when dropped, with all devices in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes an empty namespace with its loopback up. Needs root. `label` becomes part of its name.
    pub fn new(label: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let netns = Netns {
            name: format!("ikvtest-{label}-{}-{number}", std::process::id()),
        };
        run(Command::new("ip").args(["netns", "add", &netns.name]));
        netns.ip("link set lo up");
        netns
    }

    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that opens it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that runs inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs `ip ARGUMENTS` inside, which must succeed. Returns its standard output.
    pub fn ip(&self, arguments: &str) -> String {
        let mut command = Command::new("ip");
        let output = run(command
            .args(["-n", &self.name])
            .args(arguments.split_whitespace()));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a program inside, which must succeed. Returns its standard output.
    pub fn run(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("a program"));
        String::from_utf8_lossy(&run(command.args(words)).stdout).into_owned()
    }

    /// The ids of the processes inside.
    pub fn pids(&self) -> Vec<u32> {
        let mut command = Command::new("ip");
        let output = run(command.args(["netns", "pids", &self.name]));
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Calls `work` on a thread of its own inside the namespace.
    ///
    /// # Panics
    /// As `work` does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = self.path();
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let netns = std::fs::File::open(path).expect("the namespace exists");
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may enter it");
                work()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A failure does not matter to the next test, whose namespace has another name.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

/// Runs `test` on a thread of its own, in a new namespace that vanishes with the thread. Says
/// SKIP where root, `ip` or `nft` is missing.
///
/// # Panics
/// As `test` does, and under CI where something is missing.
pub fn in_namespace(test: impl FnOnce() + Send) {
    if let Some(lacking) = lacks_for_host() {
        return skip(&format!("needs {lacking}"));
    }
    std::thread::scope(|scope| {
        // Its panic is reported under the test's name.
        let name = std::thread::current().name().unwrap_or("test").to_owned();
        let inside = std::thread::Builder::new()
            .name(name)
            .spawn_scoped(scope, || {
                leave_namespace();
                test();
            });
        if let Err(panic) = inside.expect("one more thread").join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Moves this thread, and the programs that it starts from now on, into a new network namespace
/// with its loopback up.
///
/// # Panics
/// Without root.
pub fn leave_namespace() {
    // The function that replaces it is unsafe because of CLONE_FILES, which is not asked for here.
    #[allow(deprecated)]
    rustix::thread::unshare(UnshareFlags::NEWNET).expect("root may make a network namespace");
    shell("ip link set lo up");
}

/// What a shell command that must succeed prints, in this thread's namespace.
///
/// # Panics
/// As [`run`].
pub fn shell(command: &str) -> String {
    let output = run(Command::new("sh").args(["-c", command]));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command that must succeed.
///
/// # Panics
/// With its output, if it fails.
pub fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
