//! Finds a cable, an end or a switch by any of its names.

use std::collections::HashSet;

use dataplane::Side;

use super::{Cable, End, EndOwner, Switch, Topology};

/// A name that the datacenter does not have, with the nearest ones that it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {what} \"{name}\" in this fabric; {}", hint(.near, .example))]
pub struct UnknownName {
    /// The kind of name: `cable`, `port`, `switch`.
    what: &'static str,
    /// The name as typed.
    name: String,
    /// Existing names with few differences, the nearest first.
    near: Vec<String>,
    /// An example of such a name.
    example: &'static str,
}

impl UnknownName {
    /// An error for `name`, which is not among `known`. `example` shows how those look.
    pub(crate) fn new<'n>(
        what: &'static str,
        name: &str,
        known: impl Iterator<Item = &'n str>,
        example: &'static str,
    ) -> Self {
        let near = near(name, known);
        Self {
            what,
            name: name.to_owned(),
            near,
            example,
        }
    }
}

fn hint(near: &[String], example: &str) -> String {
    match near {
        [] => format!("names look like {example}; `ikv-fabric topology` prints them all"),
        near => format!("did you mean {}?", near.join(" or ")),
    }
}

/// An end, and the cable it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndRef<'t> {
    /// Index into [`Topology::cables`].
    pub index: usize,
    /// The cable that the end belongs to.
    pub cable: &'t Cable,
    /// Which of its two ends this is.
    pub side: Side,
    /// The end itself.
    pub end: &'t End,
}

impl Cable {
    /// The end at this side.
    pub fn end(&self, side: Side) -> &End {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    /// Both ends: `a`, then `b`.
    pub fn ends(&self) -> [(Side, &End); 2] {
        [(Side::A, &self.a), (Side::B, &self.b)]
    }
}

impl Topology {
    /// Both ends of every cable.
    pub fn ends(&self) -> impl Iterator<Item = EndRef<'_>> {
        self.cables.iter().enumerate().flat_map(|(index, cable)| {
            cable.ends().map(|(side, end)| EndRef {
                index,
                cable,
                side,
                end,
            })
        })
    }

    /// A cable by its name, or by the tap name or alias of either end.
    ///
    /// # Errors
    /// [`UnknownName`], with similar names.
    pub fn cable(&self, name: &str) -> Result<&Cable, UnknownName> {
        let named = |cable: &&Cable| cable.name == name;
        if let Some(cable) = self.cables.iter().find(named) {
            return Ok(cable);
        }
        self.end(name).map(|found| found.cable).map_err(|_| {
            let names = self.cables.iter().map(|cable| cable.name.as_str());
            let known = names.chain(self.end_names());
            UnknownName::new("cable", name, known, "iksb12, ikeb1-3, spine1:2, leaf1:u3")
        })
    }

    /// The cables that a name stands for, by their indices: a cable by any of its names; all cables of
    /// a switch (`spine1`); all cables of both leaves of a rack (`rack1`); those of a server (`rack1:u3`).
    ///
    /// # Errors
    /// [`UnknownName`], with similar names.
    pub fn cables_named(&self, name: &str) -> Result<Vec<usize>, UnknownName> {
        let named = |cable: &Cable| cable.name == name;
        if let Some(index) = self.cables.iter().position(named) {
            return Ok(vec![index]);
        }
        if let Ok(found) = self.end(name) {
            return Ok(vec![found.index]);
        }
        let mut found: Vec<usize> = Vec::new();
        let rack = |switch: &Switch| switch.rack.map(|rack| format!("rack{rack}"));
        for (index, switch) in self.switches.iter().enumerate() {
            if switch.name == name || rack(switch).as_deref() == Some(name) {
                let its =
                    |owner| matches!(owner, EndOwner::Switch { switch, .. } if switch == index);
                let ends = self.connected_ends().filter(|found| its(found.end.owner));
                found.extend(ends.map(|end| end.index));
            }
        }
        let its = |owner| matches!(owner, EndOwner::Server { rack, u, .. } if name == format!("rack{rack}:u{u}"));
        let ends = self.connected_ends().filter(|found| its(found.end.owner));
        found.extend(ends.map(|end| end.index));
        let mut known = HashSet::new();
        found.retain(|index| known.insert(*index));
        if found.is_empty() {
            return Err(self.unknown_cable(name));
        }
        Ok(found)
    }

    fn unknown_cable(&self, name: &str) -> UnknownName {
        let groups = self.switches.iter().map(|switch| switch.name.clone());
        let racks = self.racks.iter().map(|rack| format!("rack{}", rack.number));
        let groups: Vec<_> = groups.chain(racks).collect();
        let names = self.cables.iter().map(|cable| cable.name.as_str());
        let known = names.chain(self.end_names());
        let known = known.chain(groups.iter().map(String::as_str));
        let example = "iksb12, ikeb1-3, spine1:2, leaf1:u3, rack1:u3, spine1";
        UnknownName::new("cable", name, known, example)
    }

