//! Expands steps to a timeline; a function of its input.

use std::collections::{BTreeMap, HashSet};
use std::str::FromStr;
use std::time::Duration;

use super::file::{Flap, Impair, Ramp, Scenario, StepKeys, Targets};
use model::cable_change::{CableChange, CableState, ImpairmentChange};
use model::impairment::{BitRate, ImpairKeys, Percent, Time, ValueError};

/// The most moments of a scenario.
const MOST_MOMENTS: usize = 100_000;

/// The most changes to cables of all moments together, which bounds their memory.
const MOST_CHANGES: usize = 250_000;

/// The time between two values of a ramp that does not give its number of steps.
const RAMP_PAUSE: Duration = Duration::from_millis(100);

/// The cables that a name stands for, by their own names.
pub(super) type Cables = BTreeMap<String, Vec<String>>;

/// The changes of one instant: the fabric applies all of them or none.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Moment {
    /// Since the beginning of the scenario.
    pub(super) at: Duration,
    /// The changes, in the order of the file.
    pub(super) changes: Vec<CableChange>,
    /// The changes in words, for display.
    pub(super) words: Vec<String>,
}

/// All moments in order; changes of the same instant share one.
///
/// # Errors
/// What is wrong with a step, and its number.
pub(super) fn expand(scenario: &Scenario, cables: &Cables) -> Result<Vec<Moment>, String> {
    let mut timeline = Timeline {
        cables,
        moments: BTreeMap::new(),
        changes: 0,
    };
    let mut ended = Duration::ZERO;
    for (index, step) in scenario.step.iter().enumerate() {
        let numbered = |what: String| format!("step {}: {what}", index + 1);
        let begins = match (step.at, step.after) {
            (Some(_), Some(_)) => {
                return Err(numbered("it has both `at` and `after`: keep one".into()));
            }
            (Some(at), None) => at.0,
            (None, after) => ended + after.unwrap_or_default().0,
        };
        ended = timeline.add_repeated(step, begins).map_err(numbered)?;
    }
    Ok(timeline.moments.into_values().collect())
}

/// All names that the steps of a scenario use, each once. Ports that only give a direction are listed apart.
pub(super) fn names(scenario: &Scenario) -> (Vec<String>, Vec<String>) {
    let (mut targets, mut ports) = (Vec::new(), Vec::new());
    let mut note = |target: &Option<Targets>| match target {
        Some(Targets::One(name)) => targets.push(name.clone()),
        Some(Targets::Many(names)) => targets.extend(names.iter().cloned()),
        Some(Targets::This(_)) | None => {}
    };
    for step in &scenario.step {
        [&step.cut, &step.mend, &step.blackhole, &step.clear]
            .into_iter()
            .for_each(&mut note);
        for impair in step.impair.iter().flat_map(|impairs| &impairs.0) {
            note(&impair.on);
            ports.extend(impair.from.clone());
        }
        if let Some(flap) = &step.flap {
            note(&flap.on);
        }
        if let Some(ramp) = &step.ramp {
            note(&ramp.on);
            ports.extend(ramp.from.clone());
        }
    }
    let once = |names: Vec<String>| {
        let mut known = HashSet::new();
        let names = names.into_iter();
        names.filter(|name| known.insert(name.clone())).collect()
    };
    (once(targets), once(ports))
}

/// The key of the cable of `impair CABLE --script` among the names.
pub(super) const THIS: &str = "";

struct Timeline<'c> {
    cables: &'c Cables,
    moments: BTreeMap<Duration, Moment>,
    /// How many changes these have together.
    changes: usize,
}

