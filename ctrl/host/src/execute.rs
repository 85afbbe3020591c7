//! Executes the steps of a [`plan`](crate::plan), and takes them back.
//!
//! Each step is in the journal before it is done. They are undone in reverse order when one
//! fails, when the fabric ends, and by [`clean`] after a fabric was killed: the same code from
//! the same journal, which touches only what carries our mark.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use crate::journal::{Entry, Identity, Journal, JournalError, Undo};
use crate::lock::Lock;
use crate::netlink::Netlink;
use crate::netns::Whereabouts;
use crate::plan::{HostStep, TapPlan};
use crate::sysctl::{self, Family};
use crate::{HostError, address, links, nft};
use model::topology::MTU;

/// Why the host's part did not come up, or did not go away.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A step failed; those before it were undone.
    #[error("cannot {step}: {source}{}", leftovers(left))]
    Step {
        /// The step in words.
        step: String,
        /// What went wrong.
        source: HostError,
        /// What could not be undone; empty when the host is as before.
        left: Vec<String>,
    },
    /// The journal could not be written or read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Something could not be undone; it is still in the journal.
    #[error("could not undo everything: {}; `ikv-fabric clean` tries again", .0.join("; "))]
    Undo(Vec<String>),
    /// The journal tells of another network namespace.
    #[error(
        "fabric {pid} left things in another network namespace; `nsenter --net={} ikv-fabric clean --socket {}` takes them away",
        netns.display(), socket.display()
    )]
    OtherNamespace {
        /// The fabric that is gone.
        pid: u32,
        /// Leads into that namespace.
        netns: PathBuf,
        /// The socket whose journal it is.
        socket: PathBuf,
    },
    /// The fabric of the journal still runs, though it lost its lock file.
    #[error("fabric {0} is still running; end it with `kill {0}` first")]
    StillRunning(u32),
}

fn leftovers(left: &[String]) -> String {
    if left.is_empty() {
        String::new()
    } else {
        format!(" (and could not undo everything: {})", left.join("; "))
    }
}

/// The host's part of a running fabric. Dropping it undoes everything, like [`Applied::undo`],
/// but has nobody to tell about what failed.
#[derive(Debug)]
pub struct Applied {
    journal: Journal,
    /// Kept to make a tap again; the last `Taps` step.
    taps: Option<(Vec<TapPlan>, Option<u32>, u32)>,
    host_taps: HostTaps,
    undone: bool,
}

/// The host's own ends of cables by the names of the devices: their descriptors, with virtio-net
/// headers, not blocking.
pub type HostTaps = BTreeMap<String, OwnedFd>;

/// Executes `steps` in order, calling `progress` before each.
///
/// The lock shows that no other fabric uses the journal; [`clean`] must have been called before.
///
/// # Errors
/// [`ApplyError::Step`] with what failed; the steps before it have been undone then.
pub fn execute(
    steps: &[HostStep],
    lock: &Lock,
    mut progress: impl FnMut(&HostStep),
) -> Result<Applied, ApplyError> {
    let mut applied = Applied {
        journal: Journal::new(&lock.paths().journal, lock.created_folder())?,
        taps: None,
        host_taps: HostTaps::new(),
        undone: false,
    };
    for step in steps {
        progress(step);
        if let Err(error) = applied.execute(step) {
            let left = match applied.take_back() {
                Ok(()) => Vec::new(),
                Err(ApplyError::Undo(left)) => left,
                Err(other) => vec![other.to_string()],
            };
            return Err(match error {
                StepError::Host(source) => ApplyError::Step {
                    step: step.to_string(),
                    source,
                    left,
                },
                StepError::Journal(error) => error.into(),
            });
        }
    }
    Ok(applied)
}

enum StepError {
    Host(HostError),
    Journal(JournalError),
}

