//! Executes the steps of a [`plan`](crate::plan), and takes them back.
//!
//! The journal names each step before the step is executed. Steps are undone in reverse order when
//! one of them fails, when the fabric ends, and by [`clean`] after a fabric was killed. All three
//! run the same code on the same journal, and it touches only what carries our mark.

mod error;
mod reach;
mod taps;
mod undo;
mod upkeep;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

pub use error::HostChangeError;
pub use undo::{Cleaned, clean};

use crate::error::HostError;
use crate::journal::{Identity, Journal, JournalError, Undo};
use crate::lock::Lock;
use crate::netlink::Netlink;
use crate::nft::{Chains, Egress};
use crate::plan::{Filter, HostStep, TapForm, TapPlan};
use crate::sysctl::{self, Family};
use crate::{address, links, nft};
use undo::undo_all;

/// What a running fabric has changed on the host. Dropping it undoes everything, like
/// [`HostChanges::undo`], but can only log what it could not undo.
#[derive(Debug)]
pub struct HostChanges {
    journal: Journal,
    /// The taps for VMs, so that a lost one can be made again. `None` before there are any.
    taps: Option<PlannedTaps>,
    host_taps: HostTaps,
    /// What our tables let through. `None` before they are loaded.
    filter: Option<Filter>,
    /// The chains of our tables but for the guards of taps, with the number of their rules.
    loaded: Chains,
    egress: Egress,
    /// The steps that were executed, in order.
    steps: Vec<HostStep>,
    undone: bool,
}

#[derive(Debug)]
struct PlannedTaps {
    taps: Vec<TapPlan>,
    form: TapForm,
}

/// The host's own ends of cables: device name to descriptor. The descriptors do not block, and
/// each frame on them has a virtio-net header.
pub type HostTaps = BTreeMap<String, OwnedFd>;

/// Executes `steps` in order and calls `before_step` before each.
///
/// `lock` proves that no other fabric uses the journal. Call [`clean`] first: a journal that a
/// killed fabric left would be overwritten.
///
/// # Errors
/// [`HostChangeError::Step`] names the step that failed; the steps before it have been undone.
pub fn execute(
    steps: &[HostStep],
    lock: &Lock,
    mut before_step: impl FnMut(&HostStep),
) -> Result<HostChanges, HostChangeError> {
    let mut changes = HostChanges {
        journal: Journal::new(&lock.paths().journal, lock.created_folder())?,
        taps: None,
        host_taps: HostTaps::new(),
        filter: None,
        loaded: Chains::new(),
        egress: Egress::find(),
        steps: Vec::new(),
        undone: false,
    };
    for step in steps {
        before_step(step);
        if let Err(error) = changes.execute(step) {
            let left = match changes.undo_all() {
                Ok(()) => Vec::new(),
                Err(HostChangeError::Undo(left)) => left,
                Err(other) => vec![other.to_string()],
            };
            return Err(match error {
                StepError::Host(source) => HostChangeError::Step {
                    step: step.to_string(),
                    source,
                    left,
                },
                StepError::Journal(error) => error.into(),
            });
        }
    }
    Ok(changes)
}

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
enum StepError {
    Host(#[from] HostError),
    Journal(#[from] JournalError),
}

impl HostChanges {
    /// Hands the descriptors of the host's taps over. The map is empty without a host link, and on
    /// every later call.
    ///
    /// Close them after [`HostChanges::undo`]: closing a tap's last descriptor removes the device,
    /// which takes 16 ms, while `undo` removes all devices at once.
    pub fn take_host_taps(&mut self) -> HostTaps {
        std::mem::take(&mut self.host_taps)
    }

    /// The fabric process whose mark the devices and tables carry.
    pub fn identity(&self) -> &Identity {
        &self.journal.state().identity
    }

    /// Records in the journal that a file or folder is about to be created below the journal's
    /// folder, so that it is removed at the end.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn will_create(&mut self, path: &Path) -> Result<(), HostChangeError> {
        let relative = path
            .strip_prefix(self.journal.folder())
            .unwrap_or(path)
            .to_owned();
        self.journal.begin(Undo::Path { path: relative })?;
        self.journal.done();
        Ok(())
    }

    /// Undoes everything in reverse order and removes the journal.
    ///
    /// # Errors
    /// [`HostChangeError::Undo`] lists what failed; those entries stay in the journal.
    pub fn undo(mut self) -> Result<(), HostChangeError> {
        self.undo_all()
    }

    fn undo_all(&mut self) -> Result<(), HostChangeError> {
        self.undone = true;
        undo_all(&mut self.journal)
    }

    fn execute(&mut self, step: &HostStep) -> Result<(), StepError> {
        // Also one that finds the host as it would make it: the host can change.
        self.steps.push(step.clone());
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
            HostStep::Taps { taps, form } => {
                self.taps = Some(PlannedTaps {
                    taps: taps.clone(),
                    form: *form,
                });
                links::create_taps(&mut netlink, taps, *form, &identity)
            }
            HostStep::HostLink {
                name,
                mac,
                mtu,
                ipv6,
            } => {
                let tap = links::create_host_tap(&mut netlink, name, *mac, *mtu, *ipv6, &identity)?;
                self.host_taps.insert(name.clone(), tap);
                ignore_guests_control(name, *ipv6)
            }
            HostStep::Tables { guard, nat, filter } => {
                self.filter = Some(filter.clone());
                let filter = (filter, &self.kept_apart(filter)?);
                let owner = identity.chain();
                let tables = nft::create_tables(guard, nat.as_ref(), filter, &owner, self.egress);
                nft::load(&tables)?;
                self.remember_loaded(&tables);
                Ok(())
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

impl Drop for HostChanges {
    fn drop(&mut self) {
        if !self.undone
            && let Err(error) = self.undo_all()
        {
            tracing::error!(%error, "the host is not as it was before the fabric");
        }
    }
}

/// (Re)installs the guard on taps: needed when another program removed a guard, and after a tap was
/// made again.
///
/// # Errors
/// When nft refuses, for instance because our tables are gone.
fn guard_taps<'t>(
    names: impl IntoIterator<Item = &'t str>,
    egress: Egress,
) -> Result<(), HostError> {
    Ok(nft::load(&nft::guard_again(names, egress))?)
}

/// The journal's record for a step. `None` if the host already is as the step would make it.
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

/// Frames on the host link come from a guest, so its redirects and router advertisements must not
/// change the host's routes.
fn ignore_guests_control(link: &str, ipv6: bool) -> Result<(), HostError> {
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