impl Timeline<'_> {
    /// Adds a step as often as its `times` says. Returns the time of its last change.
    fn add_repeated(&mut self, step: &StepKeys, begins: Duration) -> Result<Duration, String> {
        let (every, times) = match (step.every, step.times) {
            (Some(every), Some(times @ 1..)) if !every.0.is_zero() => (every.0, times),
            (None, None) => (Duration::ZERO, 1),
            _ => {
                return Err("`every` (longer than 0) and `times` (1 or more) go together".into());
            }
        };
        if times as usize > MOST_MOMENTS {
            return Err(format!("{times} times is more than {MOST_MOMENTS}"));
        }
        let mut ended = begins;
        for turn in 0..times {
            let starts = begins + every * turn;
            if starts < ended {
                return Err(format!("it takes longer than {}, its `every`", Time(every)));
            }
            ended = self.add(step, starts)?;
        }
        Ok(ended)
    }

    /// Adds a step once. Returns the time of its last change.
    fn add(&mut self, step: &StepKeys, at: Duration) -> Result<Duration, String> {
        let mut changes = false;
        let states = [
            (&step.cut, CableState::Down),
            (&step.mend, CableState::Up),
            (&step.blackhole, CableState::Blackhole),
        ];
        for (targets, state) in states {
            if let Some(targets) = targets {
                self.set_state(at, Some(targets), state)?;
                changes = true;
            }
        }
        if let Some(targets) = &step.clear {
            self.impair(at, Some(targets), None, true, &ImpairKeys::default())?;
            changes = true;
        }
        for Impair { on, from, keys } in step.impair.iter().flat_map(|impairs| &impairs.0) {
            if keys.is_empty() {
                return Err("impair has no key that says how, such as delay = \"10ms\"".into());
            }
            self.impair(at, on.as_ref(), from.as_ref(), false, keys)?;
            changes = true;
        }
        let mut ended = at;
        if let Some(flap) = &step.flap {
            ended = ended.max(self.flap(flap, at)?);
            changes = true;
        }
        if let Some(ramp) = &step.ramp {
            ended = ended.max(self.ramp(ramp, at)?);
            changes = true;
        }
        if changes {
            Ok(ended)
        } else {
            Err("it does nothing: say cut, mend, blackhole, clear, impair, flap or ramp".into())
        }
    }

    fn flap(&mut self, flap: &Flap, at: Duration) -> Result<Duration, String> {
        let every = flap.every.0;
        let down = flap.down.map_or(every / 2, |down| down.0);
        if down.is_zero() || down >= every || flap.times == 0 {
            return Err(
                "flap: `times` is 1 or more, and `down` longer than 0 and shorter than `every`"
                    .into(),
            );
        }
        if flap.times as usize > MOST_MOMENTS {
            return Err(format!("flap: more than {MOST_MOMENTS} times"));
        }
        let state = if flap.blackhole {
            CableState::Blackhole
        } else {
            CableState::Down
        };
        for turn in 0..flap.times {
            let cut = at + every * turn;
            self.set_state(cut, flap.on.as_ref(), state)?;
            self.set_state(cut + down, flap.on.as_ref(), CableState::Up)?;
        }
        Ok(at + every * (flap.times - 1) + down)
    }

    fn ramp(&mut self, ramp: &Ramp, at: Duration) -> Result<Duration, String> {
        let over = ramp.over.0;
        let by_time = (over.as_nanos() / RAMP_PAUSE.as_nanos()).clamp(1, 1_000) as u32;
        let steps = ramp.steps.unwrap_or(by_time);
        if over.is_zero() || steps == 0 || steps as usize > MOST_MOMENTS {
            return Err(format!(
                "ramp: `over` is longer than 0, and there are 1 to {MOST_MOMENTS} steps"
            ));
        }
        for step in 0..=steps {
            let share = f64::from(step) / f64::from(steps);
            let value = between(&ramp.key, &ramp.start, &ramp.end, share)
                .map_err(|what| format!("ramp: {what}"))?;
            let mut keys = ImpairKeys::default();
            keys.set(&ramp.key, &value)
                .map_err(|error| format!("ramp: {error}"))?;
            let when = at + over.mul_f64(share);
            self.impair(when, ramp.on.as_ref(), ramp.from.as_ref(), false, &keys)?;
        }
        Ok(at + over)
    }

    fn set_state(
        &mut self,
        at: Duration,
        targets: Option<&Targets>,
        state: CableState,
    ) -> Result<(), String> {
        let (names, cables) = self.resolve(targets)?;
        let verb = match state {
            CableState::Down => "cut",
            CableState::Up => "mend",
            CableState::Blackhole => "blackhole",
        };
        let changes = cables.iter().map(|cable| CableChange {
            cable: cable.clone(),
            state: Some(state),
            ..CableChange::default()
        });
        self.put(at, format!("{verb} {names}"), changes.collect())
    }

    fn impair(
        &mut self,
        at: Duration,
        targets: Option<&Targets>,
        from: Option<&String>,
        clear: bool,
        keys: &ImpairKeys,
    ) -> Result<(), String> {
        let (names, cables) = self.resolve(targets)?;
        if let (Some(from), true) = (from, cables.len() > 1) {
            return Err(format!(
                "from = \"{from}\" says which way on one cable, and {names} are {}: write one for each",
                cables.len()
            ));
        }
        let way = from.map_or(String::new(), |from| format!(" from {from}"));
        let words = if clear {
            format!("clear {names}")
        } else {
            format!("impair {names}{way}: {}", keys.words())
        };
        let changes = cables.iter().map(|cable| CableChange {
            cable: cable.clone(),
            impair: Some(ImpairmentChange {
                from: from.cloned(),
                clear,
                set: keys.clone(),
            }),
            ..CableChange::default()
        });
        self.put(at, words, changes.collect())
    }

    /// The targets in words, and the names of their cables, each once.
    fn resolve(&self, targets: Option<&Targets>) -> Result<(String, Vec<String>), String> {
        let names = match targets {
            Some(Targets::One(name)) => vec![name.clone()],
            Some(Targets::Many(names)) => names.clone(),
            Some(Targets::This(false)) => return Err("`false` names no cable".into()),
            Some(Targets::This(true)) | None => vec![THIS.to_owned()],
        };
        let mut found: Vec<String> = Vec::new();
        let mut known = HashSet::new();
        for name in &names {
            let cables = self.cables.get(name).ok_or_else(|| {
                "it names no cable: say on = \"iksb12\" (only the script of `impair CABLE --script` \
                 need not)"
                    .to_owned()
            })?;
            for cable in cables {
                if known.insert(cable) {
                    found.push(cable.clone());
                }
            }
        }
        if found.is_empty() {
            return Err("it names no cable".into());
        }
        let words = if names == [THIS] {
            found.join(", ")
        } else if found.len() > names.len() {
            format!("{} ({} cables)", names.join(", "), found.len())
        } else {
            names.join(", ")
        };
        Ok((words, found))
    }

    fn put(
        &mut self,
        at: Duration,
        words: String,
        changes: Vec<CableChange>,
    ) -> Result<(), String> {
        self.changes += changes.len();
        let moment = self.moments.entry(at).or_insert_with(|| Moment {
            at,
            changes: Vec::new(),
            words: Vec::new(),
        });
        moment.changes.extend(changes);
        moment.words.push(words);
        for (count, most, what) in [
            (self.moments.len(), MOST_MOMENTS, "moments"),
            (self.changes, MOST_CHANGES, "changes to cables"),
        ] {
            if count > most {
                return Err(format!(
                    "up to here, the scenario has more than {most} {what}"
                ));
            }
        }
        Ok(())
    }
}

