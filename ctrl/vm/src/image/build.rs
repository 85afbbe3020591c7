//! One build: under a lock, in a folder beside the final one, with a log. The folder is renamed at
//! the end.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use super::disk_space::{self, DiskSpace};
use super::error::ImageError;
use super::progress::{Progress, Reader};
use super::wanted::{ImagePaths, WantedImage};
use super::{apt, cache, sources};
use host::folder::Folder;
use host::program::{self, Program};

/// When an image is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Only if no image of the recipe exists.
    Missing,
    /// Even if one exists, because the archive may have newer packages.
    Always,
}

/// The pause between two attempts to take the lock that another build holds.
const LOCK_POLL: Duration = Duration::from_millis(200);
/// How many of the log's last lines an error shows.
const TAIL: usize = 12;
/// The prefix of the names of build folders. A build removes the folders that a killed one left.
const BUILDING: &str = "building-";

pub(super) async fn build(
    wanted: &WantedImage,
    when: When,
    mut on_progress: impl FnMut(Progress),
) -> Result<ImagePaths, ImageError> {
    installed(|name| program::find(name).is_some())?;
    let cache = &wanted.cache;
    // Not where another user could swap what is built, or run as root.
    Folder::open_or_make(cache).map_err(ImageError::file("cannot use", cache))?;
    let _lock = lock(&cache.join("lock"), &mut on_progress).await?;
    if let (When::Missing, Some(image)) = (when, wanted.built()) {
        return Ok(image);
    }
    cache::remove(cache, |name| name.starts_with(BUILDING));
    DiskSpace::of(cache).suffices(cache)?;

    let folder = BuildFolder::create(cache)?;
    let written = wanted.recipe.write(&folder.0.join("recipe"));
    let made = match written {
        Ok(()) => run(wanted, &folder, &cache.join("build.log"), &mut on_progress).await,
        Err(error) => Err(error),
    };
    // Measured before `folder` is dropped, which removes the files that filled the disk.
    made.map_err(|error| DiskSpace::of(cache).blame(cache, error))?;

    make_readable(&ImagePaths::in_folder(&folder.out()))?;
    install(cache, &wanted.hash(), &folder.out())
}

/// Lets everybody read an image's files: QEMU opens kernel and initrd by name, as a uid that owns no
/// file.
pub(super) fn make_readable(image: &ImagePaths) -> Result<(), ImageError> {
    for path in image.all() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644))
            .map_err(ImageError::file("the image has no", path))?;
    }
    Ok(())
}

/// Moves a finished image to its final place. Removes images that were not used for a long time.
pub(super) fn install(cache: &Path, hash: &str, built: &Path) -> Result<ImagePaths, ImageError> {
    let target = cache.join(hash);
    // A running QEMU may use the old image; its open files stay readable. The image's saved states
    // are removed with it, because they do not fit the new one.
    cache::remove(cache, |name| name == hash);
    fs::rename(built, &target).map_err(ImageError::file("cannot move the image to", &target))?;
    cache::remove_superseded(cache, hash);
    Ok(ImagePaths::in_folder(&target))
}

/// The programs that a build starts, each with its Debian package; for `setup` and `check`.
pub const BUILD_PROGRAMS: &[Program] = &[
    Program::of("mmdebstrap", "mmdebstrap"),
    Program::of("mksquashfs", "squashfs-tools"),
    Program::of("cpio", "cpio"),
    Program::of("lz4", "lz4"),
    Program::of("zstd", "zstd"),
    Program::of("xz", "xz-utils"),
    Program::of("setpriv", "util-linux"),
];

/// Refuses to build if programs are missing. The error names all of them.
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

/// Waits for the lock, which lets one build at a time use the cache.
pub(super) async fn lock(
    path: &Path,
    on_progress: &mut impl FnMut(Progress),
) -> Result<File, ImageError> {
    let file = File::create(path).map_err(ImageError::file("cannot create", path))?;
    let mut reported = false;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) => {
                if !reported {
                    on_progress(Progress {
                        stage: "waiting for another build",
                        fraction: 0.0,
                    });
                    reported = true;
                }
                tokio::time::sleep(LOCK_POLL).await;
            }
            Err(error) => return Err(ImageError::file("cannot lock", path)(error.into())),
        }
    }
}

/// The folder of one build. Dropping it removes the folder.
pub(super) struct BuildFolder(PathBuf);

impl BuildFolder {
    pub(super) fn create(cache: &Path) -> Result<Self, ImageError> {
        let path = cache.join(format!("{BUILDING}{}", std::process::id()));
        let folder = Self(path);
        for part in ["recipe", "out", "tmp"] {
            let part = folder.0.join(part);
            fs::create_dir_all(&part).map_err(ImageError::file("cannot create", &part))?;
        }
        // apt downloads as another user, who must be able to enter these folders.
        for path in [&folder.0, &folder.0.join("out"), &folder.0.join("tmp")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))
                .map_err(ImageError::file("cannot open up", path))?;
        }
        Ok(folder)
    }

    /// Where the image's files come to be.
    pub(super) fn out(&self) -> PathBuf {
        self.0.join("out")
    }
}

