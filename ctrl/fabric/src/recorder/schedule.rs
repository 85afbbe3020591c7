//! When a dump is made of what has happened: [`Schedule`]. A function of events and time.

/// After the first event, so that the dump shows what came of it, ns.
const AFTERMATH: u64 = 1_500_000_000;

/// Between two dumps, at least, ns: whatever happens meanwhile goes into the next one.
const SPACING: u64 = 10_000_000_000;

/// Reasons that a dump tells, at most.
const REASONS: usize = 16;

/// Events that wait for their dump.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// And when it is due.
    waiting: Option<(u64, Due)>,
    made: Option<u64>,
}

/// A dump to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    /// A word for its name.
    pub(super) kind: &'static str,
    /// A sentence for each event.
    pub(super) why: Vec<String>,
}

impl Schedule {
    /// Something has happened.
    pub(super) fn add(&mut self, now: u64, kind: &'static str, why: String) {
        let earliest = self.made.map_or(0, |made| made + SPACING);
        let (_, due) = self.waiting.get_or_insert_with(|| {
            let due = Due {
                kind,
                why: Vec::new(),
            };
            ((now + AFTERMATH).max(earliest), due)
        });
        if due.why.len() < REASONS && !due.why.contains(&why) {
            due.why.push(why);
        }
    }

    /// What is due now.
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
        schedule.add(100, "down", "a".into());
        schedule.add(200, "bgp", "b".into());
        schedule.add(300, "bgp", "b".into());
        assert_eq!(schedule.due(100 + AFTERMATH - 1), None);
        let made = 100 + AFTERMATH;
        let due = schedule.due(made).unwrap();
        assert_eq!((due.kind, due.why.join(" ").as_str()), ("down", "a b"));
        assert_eq!(schedule.due(u64::MAX / 2), None);

        schedule.add(made + 1, "bgp", "c".into());
        assert_eq!(schedule.due(made + SPACING - 1), None);
        assert_eq!(schedule.due(made + SPACING).unwrap().why, ["c"]);
    }
}
