//! What changes to cables and captures are called in the log: texts that follow from what was before and
//! what is now.

use std::collections::BTreeSet;

use super::log::{EventLog, FABRIC};
use crate::cables::batch::ConditionChange;
use crate::cables::{Cables, Condition};
use crate::occupancy::EndOccupancy;
use api::EventKind;
use api::capture::CaptureStart;
use dataplane::Side;
use model::cable_change::CableState;
use model::topology::End;

/// The most cables that the text about a capture names.
const MOST_NAMED: usize = 5;

impl EventLog {
    /// What a batch has changed.
    pub(crate) fn cables_changed(&self, cables: &Cables, changes: &[ConditionChange]) {
        for change in changes {
            let (name, ends) = (cables.name(change.index), cables.end_names(change.index));
            for (kind, text) in of_change((name, ends), &change.before, &change.now) {
                self.add(kind, name, &text);
            }
        }
    }

    /// A capture has begun.
    pub(crate) fn capture_began(&self, start: &CaptureStart) {
        let lanes = start.interfaces.iter();
        let cables: BTreeSet<_> = lanes.map(|lane| &*lane.cable).collect();
        let (subject, text) = of_capture(&cables);
        self.add(EventKind::Captured, subject, &text);
    }

    /// What is plugged in at an end has changed.
    pub(crate) fn plugging(&self, end: &End, before: EndOccupancy, now: EndOccupancy) {
        let (kind, what) = match (before.is_occupied(), now.is_occupied()) {
            (false, true) if now.front_end => (
                EventKind::Plugged,
                "a vhost-user front end has connected to",
            ),
            (false, true) => (EventKind::Plugged, "a program has opened the tap"),
            (true, false) => (EventKind::Unplugged, "nobody is plugged in any more at"),
            _ => return,
        };
        self.add(kind, &end.alias, &format!("{what} {}", end.tap));
    }
}

fn of_change(
    (name, ends): (&str, [&str; 2]),
    before: &Condition,
    now: &Condition,
) -> Vec<(EventKind, String)> {
    let mut events = Vec::new();
    let opened = before.closed.is_some() && now.closed.is_none();
    if before.state != now.state || opened {
        let text = match now.state {
            CableState::Up => format!("cable {name} passes frames again"),
            CableState::Down => format!("cable {name} was cut"),
            CableState::Blackhole => {
                format!("cable {name} is a blackhole: its ends keep carrier, and frames vanish")
            }
        };
        events.push((EventKind::Carrier, text));
    }
    let [a, b] = Side::BOTH.map(|side| {
        let keys = [before, now].map(|condition| &condition.impairments[side as usize]);
        (keys[0] != keys[1]).then(|| keys[1].shown().words())
    });
    // Each lane has a seed of its own, which the words leave out.
    if a.is_some() && a == b {
        events.extend(a.map(|words| impaired(&format!("cable {name}, both ways"), &words)));
    } else {
        for (end, words) in ends.into_iter().zip([a, b]) {
            let lane = format!("cable {name}, from {end}");
            events.extend(words.map(|words| impaired(&lane, &words)));
        }
    }
    events
}

fn impaired(what: &str, words: &str) -> (EventKind, String) {
    if words.is_empty() {
        let text = format!("{what}: not impaired any more");
        (EventKind::ImpairmentCleared, text)
    } else {
        (EventKind::Impaired, format!("{what}: {words}"))
    }
}

fn of_capture<'c>(cables: &BTreeSet<&'c str>) -> (&'c str, String) {
    let named: Vec<_> = cables.iter().copied().take(MOST_NAMED).collect();
    match (&named[..], cables.len() - named.len()) {
        ([one], _) => (one, format!("a capture of cable {one} began")),
        (names, more) => {
            let and_more = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let names = names.join(", ");
            (
                FABRIC,
                format!(
                    "a capture of {} cables began: {names}{and_more}",
                    cables.len()
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::impairment::ImpairKeys;

    fn keys(pairs: &[(&str, &str)]) -> ImpairKeys {
        let mut keys = ImpairKeys::default();
        for (key, value) in pairs {
            assert!(keys.set(key, value).unwrap());
        }
        keys
    }

    fn condition(state: CableState, impairments: [&[(&str, &str)]; 2]) -> Condition {
        Condition {
            state,
            impairments: impairments.map(keys),
            closed: None,
        }
    }

    fn events(before: &Condition, now: &Condition) -> Vec<(EventKind, String)> {
        of_change(("iksb12", ["ikst12", "iklt11"]), before, now)
    }

    #[test]
    fn only_what_changes_is_an_event() {
        let up = condition(CableState::Up, [&[]; 2]);
        assert_eq!(events(&up, &up), []);
        let cut = condition(CableState::Down, [&[]; 2]);
        let [(kind, text)] = &events(&up, &cut)[..] else {
            panic!("one event");
        };
        assert_eq!(*kind, EventKind::Carrier);
        assert_eq!(text, "cable iksb12 was cut");
        assert_eq!(events(&cut, &cut), []);
        let closed = Condition {
            closed: Some("a fault".into()),
            ..up.clone()
        };
        let opened = events(&closed, &up);
        assert_eq!(opened[0].1, "cable iksb12 passes frames again");
    }

    #[test]
    fn lanes_are_told_apart_only_if_they_differ() {
        let clean = condition(CableState::Up, [&[]; 2]);
        let [delay, loss] = [("delay", "10ms"), ("loss", "1%")];
        let both = condition(
            CableState::Up,
            [&[delay, ("seed", "1")], &[delay, ("seed", "2")]],
        );
        let said = |before, now| {
            let events = events(before, now);
            events
                .into_iter()
                .map(|(kind, text)| format!("{}: {text}", kind.name()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            said(&clean, &both),
            ["impaired: cable iksb12, both ways: delay 10ms"]
        );
        let one = condition(
            CableState::Up,
            [&[delay, loss, ("seed", "1")], &[delay, ("seed", "2")]],
        );
        assert_eq!(
            said(&both, &one),
            ["impaired: cable iksb12, from ikst12: delay 10ms loss 1%"]
        );
        assert_eq!(
            said(&one, &clean),
            ["impaired: cable iksb12, both ways: not impaired any more"]
        );
    }

    #[test]
    fn a_capture_names_a_few_cables() {
        let of = |names: &[&'static str]| of_capture(&names.iter().copied().collect());
        assert_eq!(
            of(&["iksb12"]),
            ("iksb12", "a capture of cable iksb12 began".into())
        );
        assert_eq!(
            of(&["b", "a"]),
            (FABRIC, "a capture of 2 cables began: a, b".into())
        );
        let many = of(&["a", "b", "c", "d", "e", "f", "g"]).1;
        assert!(many.ends_with(": a, b, c, d, e and 2 more"), "{many}");
    }
}
