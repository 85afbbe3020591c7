//! Only root can give folders to other users, so the tests of foreign owners do nothing without.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;

/// No account has it.
const OTHER: u32 = 54_321;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn refusal(path: &Path) -> String {
    let opened = Folder::open(path).unwrap_err().to_string();
    // All three ways agree.
    assert_eq!(Folder::open_or_make(path).unwrap_err().to_string(), opened);
    assert_eq!(Folder::check(path).unwrap_err().to_string(), opened);
    opened
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_folder_below_one_that_others_may_write_to_is_refused_unless_it_is_sticky() {
    let outer = tempfile::tempdir().unwrap();
    let shared = outer.path().join("shared");
    fs::create_dir_all(shared.join("a/b")).unwrap();
    for mode in [0o777, 0o757, 0o775] {
        set_mode(&shared, mode);
        if mode == 0o775 && !is_root() {
            continue; // perhaps the caller's private group
        }
        for path in ["shared", "shared/a", "shared/a/b", "shared/a/../a/b"] {
            let says = refusal(&outer.path().join(path));
            assert!(says.contains(&format!("(mode {mode:04o})")), "{says}");
            assert!(says.contains("/shared (mode"), "{says}");
        }
        // What does not exist yet would be made there.
        assert!(Folder::check(&shared.join("new/deep")).is_err());
        assert!(Folder::open_or_make(&shared.join("new/deep")).is_err());
        assert!(!shared.join("new").exists());
    }
    set_mode(&shared, 0o1777);
    Folder::open(&shared).unwrap();
    Folder::open(&shared.join("a/b")).unwrap();
    assert!(Folder::open_or_make(&shared.join("new")).unwrap().1);
    assert!(!Folder::open_or_make(&shared.join("new")).unwrap().1);
}

#[test]
fn a_folder_or_link_of_another_user_on_the_way_is_refused() {
    if !is_root() {
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    let (home, own) = (outer.path().join("home"), outer.path().join("own"));
    fs::create_dir_all(home.join("roots")).unwrap();
    fs::create_dir(&own).unwrap();
    chown(&home, Some(OTHER), Some(OTHER)).unwrap();
    // Root's own folder below does not help: its parent's owner can rename it.
    for path in [home.clone(), home.join("roots")] {
        let says = refusal(&path);
        assert!(says.contains("/home belongs to user 54321"), "{says}");
        assert!(says.contains("only root can write"), "{says}");
    }
    // Through a link of root's into it, too.
    symlink(&home, own.join("link")).unwrap();
    assert!(refusal(&own.join("link/roots")).contains("54321"));
    // Another user's link in a sticky folder, though it leads to a good one.
    let sticky = outer.path().join("sticky");
    fs::create_dir(&sticky).unwrap();
    set_mode(&sticky, 0o1777);
    symlink(&own, sticky.join("link")).unwrap();
    Folder::open(&sticky.join("link")).unwrap();
    rustix::fs::chownat(
        rustix::fs::CWD,
        sticky.join("link"),
        Some(Uid::from_raw(OTHER)),
        None,
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
    assert!(refusal(&sticky.join("link")).contains("sticky/link belongs to user 54321"));
    // A link in a circle ends.
    symlink("circle", own.join("circle")).unwrap();
    assert!(Folder::open(&own.join("circle")).is_err());
}

#[test]
fn links_at_the_end_are_neither_followed_nor_overwritten() {
    let outer = tempfile::tempdir().unwrap();
    let secret = outer.path().join("secret");
    let at = outer.path().join("folder");
    fs::create_dir(&at).unwrap();
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("precious"), "as before").unwrap();
    let folder = Folder::open(&at).unwrap();
    symlink(secret.join("precious"), at.join("file")).unwrap();
    symlink(&secret, at.join("link")).unwrap();
    assert!(folder.read("file").is_err());
    assert!(folder.create("file", 0o600).is_err());
    assert!(folder.open_or_create("file", 0o600).is_err());
    assert!(folder.overwrite("file").is_err());
    assert!(folder.folder("link").is_err());
    assert!(folder.listen("file", (0, 0), 0o600).is_err());
    assert!(folder.make_closed("link", 0).is_err());
    // It replaces the link, not the file behind it.
    folder.replace("file", b"ours", 0o644, None).unwrap();
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "ours");
    // Removing everything stops at the link.
    fs::create_dir_all(at.join("deep/er")).unwrap();
    symlink(&secret, at.join("deep/er/out")).unwrap();
    folder.remove_all("deep").unwrap();
    folder.remove_all("link").unwrap();
    folder.remove_all("not there").unwrap();
    let left = fs::read_to_string(secret.join("precious")).unwrap();
    assert_eq!(left, "as before");
    assert_eq!(fs::read_dir(&at).unwrap().count(), 1);
}

#[test]
fn names_that_lead_elsewhere_and_files_that_are_none_are_refused() {
    let outer = tempfile::tempdir().unwrap();
    let folder = Folder::open(outer.path()).unwrap();
    for name in ["", ".", "..", "a/b", "/etc", "a/", "./a"] {
        assert!(folder.remove_all(name).is_err(), "{name}");
        assert!(folder.create(name, 0o600).is_err(), "{name}");
    }
    let fifo = outer.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::from_raw_mode(0o600)).unwrap();
    // Waits for a writer if it is opened without care.
    let says = folder.read("fifo").unwrap_err().to_string();
    assert!(says.contains("regular file"), "{says}");
    fs::write(outer.path().join("open"), "").unwrap();
    set_mode(&outer.path().join("open"), 0o666);
    folder.read("open").unwrap();
    // In a folder like /tmp anybody may have made it.
    set_mode(outer.path(), 0o1777);
    let shared = Folder::open(outer.path()).unwrap();
    assert!(shared.read("open").is_err());
    set_mode(&outer.path().join("open"), 0o644);
    shared.read("open").unwrap();
    if is_root() {
        chown(outer.path().join("open"), Some(OTHER), None).unwrap();
        let says = shared.read("open").unwrap_err().to_string();
        assert!(says.contains("belongs to user 54321"), "{says}");
    }
}

#[test]
fn a_socket_and_its_folder_are_closed_to_others() {
    let outer = tempfile::tempdir().unwrap();
    let own = rustix::fs::stat(outer.path()).unwrap();
    let folder = Folder::open(outer.path()).unwrap();
    folder.make_closed("nics", own.st_gid).unwrap();
    let nics = folder.folder("nics").unwrap();
    let _listener = nics
        .listen("0.sock", (own.st_uid, own.st_gid), 0o600)
        .unwrap();
    assert_eq!(folder.stat("nics").unwrap().st_mode & 0o7777, 0o710);
    assert_eq!(nics.stat("0.sock").unwrap().st_mode & 0o7777, 0o600);
    assert!(
        nics.listen("0.sock", (own.st_uid, own.st_gid), 0o600)
            .is_err()
    );
}