impl From<HostError> for StepError {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

impl From<JournalError> for StepError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

impl Applied {
    /// The descriptors of the host's taps. None without a host link, and the second time.
    ///
    /// Close them after [`Applied::undo`]: closing a tap's last descriptor removes the device and
    /// takes 16 ms, removing it with all others takes no time of its own.
    pub fn take_host_taps(&mut self) -> HostTaps {
        std::mem::take(&mut self.host_taps)
    }

    /// Who owns the devices.
    pub fn identity(&self) -> &Identity {
        &self.journal.state().identity
    }

    /// Writes down a file or folder of the fabric that is about to be created below the
    /// journal's folder, so that it is removed at the end.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn will_create(&mut self, path: &Path) -> Result<(), ApplyError> {
        let relative = path
            .strip_prefix(self.journal.folder())
            .unwrap_or(path)
            .to_owned();
        self.journal.begin(Undo::Path { path: relative })?;
        self.journal.done();
        Ok(())
    }

    /// Makes a tap again that somebody removed: guarded, then up.
    ///
    /// # Errors
    /// `ResourceBusy` in [`HostError::Tap`] if somebody made one of that name meanwhile.
    pub fn restore_tap(&mut self, name: &str) -> Result<(), HostError> {
        let planned = self.taps.as_ref().and_then(|(taps, owner, mtu)| {
            Some((
                taps.iter().find(|tap| tap.name == name)?.clone(),
                *owner,
                *mtu,
            ))
        });
        let Some((tap, owner, mtu)) = planned else {
            return Err(HostError::tap(name, io::ErrorKind::NotFound.into()));
        };
        let mut netlink = Netlink::open().map_err(HostError::Netlink)?;
        let identity = self.identity().clone();
        links::create_taps(&mut netlink, &[tap], owner, mtu, &identity)?;
        guard_taps([name])?;
        let link = links::list(&mut netlink)
            .map_err(HostError::Netlink)?
            .into_iter()
            .find(|link| link.name == name)
            .ok_or_else(|| HostError::tap(name, io::ErrorKind::NotFound.into()))?;
        links::raise_one(&mut netlink, link.index).map_err(|e| HostError::link("raise", name, e))
    }

    /// Makes more taps like those of the plan: guarded, then up. All or none.
    ///
    /// # Errors
    /// [`ApplyError::Step`] with what failed, and what of it could not be taken back.
    pub fn add_taps(&mut self, added: &[TapPlan]) -> Result<(), ApplyError> {
        let (owner, mtu) = match &self.taps {
            Some((_, owner, mtu)) => (*owner, *mtu),
            None => (None, u32::from(MTU)),
        };
        let step = HostStep::Taps {
            taps: added.to_vec(),
            owner,
            mtu,
        };
        let names: Vec<String> = added.iter().map(|tap| tap.name.clone()).collect();
        // Until they are marked, a fabric that is killed would not be known for their maker.
        self.journal.begin(Undo::Links {
            names: names.clone(),
        })?;
        let made = self.make_taps(added, owner, mtu);
        let left = match &made {
            Ok(()) => Ok(()),
            // Those before the one that could not be made were made by us.
            Err(HostError::Tap { name, .. }) => {
                let made = names.iter().take_while(|made| *made != name);
                self.delete_taps(&names, &made.cloned().collect::<Vec<_>>())
            }
            Err(_) => self.delete_taps(&names, &names),
        };
        // What has our mark goes with all others that have.
        self.journal.pop();
        self.journal.save()?;
        if let Err(source) = made {
            let left = left.err().map(|error| error.to_string());
            return Err(ApplyError::Step {
                step: step.to_string(),
                source,
                left: left.into_iter().collect(),
            });
        }
        let (taps, ..) = self.taps.get_or_insert((Vec::new(), owner, mtu));
        taps.extend_from_slice(added);
        Ok(())
    }

