//! Chooses the positions for the hosts; a function of its input.

use std::collections::BTreeSet;

use anyhow::bail;

use super::report::Skipped;
use api::Position;
use model::cable_change::CableState;
use model::plugging::PlugKind;

/// The NIC that a host has: untagged, the odd leaf serves DHCP on it.
const NIC: u16 = 1;

/// The hosts that the user asked for; none: one in each rack.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    /// Only racks with these numbers; empty: all.
    pub(super) racks: Vec<u16>,
    /// Exactly these positions.
    pub(super) positions: Vec<String>,
}

/// The positions for the hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) places: Vec<Position>,
    pub(super) skipped: Vec<Skipped>,
    /// Racks that were asked for and have no free position.
    pub(super) troubles: Vec<String>,
}

/// Chooses among all places. `running` are the switches that are VMs of this fabric.
pub(super) fn choose(
    places: &[Position],
    running: &BTreeSet<String>,
    wish: &Wish,
) -> anyhow::Result<Choice> {
    if running.is_empty() {
        bail!("this fabric has no switches that could answer: it was started with --switches none");
    }
    let mut choice = Choice::default();
    let served: Vec<_> = places.iter().filter(|place| place.nic == NIC).collect();
    if wish.positions.is_empty() {
        let all: BTreeSet<_> = served.iter().map(|place| place.rack).collect();
        for rack in &wish.racks {
            if !all.contains(rack) {
                bail!(
                    "there is no rack{rack} in this fabric: it has {}",
                    all.len()
                );
            }
        }
        let wanted = |rack: &u16| wish.racks.is_empty() || wish.racks.contains(rack);
        for rack in all.into_iter().filter(wanted) {
            choice.one_in(rack, &served, running);
        }
    } else {
        for name in &wish.positions {
            choice.exactly(name, places, running)?;
        }
    }
    if choice.places.is_empty() && choice.troubles.is_empty() {
        choice.troubles.push("no position is free".into());
    }
    Ok(choice)
}

impl Choice {
    /// The highest free position, because users begin at the lowest.
    fn one_in(&mut self, rack: u16, served: &[&Position], running: &BTreeSet<String>) {
        let here = || served.iter().filter(|place| place.rack == rack).rev();
        let leaf = here().next().map(|place| place.leaf.as_str());
        if let Some(leaf) = leaf.filter(|leaf| !running.contains(*leaf)) {
            self.skip(
                format!("rack{rack}"),
                &format!("{leaf} is not a VM of this fabric"),
            );
            return;
        }
        for place in here() {
            match taken(place) {
                None => return self.places.push((*place).clone()),
                Some(why) => self.skip(place.rack_and_u(), why),
            }
        }
        self.troubles
            .push(format!("no position of rack{rack} is free"));
    }

    fn exactly(
        &mut self,
        name: &str,
        places: &[Position],
        running: &BTreeSet<String>,
    ) -> anyhow::Result<()> {
        let named = |place: &&Position| {
            let position = place.rack_and_u();
            place.name == name || position == name || format!("{position}:{}", place.nic) == name
        };
        let Some(place) = places.iter().find(named) else {
            bail!(
                "there is no position \"{name}\" in this fabric; positions look like rack1:u3; \
                 `ikv-fabric topology` prints them all"
            );
        };
        if place.nic != NIC {
            bail!(
                "{name} is NIC {} of {}: a probe is NIC {NIC}, to which the odd leaf gives a lease",
                place.nic,
                place.rack_and_u()
            );
        }
        if self.places.iter().any(|other| other.name == place.name) {
            return Ok(());
        }
        if !running.contains(&place.leaf) {
            let why = format!("{} is not a VM of this fabric", place.leaf);
            self.skip(place.rack_and_u(), &why);
        } else if let Some(why) = taken(place) {
            self.skip(place.rack_and_u(), why);
        } else {
            self.places.push(place.clone());
        }
        Ok(())
    }

    fn skip(&mut self, position: String, why: &str) {
        self.skipped.push(Skipped {
            position,
            why: why.to_owned(),
        });
    }
}