impl Drop for BuildFolder {
    fn drop(&mut self) {
        // If this fails, the next build removes the folder.
        cache::remove_folder(&self.0);
    }
}

/// The command for the recipe's script, in namespaces of its own, so that its processes and mounts
/// end with it: otherwise a killed mmdebstrap would leave `/dev` and `/proc` mounted, and its
/// children would run on for half a minute. The script is killed when the child is dropped and when
/// this process dies.
///
/// Without root, mmdebstrap creates its own namespaces.
fn script(path: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    if rustix::process::geteuid().is_root() {
        command.args(["unshare", "--mount", "--pid", "--mount-proc"]);
        command.args(["--fork", "--kill-child=KILL", "--"]);
    }
    command
        // One stream for both outputs keeps the lines in order.
        .args(["sh", "-c", r#"exec sh "$0" 2>&1"#])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        // Ctrl-C reaches only this process, which then ends the build.
        .process_group(0);
    command
}

/// Runs the recipe's script and reads its output until it ends.
async fn run(
    wanted: &WantedImage,
    folder: &BuildFolder,
    log: &Path,
    on_progress: &mut impl FnMut(Progress),
) -> Result<(), ImageError> {
    let mut output = Output::new(log)?;
    let mut child =
        prepared(wanted, folder)
            .await?
            .spawn()
            .map_err(|source| ImageError::Start {
                program: "setpriv",
                source,
            })?;
    on_progress(output.reader.progress());
    let stdout = child.stdout.take().expect("stdout was piped by script()");
    let mut killed = false;
    let logged = {
        let mut read = pin!(lines(stdout, |line| output.take(line, on_progress)));
        loop {
            tokio::select! {
                logged = &mut read => break logged,
                // On a full disk, apt may wait without limit.
                () = disk_space::filled(&wanted.cache), if !killed => {
                    // Reads on to the end of the output: after it, no process writes to the folder.
                    killed = true;
                    _ = child.start_kill();
                }
            }
        }
    };
    let status = child.wait().await;
    if output.disk_full || killed {
        // Not measured again, because the files that filled the disk may have been removed by now.
        return Err(DiskSpace::of(&wanted.cache).lacking(&wanted.cache));
    }
    logged.map_err(ImageError::file("cannot log the build to", log))?;
    let status = status.map_err(ImageError::file("cannot wait for the build in", &folder.0))?;
    if status.success() {
        Ok(())
    } else {
        Err(output.failure(log))
    }
}

/// The script's command with sources, apt options and environment.
async fn prepared(wanted: &WantedImage, folder: &BuildFolder) -> Result<Command, ImageError> {
    let write = |name: &str, text: &str| {
        let path = folder.0.join(name);
        fs::write(&path, text).map_err(ImageError::file("cannot write", &path))?;
        Ok(path)
    };
    let sources = sources::for_build(&wanted.suite, wanted.mirror.as_ref())?;
    let mut command = script(&folder.0.join("recipe/build.sh"));
    command
        .env("OUT", folder.out())
        .env("SUITE", &wanted.suite)
        .env("SOURCES", write("debian.sources", &sources)?)
        .env("APTCONF", write("apt.conf", &apt::options().await?)?)
        .env("RECIPE", wanted.hash())
        .env("LC_ALL", "C.UTF-8");
    if rustix::process::geteuid().is_root() {
        // /tmp may be too small. But without root, mmdebstrap needs a folder that its subordinate
        // uids can reach, which this one is not.
        command.env("TMPDIR", folder.0.join("tmp"));
    }
    Ok(command)
}

/// The output of a build so far.
struct Output {
    log: File,
    reader: Reader,
    /// The last lines, for an error message.
    tail: VecDeque<String>,
    /// Whether a program has reported that the disk is full.
    disk_full: bool,
}

impl Output {
    fn new(log: &Path) -> Result<Self, ImageError> {
        Ok(Self {
            log: File::create(log).map_err(ImageError::file("cannot create", log))?,
            reader: Reader::default(),
            tail: VecDeque::with_capacity(TAIL),
            disk_full: false,
        })
    }

    fn take(&mut self, line: &str, on_progress: &mut impl FnMut(Progress)) -> io::Result<()> {
        self.disk_full |= line.contains(disk_space::FULL);
        writeln!(self.log, "{line}")?;
        if let Some(progress) = self.reader.line(line) {
            on_progress(progress);
        }
        // Progress bars do not help to explain a failure.
        if !line.trim().is_empty() && !line.starts_with('[') {
            if self.tail.len() == TAIL {
                self.tail.pop_front();
            }
            self.tail.push_back(line.to_owned());
        }
        Ok(())
    }

    fn failure(self, log: &Path) -> ImageError {
        ImageError::Build {
            stage: self.reader.stage(),
            hint: self.reader.hint(),
            log: log.into(),
            tail: Vec::from(self.tail).join("\n"),
        }
    }
}

/// Calls `line` with each line. A carriage return ends a line too, because progress bars overwrite
/// themselves with it. Bytes that are not UTF-8 are replaced.
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

#[cfg(test)]
mod tests {
    use super::*;

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
    async fn the_lock_is_waited_for_and_that_is_reported() {
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
}
