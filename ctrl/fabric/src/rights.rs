//! The rights of root that a fabric keeps once it runs: [`for_fabric`], [`for_patch`], [`settle`]; and
//! threads without any: [`thread`].

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use dataplane::rights::{CapabilitySet, keep};
use dataplane::seccomp;

use crate::cables::panel::ThreadRights;
use host::rootless;
use model::config::Config;
use model::topology::Selection;

/// Starts a thread that gives up all rights of root before it does its work. If that fails, the
/// work is not done.
///
/// # Errors
/// When the process cannot start another thread.
pub(super) fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let named = std::thread::Builder::new().name(name.into());
    named.spawn(move || match keep(CapabilitySet::empty()) {
        Ok(()) => work(),
        Err(error) => tracing::error!(%error, "rights of root could not be given up"),
    })?;
    Ok(())
}

/// Gives up all rights of root but `kept`, and the system calls that no one here has a use for, for this
/// thread, and the threads and programs that it will start.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn settle(kept: CapabilitySet) -> io::Result<()> {
    keep(kept)?;
    seccomp::control()
}

/// The rights that a whole fabric needs: to open new devices, and those that another program has
/// removed; to undo changes to the host; to give sockets to their users; and, with VMs, to start
/// one again under its own uid and to end it. `files`: the files that the fabric will open, create
/// or remove.
pub(super) fn for_fabric(switches: &Selection, files: &[&Path]) -> CapabilitySet {
    let mut kept =
        CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW | CapabilitySet::CHOWN | for_files(files);
    if !switches.is_empty() {
        // setpriv empties the bounding set of the program that it starts, which needs SETPCAP.
        kept |= CapabilitySet::SETUID
            | CapabilitySet::SETGID
            | CapabilitySet::SETPCAP
            | CapabilitySet::KILL;
    }
    kept
}

/// What workers and the thread of the vhost-user sockets may do: what a user may whom nobody else is.
/// Control opens what they use.
pub(super) fn for_threads(config: &Config) -> ThreadRights {
    match user_of_threads(config) {
        Some(uid) => ThreadRights::User(uid),
        None => ThreadRights::Keep(CapabilitySet::empty()),
    }
}

/// Why these threads stay root's. `None` if they do not, or never were.
pub(super) fn stay_roots(config: &Config) -> Option<String> {
    let root = rustix::process::geteuid().is_root();
    (root && user_of_threads(config).is_none()).then(|| {
        "workers keep uid 0 (without its rights): the uid below vm.uid and ipmi.uid cannot be had"
            .into()
    })
}

/// `None` if this process cannot become another user, or that one.
fn user_of_threads(config: &Config) -> Option<u32> {
    // Below those of the switches and the BMCs.
    let uid = config.vm.uid.min(config.ipmi.uid) - 1;
    if uid == 0 || !rustix::process::geteuid().is_root() {
        return None;
    }
    let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
    is_mapped(&map, uid).then_some(uid)
}

/// Whether a user namespace has that uid (user_namespaces(7)).
fn is_mapped(map: &str, uid: u32) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), _, Some(Ok(count))) = (fields.next(), fields.next(), fields.next())
        else {
            return false;
        };
        (first..first + count).contains(&uid.into())
    })
}

/// The rights that a single wire needs. With `netdevs`, it must remove the nftables tables that
/// keep the host's network stack from them.
pub(super) fn for_patch(netdevs: bool, files: &[&Path]) -> CapabilitySet {
    let guards = if netdevs {
        CapabilitySet::NET_ADMIN
    } else {
        CapabilitySet::empty()
    };
    guards | for_files(files)
}

/// The rights that access to files needs: none for root's own, some for those below another user's
/// folder.
pub(super) fn for_files(files: &[&Path]) -> CapabilitySet {
    let ours = |path: &Path| path.metadata().is_ok_and(|meta| meta.uid() == 0);
    let foreign = files.iter().any(|path| {
        // A file that does not exist yet will belong to root, if its folder does.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        path.ancestors()
            .filter(|part| part.exists())
            .any(|part| !ours(part))
    });
    // In namespaces of its own a process has no right over files but the user's.
    if foreign && rootless::is_root_of_host() {
        CapabilitySet::DAC_OVERRIDE
    } else {
        CapabilitySet::empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wire_in_roots_own_folders_needs_nothing() {
        assert_eq!(
            for_patch(false, &[Path::new("/proc")]),
            CapabilitySet::empty()
        );
        assert_eq!(for_patch(true, &[]), CapabilitySet::NET_ADMIN);
    }

    #[test]
    fn threads_get_a_uid_that_the_namespace_has() {
        assert!(is_mapped("0 0 4294967295\n", 69_999));
        let few = "0 1000 1\n1 100000 65536";
        assert!(is_mapped(few, 0) && is_mapped(few, 65_536) && !is_mapped(few, 65_537));
        assert!(!is_mapped("", 0));
        let mut config = Config::default();
        config.vm.uid = 1;
        assert_eq!(user_of_threads(&config), None);
    }

    #[test]
    fn a_panel_without_vms_becomes_no_other_user() {
        let kept = for_fabric(&Selection::none(), &[]);
        assert!(!kept.contains(CapabilitySet::SETUID), "{kept:?}");
        let topology = model::topology::build(&model::config::Config::default()).unwrap();
        let kept = for_fabric(&Selection::all(&topology), &[]);
        assert!(kept.contains(CapabilitySet::SETUID));
    }
}
