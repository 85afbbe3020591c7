//! Starting from saved states that are missing, damaged or cannot be written.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ikv_tests::{Fabric, Site, ensure_image, figure, lacks_for_vms, skip};
use tempfile::TempDir;

/// Time for two emulated VMs to boot while other tests run.
const PATIENCE: Duration = Duration::from_secs(180);

/// A cache with a copy of the image: this test must not damage the saved states of others.
struct Cache {
    folder: TempDir,
    states: PathBuf,
}

impl Cache {
    fn new() -> Self {
        ensure_image().unwrap();
        let said = Command::new(ikv_tests::ikv_fabric())
            .args(["image", "path"])
            .output()
            .unwrap();
        let image = PathBuf::from(String::from_utf8(said.stdout).unwrap().trim());
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("image").join(image.file_name().unwrap());
        fs::create_dir_all(&copy).unwrap();
        for file in fs::read_dir(&image).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file() {
                fs::copy(file.path(), copy.join(file.file_name())).unwrap();
            }
        }
        let states = copy.join("states");
        Cache { folder, states }
    }

    /// Starts a spine and a leaf, which have one session with each other.
    fn start(&self, more: &[&str]) -> Fabric {
        let dir = format!("image.dir={}", self.folder.path().display());
        let words = [&["--only", "spine1,leaf1", "--set", &dir], more].concat();
        let mut fabric = Fabric::start(Site::new("warm"), &words);
        let after = fabric.wait_ready(PATIENCE).unwrap();
        let how = if more.is_empty() { "" } else { more[0] };
        figure(
            &format!("spine and leaf ready {how}"),
            &format!("{after:?}"),
        );
        fabric
    }

    /// The files of the states, the smallest first: the spine's, which has fewer NICs.
    fn states(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.states).into_iter().flatten();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort_by_key(|file| file.metadata().unwrap().len());
        files
    }
}

fn was_restored(fabric: &Fabric, node: &str) -> bool {
    let stages = fabric.cli().exec(node, &["cat", "/run/ikv/boot"]);
    stages.contains(" woken\n")
}

fn end(mut fabric: Fabric) -> String {
    assert!(fabric.end().status.success());
    fabric.stderr()
}

fn times(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

#[test]
fn saved_states_are_made_used_and_replaced() {
    if let Some(lacking) = lacks_for_vms() {
        return skip(&format!("needs {lacking}"));
    }
    let cache = Cache::new();

    // With --cold no state is made.
    let fabric = cache.start(&["--cold"]);
    assert!(!was_restored(&fabric, "leaf1") && !was_restored(&fabric, "spine1"));
    let said = end(fabric);
    assert_eq!(times(&said, "saved state"), 0, "{said}");
    if !said.contains("switches run under tcg") {
        return skip("needs TCG: under KVM every switch is booted");
    }
    assert_eq!(cache.states().len(), 0);

    // On a full disk both boot, and a notice says why.
    let full = Tmpfs::on(&cache.states);
    let fabric = cache.start(&[]);
    assert!(!was_restored(&fabric, "leaf1") && !was_restored(&fabric, "spine1"));
    let said = end(fabric);
    assert_eq!(times(&said, "  ! no saved state of "), 2, "{said}");
    assert!(said.contains("could not be written"), "{said}");
    assert_eq!(cache.states().len(), 0, "a half-written state is left");
    drop(full);

    // States are made and used at once.
    let fabric = cache.start(&[]);
    assert!(was_restored(&fabric, "leaf1") && was_restored(&fabric, "spine1"));
    assert!(end(fabric).contains("2 made, "));
    let states = cache.states();
    assert_eq!(states.len(), 2);

    // QEMU ends on a file that is not a state, and on a truncated one: both switches boot.
    let [spine, leaf] = &states[..] else {
        panic!("{states:?}");
    };
    fs::write(spine, b"this is no saved state of a QEMU").unwrap();
    cut_in_half(leaf);
    let fabric = cache.start(&[]);
    assert!(!was_restored(&fabric, "leaf1") && !was_restored(&fabric, "spine1"));
    for node in ["leaf1", "spine1"] {
        assert_eq!(fabric.cli().node(node)["bgp"]["established"], 1);
    }
    let said = end(fabric);
    for node in ["leaf1", "spine1"] {
        let notice = format!("  ! {node} does not start from its saved state (");
        assert_eq!(times(&said, &notice), 1, "{said}");
    }
    assert_eq!(cache.states().len(), 0, "a damaged state is left");
}

fn cut_in_half(file: &Path) {
    let file = File::options().write(true).open(file).unwrap();
    let size = file.metadata().unwrap().len();
    file.set_len(size / 2).unwrap();
}

/// A disk that is too small for a state; unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn on(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=20m,mode=700", "small"])
            .arg(folder)
            .status()
            .unwrap();
        assert!(mounted.success());
        Tmpfs(folder.into())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg(&self.0).status().unwrap();
        assert!(gone.success() || std::thread::panicking());
    }
}
