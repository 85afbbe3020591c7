//! `[[cable]]`: applies the user's own cables, and checks all that is configured of cables.

use dataplane::Side;
use std::collections::BTreeMap;

use super::error::TopologyError;
use super::{Cable, End, EndOwner, LONGEST_NAME, PortKind, Topology};
use crate::config::{CableKeys, Config};
use crate::impairment::{ImpairKeys, Spread};

/// Creates the cables that have `ends`. Each takes its two ports from the cables that had them;
/// those are left with one end, or disappear if they lose both.
pub(super) fn rewire(topology: &mut Topology, config: &Config, errors: &mut Vec<TopologyError>) {
    let mut number = 0;
    for (index, keys) in config.cable.iter().enumerate() {
        let Some([a, b]) = &keys.ends else {
            continue;
        };
        number += 1;
        let name = keys.name.clone();
        let name = name.unwrap_or_else(|| format!("ikcb{number}"));
        let found = (
            movable(topology, a).map_err(|what| (format!("cable[{index}].ends[0]"), what)),
            movable(topology, b).map_err(|what| (format!("cable[{index}].ends[1]"), what)),
            new_name(topology, &name).map_err(|what| (format!("cable[{index}].name"), what)),
        );
        match found {
            (Ok(a), Ok(b), Ok(())) if a.0 == b.0 => errors.push(TopologyError::Cable {
                key: format!("cable[{index}].ends"),
                what: format!(
                    "{} joins these two already; configure it with name = \"{}\"",
                    topology.cables[a.0].name, topology.cables[a.0].name
                ),
            }),
            (Ok(a), Ok(b), Ok(())) => join(topology, name, a, b),
            (a, b, name) => {
                let wrong = [a.err(), b.err(), name.err()].into_iter().flatten();
                errors.extend(wrong.map(|(key, what)| TopologyError::Cable { key, what }));
            }
        }
    }
    let connected = |end: &End| end.owner != EndOwner::Open;
    topology
        .cables
        .retain(|cable| connected(&cable.a) || connected(&cable.b));
}

/// The cable and side of an end, if the end may move to another cable.
fn movable(topology: &Topology, name: &str) -> Result<(usize, Side), String> {
    let found = topology.end(name).map_err(|error| error.to_string())?;
    let port = topology.port(found.end);
    let of_a_server = matches!(found.end.owner, EndOwner::Server { .. })
        || port.is_some_and(|port| matches!(port.kind, PortKind::Server { .. }));
    let cable = &found.cable.name;
    if found.cable.own {
        Err(format!(
            "{name} is an end of {cable} already: a port has one cable"
        ))
    } else if of_a_server {
        Ok((found.index, found.side))
    } else {
        Err(format!(
            "{name} is an end of {cable}, which the fabric needs; only ends of cables between a \
             leaf and a server can go to another cable"
        ))
    }
}

fn new_name(topology: &Topology, name: &str) -> Result<(), String> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    let first = name.starts_with(|first: char| first.is_ascii_alphabetic());
    if name.len() > LONGEST_NAME || !first || !name.chars().all(plain) {
        return Err(format!(
            "\"{name}\" is not a name for a cable: it takes up to {LONGEST_NAME} letters, digits, \
             \"_\" and \"-\", a letter first"
        ));
    }
    match topology.cable(name) {
        Ok(cable) => Err(format!(
            "\"{name}\" is what {} is called by already; choose another name",
            cable.name
        )),
        Err(_) => Ok(()),
    }
}

fn join(topology: &mut Topology, name: String, a: (usize, Side), b: (usize, Side)) {
    let mut take = |(index, side): (usize, Side)| {
        let cable: &mut Cable = &mut topology.cables[index];
        let end = match side {
            Side::A => &mut cable.a,
            Side::B => &mut cable.b,
        };
        let open = End {
            tap: "nothing".into(),
            alias: "nothing".into(),
            owner: EndOwner::Open,
        };
        let end = std::mem::replace(end, open);
        if let EndOwner::Switch { switch, port } = end.owner {
            topology.switches[switch].ports[port]
                .cable
                .clone_from(&name);
        }
        end
    };
    let (a, b) = (take(a), take(b));
    topology.cables.push(Cable {
        name,
        a,
        b,
        own: true,
    });
}

impl CableKeys {
    /// A name by which [`Topology::cable`] finds the cable: its own, or one of its ends.
    pub fn called(&self) -> &str {
        match (&self.ends, &self.name) {
            (Some([end, _]), _) => end,
            (None, name) => name.as_deref().unwrap_or_default(),
        }
    }
}

/// Checks that the named cables and ports exist, and that the keys of each lane are consistent.
pub(super) fn check(topology: &Topology, config: &Config, errors: &mut Vec<TopologyError>) {
    let mut lanes: BTreeMap<(&str, usize), ImpairKeys> = BTreeMap::new();
    for (index, keys) in config.cable.iter().enumerate() {
        let mut wrong = |key: &str, what: String| {
            let key = format!("cable[{index}].{key}");
            errors.push(TopologyError::Cable { key, what });
        };
        let cable = match topology.cable(keys.called()) {
            Ok(cable) => cable,
            // Unknown ends were reported above.
            Err(_) if keys.ends.is_some() => continue,
            Err(error) => {
                wrong("name", error.to_string());
                continue;
            }
        };
        let only = match keys.from.as_deref().map(|from| topology.end(from)) {
            Some(Ok(found)) if found.cable.name == cable.name => Some(found.side),
            Some(Ok(found)) => {
                let what = format!(
                    "{} is not an end of {}: its ends are {} ({}) and {} ({})",
                    found.end.alias,
                    cable.name,
                    cable.a.tap,
                    cable.a.alias,
                    cable.b.tap,
                    cable.b.alias
                );
                wrong("from", what);
                continue;
            }
            Some(Err(error)) => {
                wrong("from", error.to_string());
                continue;
            }
            None => None,
        };
        for side in [Side::A, Side::B] {
            if only.is_some_and(|only| only != side) {
                continue;
            }
            let lane = lanes.entry((&cable.name, side as usize)).or_default();
            *lane = std::mem::take(lane).overlay(without_files(&keys.impair));
            if let Err(error) = lane.settings() {
                wrong(error.key, error.what);
                break; // The other lane has the same keys, most likely.
            }
        }
    }
}

/// Removes the keys that name files, because no file is read here: `run` compiles filters and reads
/// tables.
fn without_files(keys: &ImpairKeys) -> ImpairKeys {
    let mut keys = keys.clone();
    keys.matches = None;
    if let Some(Spread::File(_)) = keys.distribution {
        keys.distribution = Some(Spread::Normal);
    }
    keys
}
