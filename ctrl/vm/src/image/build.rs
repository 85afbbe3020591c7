//! One build: in a folder beside the final one, under a lock, logged, then renamed.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use super::progress::{Progress, Reader};
use super::room::{self, Room};
use super::{BUILD_PROGRAMS, ImageError, ImagePaths, Wanted, sources};
use host::program;

/// Whether an image that is there is good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Missing,
    Always,
}

/// Between two looks at the lock that another build holds.
const LOCK_POLL: Duration = Duration::from_millis(200);
/// Lines of the log that an error shows.
const TAIL: usize = 12;
/// Beginning of the names of build folders; what is left of one goes away with the next build.
const BUILDING: &str = "building-";

pub(super) async fn build(
    wanted: &Wanted,
    when: When,
    mut progress: impl FnMut(Progress),
) -> Result<ImagePaths, ImageError> {
    installed(|name| program::find(name).is_some())?;
    let cache = &wanted.cache;
    fs::create_dir_all(cache).map_err(ImageError::file("cannot create", cache))?;
    let _lock = lock(&cache.join("lock"), &mut progress).await?;
    if let (When::Missing, Some(image)) = (when, wanted.built()) {
        return Ok(image);
    }
    remove(cache, |name| name.starts_with(BUILDING));
    Room::of(cache).suffices(cache)?;

    let folder = BuildFolder::create(cache)?;
    let written = wanted.recipe.write(&folder.0.join("recipe"));
    let made = match written {
        Ok(()) => run(wanted, &folder, &cache.join("build.log"), &mut progress).await,
        Err(error) => Err(error),
    };
    // Before the folder goes away, and with it what fills the disk.
    made.map_err(|error| Room::of(cache).blame(cache, error))?;

    let built = ImagePaths::in_folder(&folder.0.join("out"));
    for path in built.all() {
        // QEMU, which opens kernel and initrd by name, runs as nobody in particular.
        fs::set_permissions(path, fs::Permissions::from_mode(0o644))
            .map_err(ImageError::file("the build left no", path))?;
    }
    let hash = wanted.hash();
    let target = wanted.folder();
    // An image that is being replaced may be in use: what is open stays readable. Its saved states
    // go with it.
    remove(cache, |name| name == hash);
    fs::rename(folder.0.join("out"), &target)
        .map_err(ImageError::file("cannot move the image to", &target))?;
    let superseded = superseded(others(cache, &hash));
    // Unless another fabric's switches run on it.
    remove(cache, |name| {
        superseded.iter().any(|old| old == name) && !in_use(&cache.join(name))
    });
    Ok(ImagePaths::in_folder(&target))
}

/// The images of other recipes that are kept, in releases and working copies of this program that
/// are used by turns.
const OTHERS: usize = 2;

/// The images in the cache beside `hash`, and when each was last used.
fn others(cache: &Path, hash: &str) -> Vec<(SystemTime, String)> {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.path(), entry.file_name().into_string().ok()?)))
        .filter(|(_, name)| is_hash(name) && name != hash)
        .map(|(path, name)| {
            let used = path.metadata().and_then(|meta| meta.modified());
            (used.unwrap_or(SystemTime::UNIX_EPOCH), name)
        })
        .collect()
}

/// Those that were not among the [`OTHERS`] used last.
fn superseded(mut images: Vec<(SystemTime, String)>) -> Vec<String> {
    images.sort_by(|a, b| b.cmp(a));
    images.drain(..OTHERS.min(images.len()));
    images.into_iter().map(|(_, name)| name).collect()
}

/// An image's time of use is its folder's.
pub(super) fn used_now(folder: &Path) {
    // One that belongs to somebody else is at worst taken for older than it is.
    let _ = File::open(folder).and_then(|folder| folder.set_modified(SystemTime::now()));
}

/// All programs that are missing, at once.
fn installed(found: impl Fn(&str) -> bool) -> Result<(), ImageError> {
    let missing: Vec<_> = BUILD_PROGRAMS
        .iter()
        .filter(|program| !found(program.name))
        .map(|program| program.package)
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(ImageError::Missing { missing })
    }
}

