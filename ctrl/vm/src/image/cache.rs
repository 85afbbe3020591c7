//! The folder of all images: which are kept, and how others are removed.

use std::fs::{self, File};
use std::path::Path;
use std::time::SystemTime;

/// How many images of other recipes are kept, so that releases and working copies of this program
/// can be used alternately.
const OTHERS: usize = 2;

/// Removes the images of recipes other than `hash`, except the ones used last and those in use.
pub(super) fn remove_superseded(cache: &Path, hash: &str) {
    let superseded = superseded(others(cache, hash));
    remove(cache, |name| {
        // The switches of another fabric may run on it.
        superseded.iter().any(|old| old == name) && !in_use(&cache.join(name))
    });
}

/// The images in the cache other than `hash`, each with the time of its last use.
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

/// All except the [`OTHERS`] that were used last.
fn superseded(mut images: Vec<(SystemTime, String)>) -> Vec<String> {
    images.sort_by(|a, b| b.cmp(a));
    images.drain(..OTHERS.min(images.len()));
    images.into_iter().map(|(_, name)| name).collect()
}

/// Records that an image is used now, as the modification time of its folder.
pub(super) fn used_now(folder: &Path) {
    // Fails for another user's folder; the image then only appears older than it is.
    let _ = File::open(folder).and_then(|folder| folder.set_modified(SystemTime::now()));
}

/// Removes the folders of the cache whose names `which` accepts.
pub(super) fn remove(cache: &Path, which: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(&which) {
            remove_folder(&entry.path());
        }
    }
}

/// Removes a folder, unless something is mounted below it: that might be the host's `/dev`, which
/// builders of root file systems mount. A folder that stays only takes up space; if it is in the
/// way, renaming the new image fails and reports it.
pub(super) fn remove_folder(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo");
    if mounts.is_ok_and(|mounts| !mounted_below(&mounts, folder)) {
        _ = fs::remove_dir_all(folder);
    }
}

/// Whether a file system is mounted in the folder. The fifth field is the mount point (proc(5)).
fn mounted_below(mountinfo: &str, folder: &Path) -> bool {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .into_iter()
        .any(|at| Path::new(at).starts_with(folder))
}

/// Whether a folder's name is that of an image ([`super::WantedImage::hash`]).
fn is_hash(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a process has a file of the folder open, as a running QEMU has its disks. Only processes
/// that this one may inspect are seen.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_folder_with_an_open_file_is_in_use() {
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
        remove(cache.path(), |name| name.starts_with("building-"));
        let mut left: Vec<_> = fs::read_dir(cache.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["fedcba9876543210", "mine"]);
    }
}
