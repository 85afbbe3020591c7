//! What the host lets through, changed while a fabric runs.

use std::borrow::Cow;

use model::config::HostReach;

use super::{HostChangeError, HostChanges};
use crate::error::HostError;
use crate::journal::Undo;
use crate::nft::{self, KeptApart};
use crate::plan::Filter;
use crate::sysctl::{Family, Setting};

impl HostChanges {
    /// Lets through what `reach` says, from one packet to the next. Connections that were let through
    /// before go on.
    ///
    /// # Errors
    /// [`HostChangeError::Step`] when nft refuses: then nothing has changed.
    pub fn set_reach(&mut self, reach: HostReach) -> Result<(), HostChangeError> {
        let Some(mut filter) = self.filter.clone() else {
            return Ok(());
        };
        let Some(guard) = &mut filter.reach else {
            return Ok(());
        };
        let step = format!("see to it that {reach}");
        guard.reach = reach;
        let replaced = self.kept_apart(&filter).and_then(|apart| {
            let commands = nft::replace(&filter, &apart);
            nft::load(&commands)?;
            Ok(commands)
        });
        let commands = replaced.map_err(|source| HostChangeError::Step {
            step,
            source,
            left: Vec::new(),
        })?;
        self.remember_loaded(&commands);
        self.filter = Some(filter);
        Ok(())
    }

    /// What the host did not forward before this fabric switched, or will switch, forwarding on.
    pub(super) fn kept_apart(&self, filter: &Filter) -> Result<KeptApart, HostError> {
        let Some(guard) = &filter.reach else {
            return Ok(KeptApart::default());
        };
        let before = self.before_switching_on(Family::Ipv4)?;
        let ipv4_but_from = (!before.is_empty()).then(|| Family::Ipv4.forwarding_devices(&before));
        let ipv6 = guard.ipv6 && !self.before_switching_on(Family::Ipv6)?.is_empty();
        Ok(KeptApart {
            ipv4_but_from,
            ipv6,
        })
    }

    /// The settings before this fabric switched forwarding on, by the journal; the present ones if it
    /// has not yet. Empty if the host forwards by itself.
    fn before_switching_on(&self, family: Family) -> Result<Cow<'_, [Setting]>, HostError> {
        let mut entries = self.journal.state().entries.iter();
        let saved = entries.find_map(|entry| match &entry.undo {
            Undo::Sysctl { saved, .. } if saved.first()?.key == family.switch() => Some(saved),
            _ => None,
        });
        match saved {
            Some(saved) => Ok(Cow::Borrowed(saved)),
            None => family
                .before_switching_on()
                .map(Cow::Owned)
                .map_err(|error| HostError::sysctl(family.switch(), error)),
        }
    }
}