    fn make_taps(&self, taps: &[TapPlan], owner: Option<u32>, mtu: u32) -> Result<(), HostError> {
        let identity = self.identity();
        let mut netlink = Netlink::open().map_err(HostError::Netlink)?;
        links::create_taps(&mut netlink, taps, owner, mtu, identity)?;
        guard_taps(taps.iter().map(|tap| tap.name.as_str()))?;
        links::raise(&mut netlink, identity)
    }

    /// Removes some of our taps and their guards, and forgets that they were planned.
    ///
    /// # Errors
    /// What could not be removed. It goes at the end with all others.
    pub fn remove_taps(&mut self, names: &[String]) -> Result<(), HostError> {
        if let Some((taps, ..)) = &mut self.taps {
            taps.retain(|tap| !names.contains(&tap.name));
        }
        self.delete_taps(names, &[])
    }

    fn delete_taps(&self, names: &[String], unmarked: &[String]) -> Result<(), HostError> {
        let mut netlink = Netlink::open().map_err(HostError::Netlink)?;
        links::delete_named(&mut netlink, self.identity(), names, unmarked)?;
        Ok(nft::unguard(names.iter().map(String::as_str))?)
    }

    /// Takes everything back, in reverse order, and removes the journal.
    ///
    /// # Errors
    /// [`ApplyError::Undo`] with all that failed; it stays in the journal.
    pub fn undo(mut self) -> Result<(), ApplyError> {
        self.take_back()
    }

    fn take_back(&mut self) -> Result<(), ApplyError> {
        self.undone = true;
        take_back(&mut self.journal)
    }

    fn execute(&mut self, step: &HostStep) -> Result<(), StepError> {
        let Some(undo) = undo_of(step)? else {
            return Ok(());
        };
        self.journal.begin(undo)?;
        self.perform(step)?;
        self.journal.done();
        Ok(())
    }

    fn perform(&mut self, step: &HostStep) -> Result<(), HostError> {
        let identity = self.identity().clone();
        let mut netlink = Netlink::open().map_err(HostError::Netlink)?;
        match step {
            HostStep::Taps { taps, owner, mtu } => {
                self.taps = Some((taps.clone(), *owner, *mtu));
                links::create_taps(&mut netlink, taps, *owner, *mtu, &identity)
            }
            HostStep::HostLink {
                name,
                mac,
                mtu,
                ipv6,
            } => {
                let tap = links::create_host_tap(&mut netlink, name, *mac, *mtu, *ipv6, &identity)?;
                self.host_taps.insert(name.clone(), tap);
                distrust(name, *ipv6)
            }
            HostStep::Tables { guard, nat, ipmi } => {
                let (nat, ipmi) = (nat.as_ref(), ipmi.as_ref());
                let tables = nft::create_tables(guard, nat, ipmi, &identity.chain());
                Ok(nft::load(&tables)?)
            }
            HostStep::Raise => links::raise(&mut netlink, &identity),
            HostStep::Address { link, address } => {
                address::add_address(&mut netlink, link, *address).map_err(|source| {
                    HostError::Address {
                        address: *address,
                        link: link.clone(),
                        source,
                    }
                })
            }
            HostStep::Route { range, via, link } => {
                address::add_route(&mut netlink, *range, *via, link).map_err(|source| {
                    HostError::Route {
                        range: *range,
                        link: link.clone(),
                        source,
                    }
                })
            }
            HostStep::Forwarding(family) => sysctl::write(family.switch(), "1")
                .map_err(|e| HostError::sysctl(family.switch(), e)),
        }
    }
}

impl Drop for Applied {
    fn drop(&mut self) {
        if !self.undone
            && let Err(error) = self.take_back()
        {
            tracing::error!(%error, "the host is not as before");
        }
    }
}

/// Guards taps, be it again: somebody removed a guard, or the tap was made anew.
///
/// # Errors
/// When nft refuses, for instance because our tables are gone.
pub fn guard_taps<'t>(names: impl IntoIterator<Item = &'t str>) -> Result<(), HostError> {
    Ok(nft::load(&nft::guard_again(names))?)
}

