//! Decides when an event leads to a dump: [`Schedule`], a function of events and time.

/// Time from the first event to its dump, in ns, so that the dump shows the consequences too.
const AFTERMATH: u64 = 1_500_000_000;

/// The same after a lost BGP session. Both ends of a switch's sessions count their hold times from their
/// last KEEPALIVE, so that the sessions lost with one switch end up to 5 s apart.
const AFTERMATH_OF_BGP: u64 = 6_000_000_000;

/// The shortest time between two dumps, in ns. Events within it share the next dump.
const SPACING: u64 = 10_000_000_000;

/// The most reasons that a dump lists.
const REASONS: usize = 16;

/// The most cables that a dump names: more than a switch has.
const CABLES: usize = 1024;

/// Events that wait for their dump, and the time of the last one.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// The time when the dump is due, in ns, and its events.
    waiting: Option<(u64, Due)>,
    /// When the last dump was made, in ns.
    made: Option<u64>,
}

/// A dump that must be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    /// The kind of the first event, for the dump's name.
    pub(super) kind: &'static str,
    /// The cables that the events happened on, each once.
    pub(super) cables: Vec<String>,
    /// One sentence for each event.
    pub(super) why: Vec<String>,
}

impl Schedule {
    /// Adds an event on a cable: `kind` is one word, `why` a sentence.
    pub(super) fn add(&mut self, now: u64, kind: &'static str, cable: &str, why: String) {
        let earliest = self.made.map_or(0, |made| made + SPACING);
        let (_, due) = self.waiting.get_or_insert_with(|| {
            let due = Due {
                kind,
                cables: Vec::new(),
                why: Vec::new(),
            };
            let aftermath = match kind {
                "bgp" => AFTERMATH_OF_BGP,
                _ => AFTERMATH,
            };
            ((now + aftermath).max(earliest), due)
        });
        if due.cables.len() < CABLES && !due.cables.iter().any(|known| known == cable) {
            due.cables.push(cable.to_owned());
        }
        if due.why.len() < REASONS && !due.why.contains(&why) {
            due.why.push(why);
        }
    }

    /// The dump that is due at `now`, in ns. `None` if none is.
    pub(super) fn due(&mut self, now: u64) -> Option<Due> {
        let (_, due) = self.waiting.take_if(|(time, _)| *time <= now)?;
        self.made = Some(now);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_together_is_one_dump_and_dumps_are_apart() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.due(0), None);
        schedule.add(100, "down", "x", "a".into());
        schedule.add(200, "bgp", "y", "b".into());
        schedule.add(300, "bgp", "y", "b".into());
        assert_eq!(schedule.due(100 + AFTERMATH - 1), None);
        let made = 100 + AFTERMATH;
        let due = schedule.due(made).unwrap();
        assert_eq!((due.kind, due.why.join(" ").as_str()), ("down", "a b"));
        assert_eq!(due.cables, ["x", "y"]);
        assert_eq!(schedule.due(u64::MAX / 2), None);

        schedule.add(made + 1, "down", "y", "c".into());
        assert_eq!(schedule.due(made + SPACING - 1), None);
        assert_eq!(schedule.due(made + SPACING).unwrap().why, ["c"]);
    }

    #[test]
    fn the_sessions_of_one_switch_share_a_dump() {
        let mut schedule = Schedule::default();
        for (second, cable) in [(16, "a"), (19, "b"), (21, "c")] {
            schedule.add(
                second * 1_000_000_000,
                "bgp",
                cable,
                format!("{cable} lost"),
            );
        }
        assert_eq!(schedule.due(21_900_000_000), None);
        assert_eq!(
            schedule.due(22_000_000_000).unwrap().cables,
            ["a", "b", "c"]
        );
    }
}