async fn lock(path: &Path, progress: &mut impl FnMut(Progress)) -> Result<File, ImageError> {
    let file = File::create(path).map_err(ImageError::file("cannot create", path))?;
    let mut said = false;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) => {
                if !said {
                    progress(Progress {
                        stage: "waiting for another build",
                        fraction: 0.0,
                    });
                    said = true;
                }
                tokio::time::sleep(LOCK_POLL).await;
            }
            Err(error) => return Err(ImageError::file("cannot lock", path)(error.into())),
        }
    }
}

/// Removes those folders of the cache.
fn remove(cache: &Path, which: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(&which) {
            remove_folder(&entry.path());
        }
    }
}

/// What cannot be removed only takes up space, and the rename says so if it is in the way.
/// Nothing is touched where something is mounted: it might be the host's `/dev`, which is in
/// the way of whoever builds a root file system.
fn remove_folder(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo");
    if mounts.is_ok_and(|mounts| !mounted_below(&mounts, folder)) {
        _ = fs::remove_dir_all(folder);
    }
}

/// proc(5): the fifth field is where it is mounted.
fn mounted_below(mountinfo: &str, folder: &Path) -> bool {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .into_iter()
        .any(|at| Path::new(at).starts_with(folder))
}

fn is_hash(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a process that this one may look at has a file of the folder open, as QEMU has its
/// disks as long as it runs.
fn in_use(folder: &Path) -> bool {
    let open = |process: fs::DirEntry| fs::read_dir(process.path().join("fd"));
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|process| open(process).ok())
        .flatten()
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|target| target.starts_with(folder))
}

/// Goes away with all that is in it.
struct BuildFolder(PathBuf);

impl BuildFolder {
    fn create(cache: &Path) -> Result<Self, ImageError> {
        let path = cache.join(format!("{BUILDING}{}", std::process::id()));
        let folder = Self(path);
        for part in ["recipe", "out", "tmp"] {
            let part = folder.0.join(part);
            fs::create_dir_all(&part).map_err(ImageError::file("cannot create", &part))?;
        }
        // apt's downloads are done by another user.
        for path in [&folder.0, &folder.0.join("out"), &folder.0.join("tmp")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))
                .map_err(ImageError::file("cannot open up", path))?;
        }
        Ok(folder)
    }
}

impl Drop for BuildFolder {
    fn drop(&mut self) {
        // What stays is removed by the next build.
        remove_folder(&self.0);
    }
}

