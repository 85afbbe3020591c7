//! Chooses the positions for the hosts; a function of its input.

use std::collections::BTreeSet;

use anyhow::bail;

use super::report::Skipped;
use api::Position;
use model::cable_change::CableState;
use model::plugging::PlugKind;

/// The NIC that a host has: the one to which the odd leaf gives DHCP leases, without a VLAN tag.
const NIC: u16 = 1;

/// The positions that the user asked for; by default one in each rack.
#[derive(Debug, Clone, Default)]
pub(super) struct ProbedPositions {
    /// Only racks with these numbers; all if empty.
    pub(super) racks: Vec<u16>,
    /// Exactly these positions; if empty, the highest free one of each rack.
    pub(super) positions: Vec<String>,
}

/// The positions for the hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) positions: Vec<Position>,
    pub(super) skipped: Vec<Skipped>,
    /// Requested racks without a free position.
    pub(super) troubles: Vec<String>,
}

/// Chooses among all positions. `running` are the switches that are VMs of this fabric.
///
/// # Errors
/// When a name is unknown, or the fabric has no switch VMs.
pub(super) fn choose(
    positions: &[Position],
    running: &BTreeSet<String>,
    wanted: &ProbedPositions,
) -> anyhow::Result<Choice> {
    if running.is_empty() {
        bail!("this fabric has no switches that could answer: it was started with --switches none");
    }
    let mut choice = Choice::default();
    let served: Vec<_> = positions
        .iter()
        .filter(|position| position.nic == NIC)
        .collect();
    if wanted.positions.is_empty() {
        let all: BTreeSet<_> = served.iter().map(|position| position.rack).collect();
        for rack in &wanted.racks {
            if !all.contains(rack) {
                bail!(
                    "there is no rack{rack} in this fabric: it has {}",
                    all.len()
                );
            }
        }
        let asked = |rack: &u16| wanted.racks.is_empty() || wanted.racks.contains(rack);
        for rack in all.into_iter().filter(asked) {
            choice.one_in(rack, &served, running);
        }
    } else {
        for name in &wanted.positions {
            choice.exactly(name, positions, running)?;
        }
    }
    if choice.positions.is_empty() && choice.troubles.is_empty() {
        choice.troubles.push("no position is free".into());
    }
    Ok(choice)
}

impl Choice {
    /// Takes the highest free position of a rack, because users begin at the lowest.
    fn one_in(&mut self, rack: u16, served: &[&Position], running: &BTreeSet<String>) {
        let here = || served.iter().filter(|position| position.rack == rack).rev();
        let leaf = here().next().map(|position| position.leaf.as_str());
        if let Some(leaf) = leaf.filter(|leaf| !running.contains(*leaf)) {
            self.skip(
                format!("rack{rack}"),
                &format!("{leaf} is not a VM of this fabric"),
            );
            return;
        }
        for position in here() {
            match taken(position) {
                None => return self.positions.push((*position).clone()),
                Some(why) => self.skip(position.rack_and_u(), why),
            }
        }
        self.troubles
            .push(format!("no position of rack{rack} is free"));
    }

