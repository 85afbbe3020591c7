//! Finding a cable, an end or a switch by what a person calls it.

use super::{Cable, End, Switch, Topology};
use crate::config::distance;

/// No such thing in the datacenter; says what is near.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {what} \"{name}\" in this fabric; {}", hint(.near, .example))]
pub struct UnknownName {
    /// `cable`, `port`, `switch`.
    what: &'static str,
    /// As typed.
    name: String,
    /// What has a like name, nearest first.
    near: Vec<String>,
    /// How such names look.
    example: String,
}

fn hint(near: &[String], example: &str) -> String {
    match near {
        [] => format!("names look like {example}; `ikv-fabric topology` prints them all"),
        near => format!("did you mean {}?", near.join(" or ")),
    }
}

/// Which end of a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// [`Cable::a`].
    A,
    /// [`Cable::b`].
    B,
}

/// An end and the cable it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndRef<'t> {
    /// Index into [`Topology::cables`].
    pub index: usize,
    /// The cable.
    pub cable: &'t Cable,
    /// Which end of it.
    pub side: Side,
    /// The end.
    pub end: &'t End,
}

impl Cable {
    /// Both ends, `a` first.
    pub fn ends(&self) -> [(Side, &End); 2] {
        [(Side::A, &self.a), (Side::B, &self.b)]
    }
}

impl Topology {
    /// All ends of all cables.
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
    /// [`UnknownName`] with near names.
    pub fn cable(&self, name: &str) -> Result<&Cable, UnknownName> {
        if let Some(cable) = self.cables.iter().find(|cable| cable.name == name) {
            return Ok(cable);
        }
        self.end(name)
            .map(|found| found.cable)
            .map_err(|mut unknown| {
                unknown.what = "cable";
                let names = self.cables.iter().map(|cable| cable.name.as_str());
                unknown.near = near(name, names.chain(self.end_names()));
                unknown.example = self
                    .cables
                    .last()
                    .map(|cable| cable.name.clone())
                    .unwrap_or_default();
                unknown
            })
    }

    /// An end by its tap name or alias.
    ///
    /// # Errors
    /// [`UnknownName`] with near names.
    pub fn end(&self, name: &str) -> Result<EndRef<'_>, UnknownName> {
        let known = |found: &EndRef<'_>| found.end.tap == name || found.end.alias == name;
        self.ends().find(known).ok_or_else(|| UnknownName {
            what: "port",
            name: name.to_owned(),
            near: near(name, self.end_names()),
            example: "spine1:2, leaf1:u3, rack1:u3:1".into(),
        })
    }

    /// A switch by its name.
    ///
    /// # Errors
    /// [`UnknownName`] with near names.
    pub fn switch(&self, name: &str) -> Result<&Switch, UnknownName> {
        self.switches
            .iter()
            .find(|switch| switch.name == name)
            .ok_or_else(|| UnknownName {
                what: "switch",
                name: name.to_owned(),
                near: near(
                    name,
                    self.switches.iter().map(|switch| switch.name.as_str()),
                ),
                example: "internet, spine1, leaf1".into(),
            })
    }

    fn end_names(&self) -> impl Iterator<Item = &str> {
        self.ends()
            .flat_map(|found| [found.end.tap.as_str(), found.end.alias.as_str()])
    }
}

/// At most three names at the least distance, if that is at most 2 letters.
fn near<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Vec<String> {
    let lower = name.to_lowercase();
    let mut found: Vec<_> = known
        .map(|known| (distance(&lower, known), known))
        .filter(|(far, _)| *far <= 2)
        .collect();
    found.sort_by_key(|(far, _)| *far);
    let least = found.first().map_or(0, |(far, _)| *far);
    let nearest = found.into_iter().take_while(|(far, _)| *far == least);
    nearest.take(3).map(|(_, known)| known.to_owned()).collect()
}