/// `None` if there is nothing to do.
fn undo_of(step: &HostStep) -> Result<Option<Undo>, HostError> {
    Ok(Some(match step {
        HostStep::Taps { taps, .. } => Undo::Links {
            names: taps.iter().map(|tap| tap.name.clone()).collect(),
        },
        HostStep::HostLink { name, .. } => Undo::Links {
            names: vec![name.clone()],
        },
        HostStep::Tables { .. } => Undo::Tables,
        // The links go before the tables, so that nothing is ever up without its guard.
        HostStep::Raise => Undo::Links { names: Vec::new() },
        HostStep::Address { link, address } => Undo::Address {
            link: link.clone(),
            address: *address,
        },
        HostStep::Route { range, via, link } => Undo::Route {
            range: *range,
            via: *via,
            link: link.clone(),
        },
        HostStep::Forwarding(family) => return undo_of_forwarding(*family),
    }))
}

fn undo_of_forwarding(family: Family) -> Result<Option<Undo>, HostError> {
    let saved = family
        .before_switching_on()
        .map_err(|e| HostError::sysctl(family.switch(), e))?;
    Ok((!saved.is_empty()).then(|| Undo::Sysctl {
        saved,
        ours: "1".to_owned(),
    }))
}

/// What comes from the host link's cable comes from a guest: it must not steer the host.
fn distrust(link: &str, ipv6: bool) -> Result<(), HostError> {
    let mut settings = vec![(format!("ipv4/conf/{link}/accept_redirects"), "0")];
    if ipv6 {
        settings.push((format!("ipv6/conf/{link}/accept_ra"), "0"));
        settings.push((format!("ipv6/conf/{link}/accept_redirects"), "0"));
    } else {
        settings.push((format!("ipv6/conf/{link}/disable_ipv6"), "1"));
    }
    for (key, value) in settings {
        match sysctl::write(&key, value) {
            // A kernel without IPv6 has no such switch.
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(HostError::sysctl(&key, e));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What [`clean`] found and took away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleaned {
    /// The fabric that left it.
    pub pid: u32,
    /// Steps undone.
    pub steps: usize,
    /// Its network namespace is gone, so only files were left.
    pub namespace_gone: bool,
}

/// Undoes what a killed fabric left. `None` if there was nothing.
///
/// # Errors
/// [`ApplyError::OtherNamespace`] if it has to be done elsewhere; [`ApplyError::Undo`] with all
/// that failed.
pub fn clean(lock: &mut Lock) -> Result<Option<Cleaned>, ApplyError> {
    let path = lock.paths().journal.clone();
    let Some(mut journal) = Journal::load(&path)? else {
        Journal::remove_unfinished(&path)?;
        return Ok(None);
    };
    let state = journal.state();
    let pid = state.identity.pid;
    if state.identity.is_running() && pid != std::process::id() {
        return Err(ApplyError::StillRunning(pid));
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
            return Err(ApplyError::OtherNamespace { pid, netns, socket });
        }
    };
    let steps = state.entries.len();
    if state.created_folder {
        lock.adopt_folder();
    }
    if namespace_gone {
        journal.keep_paths_only();
    }
    take_back(&mut journal)?;
    Ok(Some(Cleaned {
        pid,
        steps,
        namespace_gone,
    }))
}

/// Undoes the journal from its end. What fails is kept in it, the rest goes on.
fn take_back(journal: &mut Journal) -> Result<(), ApplyError> {
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
    if failed.is_empty() {
        return Ok(journal.remove()?);
    }
    for entry in failed.into_iter().rev() {
        journal.push(entry);
    }
    journal.save()?;
    Err(ApplyError::Undo(problems))
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
                // An nft that outlived its fabric may load them yet, but not for devices that
                // are gone.
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

/// Removes a file or folder; never anything outside of `folder`.
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
    let removed = match fs::symlink_metadata(&full) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(&full),
        Ok(_) => fs::remove_file(&full),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
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
