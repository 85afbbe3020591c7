//! Files in the way: those of another fabric, and foreign files where this fabric would create (and
//! at its end remove) its own.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::finding::{Finding, Severity};
use host::folder::Folder;
use host::journal::{Identity, Journal};
use host::lock::{Lock, StatePaths};
use host::netns::NetnsId;
use host::plan::TapPlan;
use model::config::Config;
use vm::spec::MAX_SOCKET_PATH;

/// Finds out whether another user could swap what root makes beside the socket.
pub(super) fn untrusted(paths: &StatePaths) -> Option<Finding> {
    let refused = Folder::check(&paths.folder).err()?;
    Some(Finding::new(
        Severity::Error,
        format!("no fabric can be at {}: {refused}", paths.socket.display()),
        "name another --socket",
    ))
}

/// Finds folders in the configuration where another user could swap what root makes or reads.
pub(super) fn untrusted_keys(config: &Config) -> Vec<Finding> {
    let folders = [
        ("image.dir", &config.image.dir),
        ("recorder.dir", &config.recorder.dir),
        ("ssh.key_dir", &config.ssh.key_dir),
    ];
    let refused = folders.into_iter().filter_map(|(key, folder)| {
        let refused = Folder::check(folder.as_deref()?).err()?;
        Some(Finding::new(
            Severity::Error,
            format!("{key}: {refused}"),
            format!("another folder for {key}"),
        ))
    });
    refused.collect()
}

/// Finds files where the fabric creates its own, and paths that are too long for sockets. `own` is
/// the pid of this process, which may hold the lock itself. `taps` are the taps that have sockets.
pub(super) fn in_the_way(paths: &StatePaths, taps: &[TapPlan], own: u32) -> Vec<Finding> {
    let beside = taps.iter().map(|tap| paths.vhost_socket(&tap.name));
    let longest = beside.max_by_key(|path| path.as_os_str().len());
    let mut sockets = [paths.socket.clone()].into_iter().chain(longest);
    let mut found = Vec::from_iter(sockets.find_map(|socket| too_long(&socket)));
    let running = Lock::holder(paths).is_some_and(|pid| pid != own.to_string());
    // A running fabric has its own files there. Those of a killed fabric are removed before this
    // one starts.
    if running || paths.journal.symlink_metadata().is_ok() {
        return found;
    }
    let present = [
        &paths.socket,
        &paths.vms,
        &paths.ssh,
        &paths.vhost,
        &paths.ipmi,
        &paths.vnc,
        &paths.recorder,
    ]
    .into_iter()
    .filter(|path| path.symlink_metadata().is_ok());
    found.extend(present.map(|path| {
        Finding::new(
            Severity::Error,
            format!(
                "{} is in the way: the fabric makes one of its own there",
                path.display()
            ),
            "move it away, or name another --socket",
        )
    }));
    found
}

fn too_long(socket: &Path) -> Option<Finding> {
    let bytes = socket.as_os_str().as_bytes().len();
    (bytes > MAX_SOCKET_PATH).then(|| {
        Finding::new(
            Severity::Error,
            format!(
                "the socket's path {} has {bytes} bytes, Linux allows {MAX_SOCKET_PATH}",
                socket.display()
            ),
            "name a shorter --socket",
        )
    })
}

