//! A root of Debian 13 as a fresh machine has it, entered as a container is: by mount namespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use ikv_tests::patience::output_within;
use ikv_tests::{Netns, ikv_fabric};
use tempfile::TempDir;

const RELEASE: &str = "trixie";

/// What `make` installs before it builds the program, which does not start without it, and what every machine
/// has that was not made for a container.
const INCLUDED: &str = "libpcap0.8,mount";

/// The roots that tests unpack are kept beside the switch images.
const CACHE: &str = "/var/cache/ikv-fabric/test-roots";

/// A root that is older is made anew: the archive has moved on.
const OLD: Duration = Duration::from_secs(30 * 24 * 3600);

/// Time for mmdebstrap to make a root.
const MAKE: Duration = Duration::from_secs(600);

/// Makes the folder $1 the root directory, with the repository at its own path, and runs the rest of
/// the arguments there.
const ENTER: &str = r#"
set -e
root=$1; repository=$2; shift 2
mount --rbind "$root" "$root"
mkdir -p "$root$repository" "$root/mnt"
mount --bind -o ro "$repository" "$root$repository"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
cd "$root"
pivot_root . mnt
umount -l /mnt
cd "${IKV_TESTS_FOLDER:-/root}"
exec "$@"
"#;

pub(crate) struct Root(TempDir);

impl Root {
    /// Unpacks a bare root: what is essential, apt, and this machine's way to the archive.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let archive = archive();
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(folder.path()).arg("-xf").arg(archive);
        ikv_tests::run(&mut tar);
        let root = Self(folder);
        for file in ["etc/resolv.conf", "etc/hosts"] {
            let _ = fs::copy(Path::new("/").join(file), root.0.path().join(file));
        }
        fs::copy(ikv_fabric(), root.0.path().join("usr/local/bin/ikv-fabric")).unwrap();
        root
    }

    /// A command in it, in a network namespace or in this machine's own network.
    pub(crate) fn command(&self, netns: Option<&Netns>, words: &[&str]) -> Command {
        let mut command = match netns {
            Some(netns) => netns.command("unshare"),
            None => Command::new("unshare"),
        };
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", ENTER])
            .arg("sh")
            .arg(self.0.path())
            .arg(repository())
            .args(words)
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
            .env("TERM", "dumb")
            .env_remove("IKV_FABRIC")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed.
    pub(crate) fn run(&self, netns: Option<&Netns>, words: &[&str], limit: Duration) -> String {
        let output = output_within(&mut self.command(netns, words), limit);
        succeeded(words, &output)
    }

    /// Copies a program into it.
    pub(crate) fn bring(&self, program: &Path) -> PathBuf {
        let name = program.file_name().unwrap();
        fs::copy(program, self.0.path().join("usr/local/bin").join(name)).unwrap();
        Path::new("/usr/local/bin").join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

pub(crate) fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap().into()
}

fn succeeded(words: &[&str], output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{words:?}: {}\n{stdout}\n{stderr}",
        output.status
    );
    stdout
}

/// The packed root, made if there is none of late.
fn archive() -> PathBuf {
    let archive = Path::new(CACHE).join(format!("{RELEASE}-{INCLUDED}.tar"));
    let made = archive.metadata().and_then(|meta| meta.modified());
    let age = made.map(|made| SystemTime::now().duration_since(made).unwrap_or_default());
    if age.is_ok_and(|age| age < OLD) {
        return archive;
    }
    fs::create_dir_all(CACHE).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (sources, options) = (folder.path().join("debian.sources"), options());
    fs::write(&sources, sources_of_release()).unwrap();
    let aptconf = folder.path().join("90this-machine");
    fs::write(&aptconf, &options).unwrap();
    let made = Path::new(CACHE).join(format!("{RELEASE}.{}.tar", std::process::id()));
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--variant=apt", "--quiet"])
        .arg(format!("--include={INCLUDED}"))
        .arg(format!("--aptopt={options}"))
        .arg(format!(
            "--customize-hook=copy-in {} /etc/apt/apt.conf.d",
            aptconf.display()
        ))
        .args([RELEASE, &made.display().to_string()])
        .arg(&sources);
    let output = output_within(&mut mmdebstrap, MAKE);
    succeeded(&["mmdebstrap"], &output);
    fs::rename(&made, &archive).unwrap();
    archive
}

/// This machine's own sources of Debian, for the other release.
fn sources_of_release() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let own = read("/etc/os-release");
    let own = own
        .lines()
        .find_map(|it| it.strip_prefix("VERSION_CODENAME="));
    let sources = read("/etc/apt/sources.list.d/debian.sources") + &read("/etc/apt/sources.list");
    sources.replace(own.unwrap(), RELEASE)
}

/// How this machine reaches the archive: proxies, and what it does not check.
fn options() -> String {
    let dump = ikv_tests::run(Command::new("apt-config").arg("dump"));
    let dump = String::from_utf8_lossy(&dump.stdout);
    let kept = ["http", "https", "Retries", "Check-"].map(|name| format!("Acquire::{name}"));
    let is_kept = |line: &&str| kept.iter().any(|name| line.starts_with(name));
    dump.split_inclusive('\n').filter(is_kept).collect()
}
