//! Taps that come and go while a fabric runs.

use std::io;

use model::topology::MTU;

use super::{HostChangeError, HostChanges, PlannedTaps, guard_taps};
use crate::address::index_of;
use crate::error::HostError;
use crate::journal::Undo;
use crate::netlink::Netlink;
use crate::plan::{HostStep, TapForm, TapOpener, TapPlan};
use crate::{links, nft};

impl HostChanges {
    /// Makes a tap again that another program removed: first guarded, then set up.
    ///
    /// # Errors
    /// `ResourceBusy` in [`HostError::Tap`] if a device of that name exists again.
    pub fn restore_tap(&mut self, name: &str) -> Result<(), HostError> {
        let unknown = || HostError::tap(name, io::ErrorKind::NotFound.into());
        let planned = self.taps.as_ref().ok_or_else(unknown)?;
        let mut taps = planned.taps.iter();
        let tap = taps.find(|tap| tap.name == name).ok_or_else(unknown)?;
        let mut netlink = Netlink::open().map_err(HostError::Netlink)?;
        let taps = std::slice::from_ref(tap);
        links::create_taps(&mut netlink, taps, planned.form, self.identity())?;
        guard_taps([name], self.egress)?;
        index_of(name)
            .and_then(|index| links::raise_one(&mut netlink, index))
            .map_err(|error| HostError::link("raise", name, error))
    }

    /// Makes more taps like those of the plan: first guarded, then set up. Makes all or none.
    ///
    /// # Errors
    /// [`HostChangeError::Step`] with what failed, and what of it could not be undone.
    pub fn add_taps(&mut self, added: &[TapPlan]) -> Result<(), HostChangeError> {
        let form = self.taps.as_ref().map_or(
            TapForm {
                opener: TapOpener::Root,
                mtu: u32::from(MTU),
                multi_queue: false,
            },
            |planned| planned.form,
        );
        let step = HostStep::Taps {
            taps: added.to_vec(),
            form,
        };
        let names: Vec<String> = added.iter().map(|tap| tap.name.clone()).collect();
        // A tap is marked only after it was made: if the fabric is killed in between, only the
        // journal shows who made it.
        self.journal.begin(Undo::Links {
            names: names.clone(),
        })?;
        let made = self.make_taps(added, form);
        let left = match &made {
            Ok(()) => Ok(()),
            // Those before the one that failed were made by us; that one, if it exists, was not.
            Err(HostError::Tap { name, .. }) => {
                let made = names.iter().take_while(|made| *made != name);
                self.delete_taps(&names, &made.cloned().collect::<Vec<_>>())
            }
            Err(_) => self.delete_taps(&names, &names),
        };
        // From here on the mark shows that they are ours, and the plan's own entry covers them.
        self.journal.pop();
        self.journal.save()?;
        if let Err(source) = made {
            let left = left.err().map(|error| error.to_string());
            return Err(HostChangeError::Step {
                step: step.to_string(),
                source,
                left: left.into_iter().collect(),
            });
        }
        let planned = self.taps.get_or_insert_with(|| PlannedTaps {
            taps: Vec::new(),
            form,
        });
        planned.taps.extend_from_slice(added);
        Ok(())
    }

    fn make_taps(&self, taps: &[TapPlan], form: TapForm) -> Result<(), HostError> {
        let identity = self.identity();
        let mut netlink = Netlink::open().map_err(HostError::Netlink)?;
        links::create_taps(&mut netlink, taps, form, identity)?;
        guard_taps(taps.iter().map(|tap| tap.name.as_str()), self.egress)?;
        links::raise(&mut netlink, identity)
    }

    /// Removes some of our taps and their guards. They can no longer be restored.
    ///
    /// # Errors
    /// The first failure. What is left is removed at the end, with all other devices.
    pub fn remove_taps(&mut self, names: &[String]) -> Result<(), HostError> {
        if let Some(planned) = &mut self.taps {
            planned.taps.retain(|tap| !names.contains(&tap.name));
        }
        self.delete_taps(names, &[])
    }

    /// `unmarked`: those of `names` that were made but perhaps not marked as ours yet.
    fn delete_taps(&self, names: &[String], unmarked: &[String]) -> Result<(), HostError> {
        let mut netlink = Netlink::open().map_err(HostError::Netlink)?;
        links::delete_named(&mut netlink, self.identity(), names, unmarked)?;
        let names = names.iter().map(String::as_str);
        Ok(nft::unguard(names, self.egress)?)
    }
}