    /// An end by its tap name or alias.
    ///
    /// # Errors
    /// [`UnknownName`], with similar names.
    pub fn end(&self, name: &str) -> Result<EndRef<'_>, UnknownName> {
        let known = |found: &EndRef<'_>| found.end.tap == name || found.end.alias == name;
        self.connected_ends().find(known).ok_or_else(|| {
            let example = "ikst12, spine1:2, leaf1:u3, rack1:u3:1";
            UnknownName::new("port", name, self.end_names(), example)
        })
    }

    /// A switch by its exact name.
    ///
    /// # Errors
    /// [`UnknownName`], with similar names.
    pub fn switch(&self, name: &str) -> Result<&Switch, UnknownName> {
        self.switches
            .iter()
            .find(|switch| switch.name == name)
            .ok_or_else(|| {
                let names = self.switches.iter().map(|switch| switch.name.as_str());
                UnknownName::new("switch", name, names, "internet, spine1, leaf1")
            })
    }

    /// All ends except those whose port has moved to another cable.
    fn connected_ends(&self) -> impl Iterator<Item = EndRef<'_>> {
        self.ends()
            .filter(|found| found.end.owner != EndOwner::Open)
    }

    fn end_names(&self) -> impl Iterator<Item = &str> {
        self.connected_ends()
            .flat_map(|found| [found.end.tap.as_str(), found.end.alias.as_str()])
    }
}

/// The names at the smallest edit distance, three at most, if that is 2 letters or fewer.
fn near<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Vec<String> {
    let lower = name.to_lowercase();
    let mut least = 2;
    let mut found: Vec<&str> = Vec::new();
    for known in known {
        let far = strsim::levenshtein(&lower, known);
        if far < least {
            found.clear();
            least = far;
        }
        if far == least && found.len() < 3 && !found.contains(&known) {
            found.push(known);
        }
    }
    found.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::topology::build;

    fn default() -> Topology {
        build(&Config::default()).unwrap()
    }

    #[test]
    fn a_cable_by_its_name_and_by_every_name_of_its_ends() {
        let topology = default();
        for name in ["iksb12", "ikst12", "iklt11", "spine1:2", "leaf1:1"] {
            assert_eq!(topology.cable(name).unwrap().name, "iksb12", "{name}");
        }
        for name in ["ikeb4-9", "ikls4-9", "ikvm2-9-2", "leaf4:u9", "rack2:u9:2"] {
            assert_eq!(topology.cable(name).unwrap().name, "ikeb4-9", "{name}");
        }
        for name in ["ikhb", "ikhn", "host", "ikht", "internet:1"] {
            assert_eq!(topology.cable(name).unwrap().name, "ikhb", "{name}");
        }
    }

    #[test]
    fn switches_racks_and_servers_stand_for_their_cables() {
        let topology = default();
        let names = |name: &str| -> Vec<&str> {
            let found = topology.cables_named(name).unwrap().into_iter();
            found.map(|index| &*topology.cables[index].name).collect()
        };
        assert_eq!(names("iksb12"), ["iksb12"]);
        assert_eq!(names("leaf1:1"), ["iksb12"]);
        assert_eq!(names("rack1:u3:2"), ["ikeb2-3"]);
        assert_eq!(names("rack1:u3"), ["ikeb1-3", "ikeb2-3"]);
        assert_eq!(names("internet"), ["ikhb", "ikib1", "ikib2"]);
        assert_eq!(names("spine2").len(), 7);
        assert_eq!(names("leaf3").len(), 2 + 21);
        assert_eq!(names("rack3").len(), 2 * (2 + 21));
        let unknown = |name: &str| topology.cables_named(name).unwrap_err().to_string();
        assert_eq!(
            unknown("rack9"),
            "there is no cable \"rack9\" in this fabric; did you mean rack1 or rack2 or rack3?"
        );
        assert!(unknown("rack1:u99").starts_with("there is no cable \"rack1:u99\""));
    }

    #[test]
    fn an_end_knows_its_cable_and_side() {
        let topology = default();
        let found = topology.end("leaf1:1").unwrap();
        assert_eq!((found.cable.name.as_str(), found.side), ("iksb12", Side::B));
        assert_eq!(topology.cables[found.index].b, *found.end);
        assert_eq!(topology.end("ikst12").unwrap().side, Side::A);
        assert!(topology.end("iksb12").is_err(), "a cable is not an end");
    }

    #[test]
    fn unknown_names_suggest_near_ones() {
        let topology = default();
        let says = |result: Result<String, UnknownName>| result.unwrap_err().to_string();
        let switch = |name: &str| says(topology.switch(name).map(|found| found.name.clone()));
        let cable = |name: &str| says(topology.cable(name).map(|found| found.name.clone()));
        let end = |name: &str| says(topology.end(name).map(|found| found.end.tap.clone()));
        assert_eq!(
            switch("Leaf3"),
            "there is no switch \"Leaf3\" in this fabric; did you mean leaf3?"
        );
        assert_eq!(
            switch("core"),
            "there is no switch \"core\" in this fabric; names look like internet, spine1, leaf1; \
             `ikv-fabric topology` prints them all"
        );
        assert_eq!(
            cable("iksb18"),
            "there is no cable \"iksb18\" in this fabric; did you mean iksb12 or iksb13 or iksb14?"
        );
        assert_eq!(
            end("ikvm1-3-3"),
            "there is no port \"ikvm1-3-3\" in this fabric; did you mean ikvm1-3-1 or ikvm1-3-2?"
        );
    }
}
