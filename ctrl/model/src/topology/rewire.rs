//! `[[cable]]`: applies the user's own cables, and checks all that is configured of cables.

use std::collections::{BTreeMap, HashMap};

use dataplane::Side;

use super::error::TopologyError;
use super::{Cable, End, EndOwner, LONGEST_NAME, PortKind, Topology};
use crate::config::{CableKeys, Config};
use crate::impairment::{ImpairKeys, Spread};

/// The most mistakes that are reported.
const MOST_ERRORS: usize = 100;

/// Cables and ends by name, so that each of many thousands of `[[cable]]` is found at once.
struct Names {
    cables: HashMap<String, usize>,
    /// By tap and alias.
    ends: HashMap<String, (usize, Side)>,
}

impl Names {
    fn of(topology: &Topology) -> Self {
        let mut names = Names {
            cables: HashMap::new(),
            ends: HashMap::new(),
        };
        for index in 0..topology.cables.len() {
            names.add(topology, index);
        }
        names
    }

    /// Adds a cable. Ends that were another cable's are its own from now on.
    fn add(&mut self, topology: &Topology, index: usize) {
        let cable = &topology.cables[index];
        self.cables.insert(cable.name.clone(), index);
        for (side, end) in cable.ends() {
            if end.owner != EndOwner::Open {
                self.ends.insert(end.tap.clone(), (index, side));
                self.ends.insert(end.alias.clone(), (index, side));
            }
        }
    }

    /// The cable that has this name, or an end of this name; as [`Topology::cable`] finds it.
    fn cable(&self, name: &str) -> Option<usize> {
        let end = || self.ends.get(name).map(|(index, _)| *index);
        self.cables.get(name).copied().or_else(end)
    }
}

/// Creates the cables that have `ends`. Each takes its two ports from the cables that had them;
/// those are left with one end, or disappear if they lose both.
pub(super) fn rewire(topology: &mut Topology, config: &Config, errors: &mut Vec<TopologyError>) {
    let mut number = 0;
    let mut names = Names::of(topology);
    for (index, keys) in config.cable.iter().enumerate() {
        let Some([a, b]) = &keys.ends else {
            continue;
        };
        if errors.len() >= MOST_ERRORS {
            break;
        }
        number += 1;
        let name = keys.name.clone();
        let name = name.unwrap_or_else(|| format!("ikcb{number}"));
        let found = (
            movable(topology, &names, a).map_err(|what| (format!("cable[{index}].ends[0]"), what)),
            movable(topology, &names, b).map_err(|what| (format!("cable[{index}].ends[1]"), what)),
            new_name(topology, &names, &name)
                .map_err(|what| (format!("cable[{index}].name"), what)),
        );
        match found {
            (Ok(a), Ok(b), Ok(())) if a.0 == b.0 => errors.push(TopologyError::Cable {
                key: format!("cable[{index}].ends"),
                what: format!(
                    "{} joins these two already; configure it with name = \"{}\"",
                    topology.cables[a.0].name, topology.cables[a.0].name
                ),
            }),
            (Ok(a), Ok(b), Ok(())) => {
                join(topology, name, a, b);
                names.add(topology, topology.cables.len() - 1);
            }
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
fn movable(topology: &Topology, names: &Names, name: &str) -> Result<(usize, Side), String> {
    let Some(&(index, side)) = names.ends.get(name) else {
        let unknown = topology.end(name).err();
        return Err(unknown.map_or_else(|| format!("{name} is no port"), |error| error.to_string()));
    };
    let found = &topology.cables[index];
    let end = found.end(side);
    let port = topology.port(end);
    let of_a_server = matches!(end.owner, EndOwner::Server { .. })
        || port.is_some_and(|port| matches!(port.kind, PortKind::Server { .. }));
    let cable = &found.name;
    if found.own {
        Err(format!(
            "{name} is an end of {cable} already: a port has one cable"
        ))
    } else if of_a_server {
        Ok((index, side))
    } else {
        Err(format!(
            "{name} is an end of {cable}, which the fabric needs; only ends of cables between a \
             leaf and a server can go to another cable"
        ))
    }
}

fn new_name(topology: &Topology, names: &Names, name: &str) -> Result<(), String> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    let first = name.starts_with(|first: char| first.is_ascii_alphabetic());
    if name.len() > LONGEST_NAME || !first || !name.chars().all(plain) {
        return Err(format!(
            "\"{name}\" is not a name for a cable: it takes up to {LONGEST_NAME} letters, digits, \
             \"_\" and \"-\", a letter first"
        ));
    }
    match names.cable(name) {
        Some(index) => Err(format!(
            "\"{name}\" is what {} is called by already; choose another name",
            topology.cables[index].name
        )),
        None => Ok(()),
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
    let names = Names::of(topology);
    for (index, keys) in config.cable.iter().enumerate() {
        if errors.len() >= MOST_ERRORS {
            return;
        }
        let mut wrong = |key: &str, what: String| {
            let key = format!("cable[{index}].{key}");
            errors.push(TopologyError::Cable { key, what });
        };
        let Some(at) = names.cable(keys.called()) else {
            // Unknown ends were reported above.
            if keys.ends.is_none()
                && let Err(error) = topology.cable(keys.called())
            {
                wrong("name", error.to_string());
            }
            continue;
        };
        let cable = &topology.cables[at];
        let from = keys.from.as_deref();
        let only = match from.map(|from| names.ends.get(from).ok_or(from)) {
            Some(Ok((index, side))) if *index == at => Some(*side),
            Some(Ok((index, side))) => {
                let end = topology.cables[*index].end(*side);
                let what = format!(
                    "{} is not an end of {}: its ends are {} ({}) and {} ({})",
                    end.alias, cable.name, cable.a.tap, cable.a.alias, cable.b.tap, cable.b.alias
                );
                wrong("from", what);
                continue;
            }
            Some(Err(from)) => {
                if let Err(error) = topology.end(from) {
                    wrong("from", error.to_string());
                }
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