/// Finds another fabric on the same socket, or the remains of one. `own` is the pid of this
/// process: `run` checks while it holds the lock itself.
pub(super) fn other_fabric(paths: &StatePaths, own: u32) -> Option<Finding> {
    let running = Lock::holder(paths);
    if let Some(pid) = running.filter(|pid| *pid != own.to_string()) {
        return Some(Finding::new(
            Severity::Error,
            format!("a fabric is running on this socket, pid {pid}"),
            format!("kill {pid}, or another --socket"),
        ));
    }
    match Journal::load(&paths.journal) {
        Ok(None) => None,
        Ok(Some(journal)) => {
            let state = journal.state();
            let here = NetnsId::current().is_ok_and(|here| here == state.netns);
            let place = if here {
                ""
            } else {
                " (in another network namespace)"
            };
            Some(Finding::new(
                Severity::Note,
                format!(
                    "fabric {} was killed and left things behind{place}",
                    state.identity.pid
                ),
                "ikv-fabric clean; `run` does it too",
            ))
        }
        // A user cannot read root's journal.
        Err(_) if !rustix::process::geteuid().is_root() => Some(Finding::new(
            Severity::Note,
            format!("{} was left by a killed fabric", paths.journal.display()),
            "ikv-fabric clean",
        )),
        Err(e) => Some(Finding::new(
            Severity::Error,
            e.to_string(),
            format!("rm {}", paths.journal.display()),
        )),
    }
}

/// The fabric that was killed on this socket, in this network namespace: `run` takes away what it left.
pub(super) fn left_behind(paths: &StatePaths) -> Option<Identity> {
    let journal = Journal::load(&paths.journal).ok()??;
    let state = journal.state();
    let here = NetnsId::current().is_ok_and(|here| here == state.netns);
    (here && !state.identity.is_running()).then(|| state.identity.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(paths: &StatePaths) -> Vec<String> {
        let tap = TapPlan {
            name: "ikvm1-10-1".into(),
            alias: String::new(),
        };
        in_the_way(paths, &[tap], std::process::id())
            .into_iter()
            .map(|finding| finding.what)
            .collect()
    }

    #[test]
    fn what_stands_beside_the_socket_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let paths = StatePaths::beside(&folder.path().join("control.sock"));
        assert!(found(&paths).is_empty());
        std::fs::create_dir(folder.path().join("vm")).unwrap();
        std::fs::write(folder.path().join("control.sock"), "").unwrap();
        let said = found(&paths).join("\n");
        assert!(said.contains("/control.sock is in the way"), "{said}");
        assert!(said.contains("/vm is in the way"), "{said}");
        // Another fabric's in the same folder are not.
        assert!(found(&StatePaths::beside(&folder.path().join("b.sock"))).is_empty());
        // Those of a killed one neither.
        std::fs::write(&paths.journal, "").unwrap();
        assert!(found(&paths).is_empty());
    }

    #[test]
    fn folders_of_other_users_are_named_by_their_keys() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let home = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(home.path(), Some(54_321), None).unwrap();
        let mut config = Config::default();
        assert!(untrusted_keys(&config).is_empty());
        config.image.dir = Some(home.path().join("image"));
        config.recorder.dir = Some(home.path().into());
        config.ssh.key_dir = Some(home.path().join("keys"));
        let found = untrusted_keys(&config);
        let keys = ["image.dir: ", "recorder.dir: ", "ssh.key_dir: "];
        assert_eq!(found.len(), keys.len());
        for (finding, key) in found.iter().zip(keys) {
            let Finding { what, severity, .. } = finding;
            assert_eq!(*severity, Severity::Error);
            assert!(
                what.starts_with(key) && what.contains("user 54321"),
                "{what}"
            );
        }
        let paths = StatePaths::beside(&home.path().join("run/control.sock"));
        let what = untrusted(&paths).unwrap().what;
        assert!(
            what.contains("/run/control.sock: ") && what.contains("54321"),
            "{what}"
        );
    }

    #[test]
    fn a_path_that_no_socket_can_have() {
        // vhost/ikvm1-10-1.sock is the longest one in the folder.
        let long = format!("/tmp/{}/control.sock", "x".repeat(80));
        assert_eq!(
            found(&StatePaths::beside(Path::new(&long))),
            Vec::<String>::new()
        );
        let said = found(&StatePaths::beside(Path::new(&long.replace("/x", "/xx"))));
        assert!(
            said[0].ends_with("/vhost/ikvm1-10-1.sock has 108 bytes, Linux allows 107"),
            "{said:?}"
        );
    }
}
