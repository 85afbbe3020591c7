//! Looks whether what a fabric made on the host is still there, and puts back what is not.

use std::collections::BTreeMap;

use super::{HostChangeError, HostChanges, undo_of_forwarding};
use crate::error::HostError;
use crate::journal::Undo;
use crate::links::Link;
use crate::netlink::Netlink;
use crate::nft::{self, Chains};
use crate::plan::{HostStep, Nat};
use crate::sysctl::{self, Family};
use crate::upkeep::{Looked, Ours, Trouble, rivals};
use crate::{address, links};

impl HostChanges {
    /// Looks at the host and puts back what is missing, except what is in `leave`. Blocks for some
    /// tens of milliseconds: it starts `nft`.
    ///
    /// # Errors
    /// When the host cannot be read.
    pub fn look_after(&mut self, leave: &[Ours]) -> Result<Looked, HostError> {
        let mut looked = Looked {
            left: self.look()?,
            ..Looked::default()
        };
        let gone = looked.left.iter().filter_map(|trouble| match trouble {
            Trouble::Gone(ours) => Some(ours.clone()),
            Trouble::Shadowed { .. } => None,
        });
        let wanted = gone.filter(|ours| ours.can_be_put_back() && !leave.contains(ours));
        for ours in wanted.collect::<Vec<_>>() {
            match self.put_back(&ours) {
                Ok(()) => looked.put_back.push(ours),
                Err(error) => looked.failed.push((ours, error.to_string())),
            }
        }
        if !looked.put_back.is_empty() {
            looked.left = self.look()?;
        }
        Ok(looked)
    }

    fn look(&self) -> Result<Vec<Trouble>, HostError> {
        let mut netlink = Netlink::open().map_err(HostError::Netlink)?;
        let links = links::list(&mut netlink).map_err(HostError::Netlink)?;
        let mut found = self.missing(&mut netlink, &links)?;
        found.extend(self.shadows(&mut netlink, &links, &found)?);
        Ok(found)
    }

    fn missing(&self, netlink: &mut Netlink, links: &[Link]) -> Result<Vec<Trouble>, HostError> {
        let addresses = address::list_addresses(netlink).map_err(HostError::Netlink)?;
        let routes = address::list_routes(netlink).map_err(HostError::Netlink)?;
        let is_there = |name: &str| self.own_link(links, name).is_some();
        let mut found = Vec::new();
        for ours in self.steps.iter().filter_map(Ours::made_by) {
            if ours.link().is_some_and(|link| !is_there(link)) {
                continue;
            }
            let present = match &ours {
                Ours::Link(name) => is_there(name),
                Ours::Tables => self.tables_are_whole(links)?,
                Ours::Address { link, address } => {
                    addresses.iter().any(|(on, it)| on == link && it == address)
                }
                Ours::Route { range, link, .. } => {
                    (routes.iter()).any(|route| route.link == *link && route.destination == *range)
                }
                Ours::Forwarding(family) => sysctl::read(family.switch())
                    .map(|value| value != "0")
                    .map_err(|e| HostError::sysctl(family.switch(), e))?,
            };
            if !present {
                found.push(Trouble::Gone(ours));
            }
        }
        Ok(found)
    }