/// The recipe's script, with all that it starts and mounts in namespaces of its own, which end
/// with it: mmdebstrap mounts `/dev` and `/proc`, and when killed leaves them and lives on for
/// half a minute. Killed when dropped, and when this process dies.
///
/// Without root, mmdebstrap makes its own namespaces.
fn script(path: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    if rustix::process::geteuid().is_root() {
        command.args(["unshare", "--mount", "--pid", "--mount-proc"]);
        command.args(["--fork", "--kill-child=KILL", "--"]);
    }
    command
        // One stream keeps what is said in order.
        .args(["sh", "-c", r#"exec sh "$0" 2>&1"#])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        // The terminal's signals are this process's to handle.
        .process_group(0);
    command
}

async fn run(
    wanted: &Wanted,
    folder: &BuildFolder,
    log: &Path,
    progress: &mut impl FnMut(Progress),
) -> Result<(), ImageError> {
    let write = |name: &str, text: &str| {
        let path = folder.0.join(name);
        fs::write(&path, text).map_err(ImageError::file("cannot write", &path))?;
        Ok(path)
    };
    let sources = sources::for_build(&wanted.suite, wanted.mirror.as_ref())?;
    let sources = write("debian.sources", &sources)?;
    let options = write("apt.conf", &apt_options().await?)?;
    let mut log_file = File::create(log).map_err(ImageError::file("cannot create", log))?;
    let mut command = script(&folder.0.join("recipe/build.sh"));
    command
        .env("OUT", folder.0.join("out"))
        .env("SUITE", &wanted.suite)
        .env("SOURCES", sources)
        .env("APTCONF", options)
        .env("RECIPE", wanted.hash())
        .env("LC_ALL", "C.UTF-8");
    if rustix::process::geteuid().is_root() {
        // /tmp may be small. Others' mmdebstrap needs a place that its subordinate uids reach.
        command.env("TMPDIR", folder.0.join("tmp"));
    }
    let mut child = command.spawn().map_err(|source| ImageError::Start {
        program: "setpriv",
        source,
    })?;
    let output = child.stdout.take().expect("stdout was piped above");
    let mut reader = Reader::default();
    let mut tail = VecDeque::with_capacity(TAIL);
    let mut said_full = false;
    progress(reader.progress());
    let read = lines(output, |line| {
        said_full |= line.contains(room::FULL);
        writeln!(log_file, "{line}")?;
        if let Some(news) = reader.line(line) {
            progress(news);
        }
        // Bars are no news.
        if !line.trim().is_empty() && !line.starts_with('[') {
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(line.to_owned());
        }
        Ok(())
    });
    let mut ended = false;
    let logged = {
        let mut read = pin!(read);
        loop {
            tokio::select! {
                logged = &mut read => break logged,
                // apt may wait for ever on a full disk.
                () = room::filled(&wanted.cache), if !ended => {
                    // Its last words are waited for: then nobody writes to the folder any more.
                    ended = true;
                    _ = child.start_kill();
                }
            }
        }
    };
    let status = child.wait().await;
    if said_full || ended {
        // What filled it may have been removed by now.
        return Err(Room::of(&wanted.cache).lacking(&wanted.cache));
    }
    logged.map_err(ImageError::file("cannot log the build to", log))?;
    let status = status.map_err(ImageError::file("cannot wait for the build in", &folder.0))?;
    if status.success() {
        return Ok(());
    }
    Err(ImageError::Build {
        stage: reader.stage(),
        hint: reader.hint(),
        log: log.into(),
        tail: Vec::from(tail).join("\n"),
    })
}

/// Hands on each line, or what a bar writes over with the next; not UTF-8 is replaced.
async fn lines(
    mut output: impl AsyncRead + Unpin,
    mut line: impl FnMut(&str) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let (mut rest, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let read = output.read(&mut chunk).await?;
        if read == 0 {
            return line(&String::from_utf8_lossy(&rest));
        }
        for &byte in &chunk[..read] {
            if matches!(byte, b'\n' | b'\r') {
                line(&String::from_utf8_lossy(&rest))?;
                rest.clear();
            } else {
                rest.push(byte);
            }
        }
    }
}

/// The host's ways to reach an archive, for mmdebstrap, which reads no configuration of the
/// host's: proxies, retries, checks of dates, and where the passwords are.
async fn apt_options() -> Result<String, ImageError> {
    let mut dump = Command::new("apt-config");
    let dump = dump.arg("dump").kill_on_drop(true).output().await;
    let dump = dump.map_err(|source| ImageError::Start {
        program: "apt-config",
        source,
    })?;
    let mut options = reaching(&String::from_utf8_lossy(&dump.stdout));
    options += "Dir::Etc::netrc \"/etc/apt/auth.conf\";\n";
    options += "Dir::Etc::netrcparts \"/etc/apt/auth.conf.d\";\n";
    Ok(options)
}

fn reaching(dump: &str) -> String {
    /// apt.conf(5): of the group Acquire, what is about the way and not about the contents.
    const KEPT: &[&str] = &[
        "http",
        "https",
        "ftp",
        "socks",
        "tor",
        "Retries",
        "Check-Valid-Until",
        "Check-Date",
        "Max-ValidTime",
        "Max-FutureTime",
        "ForceIPv4",
        "ForceIPv6",
        "Queue-Mode",
        "EnableSrvRecords",
    ];
    dump.split_inclusive('\n')
        .filter(|line| {
            line.strip_prefix("Acquire::").is_some_and(|rest| {
                let end = rest.find([':', ' ']).unwrap_or(rest.len());
                KEPT.iter()
                    .any(|kept| kept.eq_ignore_ascii_case(&rest[..end]))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_archive_is_kept_and_nothing_else() {
        let dump = "\
APT::Architecture \"amd64\";
Acquire::IndexTargets::deb::DEP-11::MetaKey \"x\";
Acquire::Check-Valid-Until \"false\";
Acquire::http \"\";
Acquire::http::Proxy \"http://proxy.example:3128\";
Acquire::https::archive.example::Verify-Peer \"false\";
Acquire::httpx \"\";
Acquire::Languages:: \"none\";
DPkg::Post-Invoke:: \"rm -rf /\";
";
        assert_eq!(
            reaching(dump),
            "Acquire::Check-Valid-Until \"false\";\n\
             Acquire::http \"\";\n\
             Acquire::http::Proxy \"http://proxy.example:3128\";\n\
             Acquire::https::archive.example::Verify-Peer \"false\";\n"
        );
    }

    #[test]
    fn all_missing_packages_are_named_at_once() {
        installed(|_| true).unwrap();
        let error = installed(|name| name != "mmdebstrap" && name != "xz").unwrap_err();
        assert_eq!(
            error.to_string(),
            "building the switch image needs mmdebstrap, xz-utils: `ikv-fabric setup` installs it"
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_bar_counts_as_lines() {
        let mut seen = Vec::new();
        let collect = |line: &str| {
            seen.push(line.to_owned());
            Ok(())
        };
        lines(&b"one\n[= 1%\r[== 2%\r\xff\nlast"[..], collect)
            .await
            .unwrap();
        assert_eq!(seen, ["one", "[= 1%", "[== 2%", "\u{fffd}", "last"]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_lock_is_waited_for_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = lock(&path, &mut |_| ()).await.unwrap();
        let mut said = Vec::new();
        let mut progress = |news: Progress| said.push(news.stage);
        let short = Duration::from_millis(50);
        let second = tokio::time::timeout(short, lock(&path, &mut progress)).await;
        assert!(second.is_err(), "two builds at once");
        assert_eq!(said, ["waiting for another build"]);
        drop(first);
        lock(&path, &mut |_| ()).await.unwrap();
    }

    #[test]
    fn an_open_file_keeps_its_folder() {
        let kept = tempfile::tempdir().unwrap();
        let folder = kept.path().canonicalize().unwrap();
        let file = File::create(folder.join("root.squashfs")).unwrap();
        assert!(in_use(&folder));
        drop(file);
        assert!(!in_use(&folder));
    }

    #[test]
    fn nothing_is_removed_below_which_something_is_mounted() {
        let mounts = "\
22 1 8:1 / / rw,relatime - ext4 /dev/vda rw
99 22 0:5 / /cache/building-7/tmp/root/dev rw - devtmpfs dev rw
";
        assert!(mounted_below(mounts, Path::new("/cache/building-7")));
        assert!(!mounted_below(mounts, Path::new("/cache/building-77")));
        assert!(!mounted_below(mounts, Path::new("/cache/building")));
    }

    #[test]
    fn the_images_used_last_are_kept() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let images = |ages: &[u64]| {
            let named = ages.iter().map(|age| (at(*age), format!("of {age}")));
            superseded(named.collect())
        };
        assert_eq!(images(&[5, 9, 1, 7]), ["of 5", "of 1"]);
        assert_eq!(images(&[5, 9]), [""; 0]);
        assert_eq!(images(&[]), [""; 0]);
    }

    #[test]
    fn using_an_image_makes_it_the_last_used() {
        let cache = tempfile::tempdir().unwrap();
        let (old, new) = ("0123456789abcdef", "fedcba9876543210");
        for name in [old, new, "aaaaaaaaaaaaaaaa", "mine"] {
            let folder = cache.path().join(name);
            fs::create_dir(&folder).unwrap();
            let then = SystemTime::now() - Duration::from_secs(60);
            File::open(folder).unwrap().set_modified(then).unwrap();
        }
        used_now(&cache.path().join(old));
        let mut found = others(cache.path(), "aaaaaaaaaaaaaaaa");
        found.sort();
        let names: Vec<_> = found.into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, [new, old]);
    }

    #[test]
    fn only_its_own_folders_are_removed() {
        let cache = tempfile::tempdir().unwrap();
        for name in ["0123456789abcdef", "fedcba9876543210", "building-7", "mine"] {
            fs::create_dir(cache.path().join(name)).unwrap();
        }
        remove(cache.path(), |name| {
            name != "fedcba9876543210" && is_hash(name)
        });
        remove(cache.path(), |name| name.starts_with(BUILDING));
        let mut left: Vec<_> = fs::read_dir(cache.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["fedcba9876543210", "mine"]);
    }
}