/// The value of `key` at a `share` (0..=1) of the way from `start` to `end`.
fn between(key: &str, start: &str, end: &str, share: f64) -> Result<String, String> {
    fn both<V: FromStr<Err = ValueError>>(start: &str, end: &str) -> Result<(V, V), String> {
        let parse = |text: &str| text.parse().map_err(|error: ValueError| error.to_string());
        Ok((parse(start)?, parse(end)?))
    }
    let middle = |start: f64, end: f64| start + (end - start) * share;
    match key {
        "delay" | "jitter" => {
            let (start, end) = both::<Time>(start, end)?;
            let nanos = |time: Time| time.0.as_nanos() as f64;
            // Whole microseconds keep the text that shows the value short.
            let micros = (middle(nanos(start), nanos(end)) / 1e3).round() as u64;
            Ok(Time(Duration::from_micros(micros)).to_string())
        }
        "loss" | "duplicate" | "corrupt" | "reorder" => {
            let (start, end) = both::<Percent>(start, end)?;
            let share = middle(start.share(), end.share());
            Ok(Percent::of((share * 1e6).round() / 1e6).to_string())
        }
        "rate" => {
            let (start, end) = both::<BitRate>(start, end)?;
            if start.0 == 0 || end.0 == 0 {
                return Err("a rate begins and ends above 0".into());
            }
            Ok(BitRate(middle(start.0 as f64, end.0 as f64).round() as u64).to_string())
        }
        _ => Err(format!(
            "{key} has no values in between; delay, jitter, loss, duplicate, corrupt, reorder and \
             rate have"
        )),
    }
}