    /// Takes the position with this name, unless it is taken.
    fn exactly(
        &mut self,
        name: &str,
        positions: &[Position],
        running: &BTreeSet<String>,
    ) -> anyhow::Result<()> {
        let named = |position: &&Position| {
            let alias = position.rack_and_u();
            position.name == name || alias == name || format!("{alias}:{}", position.nic) == name
        };
        let Some(position) = positions.iter().find(named) else {
            bail!(
                "there is no position \"{name}\" in this fabric; positions look like rack1:u3; \
                 `ikv-fabric topology` prints them all"
            );
        };
        if position.nic != NIC {
            bail!(
                "{name} is NIC {} of {}: a probe is NIC {NIC}, to which the odd leaf gives a lease",
                position.nic,
                position.rack_and_u()
            );
        }
        if self
            .positions
            .iter()
            .any(|other| other.name == position.name)
        {
            return Ok(());
        }
        if !running.contains(&position.leaf) {
            let why = format!("{} is not a VM of this fabric", position.leaf);
            self.skip(position.rack_and_u(), &why);
        } else if let Some(why) = taken(position) {
            self.skip(position.rack_and_u(), why);
        } else {
            self.positions.push(position.clone());
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

/// Why no host can be plugged in at a position; `None` if it is free.
fn taken(position: &Position) -> Option<&'static str> {
    match (position.held, position.cable) {
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

    fn position(rack: u16, u: u16, nic: u16) -> Position {
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
            since_ns: None,
            guest: None,
        }
    }

    fn positions() -> Vec<Position> {
        let all = (1..=3).flat_map(|rack| (3..=6).map(move |u| (rack, u)));
        all.flat_map(|(rack, u)| [position(rack, u, 1), position(rack, u, 2)])
            .collect()
    }

    fn running() -> BTreeSet<String> {
        (1..=6).map(|leaf| format!("leaf{leaf}")).collect()
    }

    fn names(choice: &Choice) -> Vec<&str> {
        choice
            .positions
            .iter()
            .map(|position| &*position.name)
            .collect()
    }

    fn at(positions: &[&str]) -> ProbedPositions {
        ProbedPositions {
            positions: positions.iter().map(ToString::to_string).collect(),
            ..ProbedPositions::default()
        }
    }

    #[test]
    fn the_highest_free_position_of_each_rack() {
        let mut positions = positions();
        for position in &mut positions {
            match (position.rack, position.u) {
                (1, 6) => position.held = Some(PlugKind::Tap),
                (1, 5) => position.cable = CableState::Down,
                (3, _) => position.held = Some(PlugKind::VhostUser),
                _ => {}
            }
        }
        let choice = choose(&positions, &running(), &ProbedPositions::default()).unwrap();
        assert_eq!(names(&choice), ["ikvm1-4-1", "ikvm2-6-1"]);
        let skipped: Vec<_> = choice.skipped.iter().map(|s| &*s.position).collect();
        assert_eq!(skipped[..2], ["rack1:u6", "rack1:u5"]);
        assert_eq!(choice.troubles, ["no position of rack3 is free"]);
    }

    #[test]
    fn racks_without_their_switches_are_left_out() {
        let some: BTreeSet<_> = ["leaf1", "leaf2", "spine1"].map(str::to_owned).into();
        let choice = choose(&positions(), &some, &ProbedPositions::default()).unwrap();
        assert_eq!(names(&choice), ["ikvm1-6-1"]);
        assert!(choice.troubles.is_empty());
        assert_eq!(choice.skipped[1].why, "leaf5 is not a VM of this fabric");
        let none = choose(&positions(), &BTreeSet::new(), &ProbedPositions::default());
        assert!(none.unwrap_err().to_string().contains("--switches none"));
    }

    #[test]
    fn positions_and_racks_by_name() {
        let wanted = at(&["rack1:u3", "ikvm2-4-1", "rack3:u5:1", "rack1:u3:1"]);
        let choice = choose(&positions(), &running(), &wanted).unwrap();
        assert_eq!(names(&choice), ["ikvm1-3-1", "ikvm2-4-1", "ikvm3-5-1"]);
        let wanted = ProbedPositions {
            racks: vec![2],
            ..ProbedPositions::default()
        };
        let choice = choose(&positions(), &running(), &wanted).unwrap();
        assert_eq!(names(&choice), ["ikvm2-6-1"]);
        for (wanted, says) in [
            (at(&["rack1:u9"]), "positions look like rack1:u3"),
            (at(&["rack1:u3:2"]), "NIC 2 of rack1:u3"),
            (
                ProbedPositions {
                    racks: vec![4],
                    ..ProbedPositions::default()
                },
                "there is no rack4",
            ),
        ] {
            let error = choose(&positions(), &running(), &wanted)
                .unwrap_err()
                .to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_taken_position_is_skipped_with_the_reason() {
        let mut positions = positions();
        positions[0].held = Some(PlugKind::Tap);
        let choice = choose(&positions, &running(), &at(&["rack1:u3", "rack2:u3"])).unwrap();
        assert_eq!(names(&choice), ["ikvm2-3-1"]);
        assert_eq!(choice.skipped[0].why, "a VM is plugged in by its tap");
        assert!(choice.troubles.is_empty());
        let choice = choose(&positions, &running(), &at(&["rack1:u3"])).unwrap();
        assert_eq!(choice.troubles, ["no position is free"]);
    }
}
