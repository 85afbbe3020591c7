//! Takes changes of the host back, by the journal alone.

use std::io;
use std::path::{Component, Path};

use super::error::HostChangeError;
use crate::error::HostError;
use crate::folder::Folder;
use crate::journal::{Entry, Identity, Journal, JournalError, Undo};
use crate::lock::Lock;
use crate::netlink::Netlink;
use crate::netns::Whereabouts;
use crate::{address, cgroup, links, nft, sysctl};

/// What [`clean`] found and undid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleaned {
    /// Process id of the fabric that left it.
    pub pid: u32,
    /// How many journal entries were undone.
    pub steps: usize,
    /// Its network namespace no longer exists, so only files were left.
    pub namespace_gone: bool,
}

/// Undoes what a killed fabric left. `None` if it left nothing.
///
/// # Errors
/// [`HostChangeError::OtherNamespace`] if it has to be undone in another namespace;
/// [`HostChangeError::Undo`] lists what failed.
pub fn clean(lock: &mut Lock) -> Result<Option<Cleaned>, HostChangeError> {
    let path = lock.paths().journal.clone();
    let Some(mut journal) = Journal::load(&path)? else {
        Journal::remove_unfinished(&path)?;
        return Ok(None);
    };
    let state = journal.state();
    let pid = state.identity.pid;
    if state.identity.is_running() && pid != std::process::id() {
        return Err(HostChangeError::StillRunning(pid));
    }
    let whereabouts = state
        .netns
        .whereabouts()
        .map_err(|source| JournalError::Io { path, source })?;
    let namespace_gone = match whereabouts {
        Whereabouts::Here => false,
        Whereabouts::Gone => true,
        Whereabouts::Elsewhere(netns) => {
            let socket = lock.paths().socket.clone();
            return Err(HostChangeError::OtherNamespace { pid, netns, socket });
        }
    };
    let steps = state.entries.len();
    if state.created_folder {
        lock.adopt_folder();
    }
    if namespace_gone {
        journal.keep_paths_only();
    }
    undo_all(&mut journal)?;
    Ok(Some(Cleaned {
        pid,
        steps,
        namespace_gone,
    }))
}

/// Undoes the journal's entries from the last to the first. An entry that fails stays in the
/// journal, and the others are undone nevertheless. Cgroups need no entry.
pub(super) fn undo_all(journal: &mut Journal) -> Result<(), HostChangeError> {
    let identity = journal.state().identity.clone();
    let folder = journal.folder().to_owned();
    let mut failed: Vec<Entry> = Vec::new();
    let mut problems = Vec::new();
    while let Some(entry) = journal.pop() {
        if let Err(error) = undo_one(&entry, &identity, &folder) {
            problems.push(error.to_string());
            failed.push(entry);
        }
    }
    cgroup::remove_unused();
    if failed.is_empty() {
        return Ok(journal.remove()?);
    }
    for entry in failed.into_iter().rev() {
        journal.push(entry);
    }
    journal.save()?;
    Err(HostChangeError::Undo(problems))
}

fn undo_one(entry: &Entry, identity: &Identity, folder: &Path) -> Result<(), HostError> {
    let open = || Netlink::open().map_err(HostError::Netlink);
    match &entry.undo {
        Undo::Links { names } => {
            let unmarked = if entry.done { &[] } else { names.as_slice() };
            links::delete_ours(&mut open()?, identity, unmarked)
        }
        Undo::Tables => {
            if !entry.done {
                // A child `nft` may outlive the killed fabric and still load the tables. It fails
                // when the devices they name are gone.
                links::delete_ours(&mut open()?, identity, &[])?;
            }
            Ok(nft::remove(&identity.chain())?)
        }
        Undo::Address { link, address } => address::delete_address(&mut open()?, link, *address)
            .map_err(|source| HostError::Address {
                address: *address,
                link: link.clone(),
                source,
            }),
        Undo::Route { range, via, link } => address::delete_route(&mut open()?, *range, *via, link)
            .map_err(|source| HostError::Route {
                range: *range,
                link: link.clone(),
                source,
            }),
        Undo::Sysctl { saved, ours } => sysctl::restore(saved, ours)
            .map_err(|e| HostError::sysctl(saved.first().map_or("", |setting| &setting.key), e)),
        Undo::Path { path } => remove_below(folder, path),
    }
}

/// Removes a file or folder, and refuses a path that leads out of `folder`: the journal is read
/// from disk and this acts as root.
fn remove_below(folder: &Path, path: &Path) -> Result<(), HostError> {
    let full = folder.join(path);
    let at = |source| HostError::Path {
        path: full.clone(),
        source,
    };
    let inside = path.components().all(|c| matches!(c, Component::Normal(_)));
    if !inside || path.as_os_str().is_empty() {
        return Err(at(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "not below the fabric's folder, left alone",
        )));
    }
    let mut names: Vec<_> = path.iter().collect();
    let last = names.pop().expect("the path is not empty");
    let removed = Folder::open(folder).and_then(|mut inner| {
        for name in names {
            inner = inner.folder(name)?;
        }
        inner.remove_all(last)
    });
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_what_is_below_the_folder_is_removed() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("run");
        fs::create_dir_all(folder.join("vm/leaf1")).unwrap();
        fs::write(folder.join("control.sock"), "").unwrap();
        fs::write(outer.path().join("precious"), "").unwrap();
        std::os::unix::fs::symlink(outer.path(), folder.join("vm/out")).unwrap();
        remove_below(&folder, Path::new("vm")).unwrap();
        remove_below(&folder, Path::new("vm")).unwrap();
        remove_below(&folder, Path::new("control.sock")).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        for path in ["../precious", "/etc/hostname", "", ".", "a/../../precious"] {
            assert!(remove_below(&folder, Path::new(path)).is_err(), "{path}");
        }
        assert!(outer.path().join("precious").exists());
    }
}