    fn own_link<'l>(&self, links: &'l [Link], name: &str) -> Option<&'l Link> {
        let is_ours = |link: &&Link| link.name == name && self.identity().marks(&link.alias);
        links.iter().find(is_ours)
    }

    /// What of others is in the way to the fabric's addresses.
    fn shadows(
        &self,
        netlink: &mut Netlink,
        links: &[Link],
        missing: &[Trouble],
    ) -> Result<Vec<Trouble>, HostError> {
        let addresses = address::list_addresses(netlink).map_err(HostError::Netlink)?;
        let routes = address::list_routes(netlink).map_err(HostError::Netlink)?;
        let mut found = Vec::new();
        for ours in self.steps.iter().filter_map(Ours::made_by) {
            let (link, range) = match &ours {
                Ours::Route { range, link, .. } => (link, *range),
                // The fabric's own link lies within its range.
                Ours::Address { link, address } if !self.is_routed(link) => (link, address.trunc()),
                _ => continue,
            };
            let gone = Trouble::Gone(ours.clone());
            let Some(own) = self
                .own_link(links, link)
                .filter(|_| !missing.contains(&gone))
            else {
                continue;
            };
            let mut by = Vec::new();
            for (part, at) in rivals(range, link, &routes, &addresses) {
                let way = address::way_to(netlink, at).map_err(HostError::Netlink)?;
                if way != Some(own.index) {
                    let name = name_of(links, &addresses, way, part);
                    by.push((part, name));
                }
            }
            found.extend(shadowed(range, by));
        }
        Ok(found)
    }

    fn is_routed(&self, link: &str) -> bool {
        let routed =
            |step: &HostStep| matches!(step, HostStep::Route { link: it, .. } if it == link);
        self.steps.iter().any(routed)
    }

    /// Whether each of our chains has its rules. A tap that is gone has taken its guard with it.
    fn tables_are_whole(&self, links: &[Link]) -> Result<bool, HostError> {
        let present = nft::present_chains()?;
        let guards = self.present_taps(links).into_iter();
        let mut guards = guards.flat_map(|tap| nft::guards_of(&tap, self.egress));
        let mut wanted = self.loaded.iter().map(|(key, rules)| (key.clone(), *rules));
        let is_whole = |(key, rules): ((String, String), usize)| {
            present.get(&key).is_some_and(|it| *it >= rules)
        };
        Ok(wanted.all(is_whole) && guards.all(is_whole))
    }

    fn present_taps(&self, links: &[Link]) -> Vec<String> {
        let taps = self.taps.iter().flat_map(|planned| &planned.taps);
        let there = taps.filter(|tap| self.own_link(links, &tap.name).is_some());
        there.map(|tap| tap.name.clone()).collect()
    }

    fn put_back(&mut self, ours: &Ours) -> Result<(), HostChangeError> {
        let step = self
            .steps
            .iter()
            .find(|step| Ours::made_by(step).as_ref() == Some(ours));
        let step = step.cloned().expect("`ours` was made by a step");
        let done = match &step {
            HostStep::Tables { nat, .. } => self.load_again(nat.as_ref()),
            HostStep::Forwarding(family) => return self.forward_again(*family),
            _ => self.perform(&step),
        };
        done.map_err(|source| HostChangeError::Step {
            step: step.to_string(),
            source,
            left: Vec::new(),
        })
    }

    /// Loads our tables in the place of what is left of them.
    fn load_again(&mut self, nat: Option<&Nat>) -> Result<(), HostError> {
        let mut netlink = Netlink::open().map_err(HostError::Netlink)?;
        let links = links::list(&mut netlink).map_err(HostError::Netlink)?;
        let filter = self.filter.clone().unwrap_or_default();
        let apart = self.kept_apart(&filter)?;
        let owner = self.identity().chain();
        let taps = self.present_taps(&links);
        let create = nft::create_tables(&taps, nat, (&filter, &apart), &owner, self.egress);
        nft::load(&nft::make_again(&nft::present_chains()?, &owner, &create))?;
        self.remember_loaded(&create);
        Ok(())
    }

    /// Switches forwarding on again. On a host that forwarded by itself before the fabric came it is
    /// from now on ours, to be switched off at the end, and for our own link alone.
    fn forward_again(&mut self, family: Family) -> Result<(), HostChangeError> {
        let failed = |source| HostChangeError::Step {
            step: HostStep::Forwarding(family).to_string(),
            source,
            left: Vec::new(),
        };
        let entries = &self.journal.state().entries;
        let switched_on = entries.iter().any(|entry| match &entry.undo {
            Undo::Sysctl { saved, .. } => {
                (saved.first()).is_some_and(|it| it.key == family.switch())
            }
            _ => false,
        });
        if !switched_on && let Some(undo) = undo_of_forwarding(family).map_err(failed)? {
            self.journal.begin(undo)?;
            self.journal.done();
            let nat = self.steps.iter().find_map(|step| match step {
                HostStep::Tables { nat, .. } => Some(*nat),
                _ => None,
            });
            self.load_again(nat.flatten().as_ref()).map_err(failed)?;
        }
        let switch = family.switch();
        sysctl::write(switch, "1").map_err(|error| failed(HostError::sysctl(switch, error)))
    }

    /// Remembers which chains have which rules. Guards come and go with their taps.
    pub(super) fn remember_loaded(&mut self, commands: &serde_json::Value) {
        let mut chains: Chains = nft::chains_of(commands);
        for tap in self.taps.iter().flat_map(|planned| &planned.taps) {
            for guard in nft::guards_of(&tap.name, self.egress).into_keys() {
                chains.remove(&guard);
            }
        }
        // A command that replaces rules leaves the other chains as they are.
        self.loaded.extend(chains);
    }

    /// Opens (`add`) a BMC's port to its segment, or closes (`delete`) it.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn set_bmc_port(&mut self, verb: &str, port: u16) -> Result<(), HostError> {
        nft::load(&nft::bmc_port(verb, port))?;
        if let Some(ipmi) = self.filter.as_mut().and_then(|filter| filter.ipmi.as_mut()) {
            ipmi.ports.retain(|it| *it != port);
            ipmi.ports.extend((verb == "add").then_some(port));
        }
        Ok(())
    }
}

/// The device to name: that of an address of the host's own, which the kernel reaches through `lo`.
fn name_of(
    links: &[Link],
    addresses: &[(String, ipnet::Ipv4Net)],
    way: Option<u32>,
    part: ipnet::Ipv4Net,
) -> String {
    match links.iter().find(|link| Some(link.index) == way) {
        Some(link) if link.name == "lo" => {
            let mut own = addresses.iter();
            let own = own.find(|(_, address)| part.contains(&address.addr()));
            own.map_or(&link.name, |(link, _)| link).clone()
        }
        Some(link) => link.name.clone(),
        None => String::new(),
    }
}

/// One trouble for each device, with the largest part that it takes.
fn shadowed(
    range: ipnet::Ipv4Net,
    by: Vec<(ipnet::Ipv4Net, String)>,
) -> impl Iterator<Item = Trouble> {
    let mut widest = BTreeMap::new();
    for (part, link) in by {
        let known = widest.entry(link).or_insert(part);
        if part.prefix_len() < known.prefix_len() {
            *known = part;
        }
    }
    let trouble = move |(link, part)| Trouble::Shadowed { range, part, link };
    widest.into_iter().map(trouble)
}