fn taken(place: &Position) -> Option<&'static str> {
    match (place.held, place.cable) {
        (Some(PlugKind::Tap), _) => Some("a VM is plugged in by its tap"),
        (Some(PlugKind::VhostUser), _) => Some("a VM is plugged in by its vhost-user socket"),
        (None, CableState::Down) => Some("its cable is down"),
        (None, CableState::Blackhole) => Some("its cable is a blackhole"),
        (None, CableState::Up) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(rack: u16, u: u16, nic: u16) -> Position {
        Position {
            name: format!("ikvm{rack}-{u}-{nic}"),
            rack,
            u,
            nic,
            leaf: format!("leaf{}", 2 * rack - 2 + nic),
            mac: format!("02:69:6b:{rack:02x}:{u:02x}:{nic:02x}"),
            socket: "/run/x.sock".into(),
            cable: CableState::Up,
            held: None,
        }
    }

    fn places() -> Vec<Position> {
        let all = (1..=3).flat_map(|rack| (3..=6).map(move |u| (rack, u)));
        all.flat_map(|(rack, u)| [place(rack, u, 1), place(rack, u, 2)])
            .collect()
    }

    fn running() -> BTreeSet<String> {
        (1..=6).map(|leaf| format!("leaf{leaf}")).collect()
    }

    fn names(choice: &Choice) -> Vec<&str> {
        choice.places.iter().map(|place| &*place.name).collect()
    }

    fn at(positions: &[&str]) -> Wish {
        Wish {
            positions: positions.iter().map(ToString::to_string).collect(),
            ..Wish::default()
        }
    }

    #[test]
    fn the_highest_free_position_of_each_rack() {
        let mut places = places();
        for place in &mut places {
            match (place.rack, place.u) {
                (1, 6) => place.held = Some(PlugKind::Tap),
                (1, 5) => place.cable = CableState::Down,
                (3, _) => place.held = Some(PlugKind::VhostUser),
                _ => {}
            }
        }
        let choice = choose(&places, &running(), &Wish::default()).unwrap();
        assert_eq!(names(&choice), ["ikvm1-4-1", "ikvm2-6-1"]);
        let skipped: Vec<_> = choice.skipped.iter().map(|s| &*s.position).collect();
        assert_eq!(skipped[..2], ["rack1:u6", "rack1:u5"]);
        assert_eq!(choice.troubles, ["no position of rack3 is free"]);
    }

    #[test]
    fn racks_without_their_switches_are_left_out() {
        let some: BTreeSet<_> = ["leaf1", "leaf2", "spine1"].map(str::to_owned).into();
        let choice = choose(&places(), &some, &Wish::default()).unwrap();
        assert_eq!(names(&choice), ["ikvm1-6-1"]);
        assert!(choice.troubles.is_empty());
        assert_eq!(choice.skipped[1].why, "leaf5 is not a VM of this fabric");
        let none = choose(&places(), &BTreeSet::new(), &Wish::default());
        assert!(none.unwrap_err().to_string().contains("--switches none"));
    }

    #[test]
    fn positions_and_racks_by_name() {
        let wish = at(&["rack1:u3", "ikvm2-4-1", "rack3:u5:1", "rack1:u3:1"]);
        let choice = choose(&places(), &running(), &wish).unwrap();
        assert_eq!(names(&choice), ["ikvm1-3-1", "ikvm2-4-1", "ikvm3-5-1"]);
        let wish = Wish {
            racks: vec![2],
            ..Wish::default()
        };
        let choice = choose(&places(), &running(), &wish).unwrap();
        assert_eq!(names(&choice), ["ikvm2-6-1"]);
        for (wish, says) in [
            (at(&["rack1:u9"]), "positions look like rack1:u3"),
            (at(&["rack1:u3:2"]), "NIC 2 of rack1:u3"),
            (
                Wish {
                    racks: vec![4],
                    ..Wish::default()
                },
                "there is no rack4",
            ),
        ] {
            let error = choose(&places(), &running(), &wish)
                .unwrap_err()
                .to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_taken_position_is_skipped_with_a_word() {
        let mut places = places();
        places[0].held = Some(PlugKind::Tap);
        let choice = choose(&places, &running(), &at(&["rack1:u3", "rack2:u3"])).unwrap();
        assert_eq!(names(&choice), ["ikvm2-3-1"]);
        assert_eq!(choice.skipped[0].why, "a VM is plugged in by its tap");
        assert!(choice.troubles.is_empty());
        let choice = choose(&places, &running(), &at(&["rack1:u3"])).unwrap();
        assert_eq!(choice.troubles, ["no position is free"]);
    }
}
