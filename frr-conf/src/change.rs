//! Leads a running switch from one configuration to another without a boot.
//!
//! The commands follow from the two sets of rendered files, compared line by line. A template line
//! that this module does not know therefore makes the change impossible, never incomplete.

mod frr;
mod network;

use crate::check::RenderError;
use crate::conf::{Nic, SwitchConf};
use crate::names::{IfName, Mac};
use crate::render::{File, render};

/// The steps that lead a running switch from one configuration to another, in the order of the
/// fields. The caller also replaces the switch's files ([`render`]), so that a daemon that dies
/// starts again with the new ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// NICs to plug in before the other steps, and the names they get.
    pub plugged: Vec<(Mac, IfName)>,
    /// Lines for one `ip -batch`.
    pub network: Vec<String>,
    /// Lines for vtysh after `configure terminal`. They do not touch sessions that stay.
    pub frr: Vec<String>,
    /// Whether dnsmasq must restart: it reads its file only when it starts.
    pub restart_dnsmasq: bool,
    /// NICs to unplug: after the steps above, nothing uses them.
    pub unplugged: Vec<IfName>,
    /// Lines for vtysh once those NICs are gone: FRR forgets an interface only then.
    pub frr_afterwards: Vec<String>,
}

/// Why a running switch cannot change to another configuration without a boot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unchangeable {
    /// One of the two configurations cannot be rendered.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// A NIC that stays would get another name or MAC address.
    #[error("{0} is another network card than before: only the last ones can come and go")]
    Nic(IfName),
    /// A changed line that a switch reads only at boot.
    #[error("\"{line}\" in {file} takes effect only at a start")]
    Line {
        /// Path from the root, without a leading slash.
        file: &'static str,
        /// The line, from the old or the new file.
        line: String,
    },
}

/// Decides whether a running switch can change from `old` to `new`, and how.
///
/// NICs can be added and removed at the end of the list. Neighbours, VLAN networks, other switches
/// and what DHCP hands out can change with or without them.
///
/// # Errors
/// [`Unchangeable`] names the first difference that takes effect only at boot.
pub fn change(old: &SwitchConf, new: &SwitchConf) -> Result<Change, Unchangeable> {
    let (before, after) = (render(old)?, render(new)?);
    let kept = old.nics.len().min(new.nics.len());
    for (old, new) in old.nics.iter().zip(&new.nics) {
        if (old.mac, &old.name) != (new.mac, &new.name) {
            return Err(Unchangeable::Nic(new.name.clone()));
        }
    }
    let gone = &old.nics[kept..];
    for file in ["etc/hostname", "etc/ikv/sysctl.conf", "etc/frr/vtysh.conf"] {
        let changed = difference(text(&before, file), text(&after, file));
        if let Some(line) = changed.removed.iter().chain(&changed.added).next() {
            return Err(at_start(file, line));
        }
    }
    let network = network::change(
        &difference(
            text(&before, "etc/ikv/network.batch"),
            text(&after, "etc/ikv/network.batch"),
        ),
        gone,
    )?;
    let frr = frr::change(
        text(&before, "etc/frr/frr.conf"),
        text(&after, "etc/frr/frr.conf"),
    )?;
    let named = |nic: &Nic| (nic.mac, nic.name.clone());
    Ok(Change {
        plugged: new.nics[kept..].iter().map(named).collect(),
        network,
        frr: frr.now,
        restart_dnsmasq: text(&before, "etc/dnsmasq.conf") != text(&after, "etc/dnsmasq.conf"),
        unplugged: gone.iter().map(|nic| nic.name.clone()).collect(),
        frr_afterwards: frr.afterwards,
    })
}

/// The file's content; empty for a file that the switch does not have (dnsmasq.conf).
fn text<'a>(files: &'a [File], path: &str) -> &'a str {
    let found = files.iter().find(|file| file.path == path);
    found.map_or("", |file| &file.content)
}

fn at_start(file: &'static str, line: &str) -> Unchangeable {
    Unchangeable::Line {
        file,
        line: line.trim().to_owned(),
    }
}

/// The items that only one of two lists has, each in its list's order.
struct Difference<T> {
    removed: Vec<T>,
    added: Vec<T>,
}

fn difference<'a>(before: &'a str, after: &'a str) -> Difference<&'a str> {
    Difference::of(before.lines().collect(), after.lines().collect())
}

impl<T: Eq + std::hash::Hash + Clone> Difference<T> {
    fn of(before: Vec<T>, after: Vec<T>) -> Self {
        let without = |these: Vec<T>, those: &[T]| {
            let those: std::collections::HashSet<T> = those.iter().cloned().collect();
            (these.into_iter())
                .filter(|item| !those.contains(item))
                .collect()
        };
        Self {
            removed: without(before.clone(), &after),
            added: without(after, &before),
        }
    }
}
