//! From one configuration of a running switch to another, without a restart.
//!
//! What to do follows from the two sets of rendered files, line by line: so a line of a template
//! that nobody thought of here makes the change impossible, never incomplete.

mod frr;
mod network;

use crate::check::RenderError;
use crate::conf::{Nic, SwitchConf};
use crate::names::{IfName, Mac};
use crate::render::{File, render};

/// What brings a running switch from one configuration to another, in the order of the fields.
/// Its files have to be replaced besides ([`render`]), so that a daemon that dies comes back
/// with the new ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// NICs that must be there before all else, and the names they get.
    pub plugged: Vec<(Mac, IfName)>,
    /// Lines for one `ip -batch`.
    pub network: Vec<String>,
    /// Lines for vtysh, from `configure terminal` on. Sessions that stay are not touched.
    pub frr: Vec<String>,
    /// dnsmasq reads its file only when it starts.
    pub restart_dnsmasq: bool,
    /// NICs to take away now; nothing uses them any more.
    pub unplugged: Vec<IfName>,
    /// Lines for vtysh once they are gone: only then does FRR forget an interface.
    pub frr_afterwards: Vec<String>,
}

/// Why a switch must be started again to become another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unchangeable {
    /// One of the configurations cannot be.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// A NIC that is neither new nor gone is another one.
    #[error("{0} is another network card than before: only the last ones can come and go")]
    Nic(IfName),
    /// A line of a file that counts only at a start.
    #[error("\"{line}\" in {file} takes effect only at a start")]
    Line {
        /// Path from the root, without a leading slash.
        file: &'static str,
        /// The line, of the old or of the new file.
        line: String,
    },
}

/// Decides whether a running `old` can become `new`, and how.
///
/// NICs can come and go at the end of the list; with them, or without, neighbours, VLAN
/// networks, other switches and what DHCP hands out.
///
/// # Errors
/// The first thing that only a start can change.
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

/// Nothing, for a file that is not there.
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

/// What two sets have not in common, each in its own order.
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
