//! A root of a release of Debian as a fresh machine has it, entered as a container is: by mount namespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::Netns;
use crate::patience::output_within;

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

/// A root directory with a release of Debian; removed when dropped.
#[derive(Debug)]
pub struct DebianRoot(TempDir);

impl DebianRoot {
    /// Unpacks a bare root of a release, such as `trixie`: what is essential, apt, and this machine's way to
    /// the archive. Needs root.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(release: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let archive = archive(release);
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(folder.path()).arg("-xf").arg(archive);
        crate::run(&mut tar);
        let root = Self(folder);
        for file in ["etc/resolv.conf", "etc/hosts"] {
            let _ = fs::copy(Path::new("/").join(file), root.0.path().join(file));
        }
        root
    }

    /// A command in it, in a network namespace or in this machine's own network.
    pub fn command(&self, netns: Option<&Netns>, words: &[&str]) -> Command {
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
    ///
    /// # Panics
    /// With its output, if it fails.
    pub fn run(&self, netns: Option<&Netns>, words: &[&str], limit: Duration) -> String {
        let output = output_within(&mut self.command(netns, words), limit);
        succeeded(words, &output)
    }

    /// Copies a program into it.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn bring(&self, program: &Path) -> PathBuf {
        let name = program.file_name().expect("a file");
        fs::copy(program, self.0.path().join("usr/local/bin").join(name))
            .expect("a copy in the root");
        Path::new("/usr/local/bin").join(name)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// The folder of the workspace, which has the same path in each root.
///
/// # Panics
/// Never: the tests' package is in it.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests are a folder of it").into()
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
fn archive(release: &str) -> PathBuf {
    let archive = Path::new(CACHE).join(format!("{release}-{INCLUDED}.tar"));
    let made = archive.metadata().and_then(|meta| meta.modified());
    let age = made.map(|made| SystemTime::now().duration_since(made).unwrap_or_default());
    if age.is_ok_and(|age| age < OLD) {
        return archive;
    }
    fs::create_dir_all(CACHE).expect("root may make it");
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let (sources, options) = (folder.path().join("debian.sources"), options());
    fs::write(&sources, sources_of(release)).expect("our own folder");
    let aptconf = folder.path().join("90this-machine");
    fs::write(&aptconf, &options).expect("our own folder");
    let made = Path::new(CACHE).join(format!("{release}.{}.tar", std::process::id()));
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--variant=apt", "--quiet"])
        .arg(format!("--include={INCLUDED}"))
        .arg(format!("--aptopt={options}"))
        .arg(format!(
            "--customize-hook=copy-in {} /etc/apt/apt.conf.d",
            aptconf.display()
        ))
        .args([release, &made.display().to_string()])
        .arg(&sources);
    let output = output_within(&mut mmdebstrap, MAKE);
    succeeded(&["mmdebstrap"], &output);
    fs::rename(&made, &archive).expect("both are in one folder");
    archive
}

/// This machine's own release of Debian, such as `bookworm`.
///
/// # Panics
/// When it has no name.
pub fn own_release() -> String {
    let names = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let mut lines = names.lines();
    let name = lines.find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.expect("a release of Debian").to_owned()
}

/// This machine's own sources of Debian, for another release.
fn sources_of(release: &str) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let sources = read("/etc/apt/sources.list.d/debian.sources") + &read("/etc/apt/sources.list");
    sources.replace(&own_release(), release)
}

/// How this machine reaches the archive: proxies, and what it does not check.
fn options() -> String {
    let dump = crate::run(Command::new("apt-config").arg("dump"));
    let dump = String::from_utf8_lossy(&dump.stdout);
    let kept = ["http", "https", "Retries", "Check-"].map(|name| format!("Acquire::{name}"));
    let is_kept = |line: &&str| kept.iter().any(|name| line.starts_with(name));
    dump.split_inclusive('\n').filter(is_kept).collect()
}
