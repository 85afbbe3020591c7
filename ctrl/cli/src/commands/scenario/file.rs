//! A scenario as written: a TOML file of timed steps. `ikv-fabric scenario --help` describes its
//! keys (`FORMAT` in the parent module).

use serde::Deserialize;
use toml::{Table, Value};

use model::impairment::{ImpairKeys, KEYS, Time};

/// The most steps of a scenario.
const MOST_STEPS: usize = 10_000;

/// A scenario: its steps, and whether it restores the cables.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    /// Whether states and impairments are restored at the end.
    #[serde(default = "yes")]
    pub(super) restore: bool,
    /// The steps, in the order of the file.
    #[serde(default)]
    pub(super) step: Vec<StepKeys>,
}

fn yes() -> bool {
    true
}

/// A step. Its times say when; each of the other keys changes cables.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct StepKeys {
    pub(super) at: Option<Time>,
    pub(super) after: Option<Time>,
    pub(super) every: Option<Time>,
    pub(super) times: Option<u32>,
    pub(super) cut: Option<Targets>,
    pub(super) mend: Option<Targets>,
    pub(super) blackhole: Option<Targets>,
    pub(super) clear: Option<Targets>,
    pub(super) impair: Option<Impairs>,
    pub(super) flap: Option<Flap>,
    pub(super) ramp: Option<Ramp>,
}

/// Names of cables, ports, switches and racks.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a name or a list of names, such as [\"spine1\", \"iksb23\"]"
)]
pub(super) enum Targets {
    /// `true` stands for the one cable of `impair CABLE --script`.
    This(bool),
    One(String),
    Many(Vec<String>),
}

/// One table of impairment keys, or a list of them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub(super) struct Impairs(pub(super) Vec<Impair>);

impl TryFrom<Value> for Impairs {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let one = |value| match value {
            Value::Table(table) => Impair::try_from(table),
            other => Err(format!(
                "{other} is not keys in braces, such as {{ on = \"iksb12\", delay = \"10ms\" }}"
            )),
        };
        match value {
            Value::Array(many) => many.into_iter().map(one).collect::<Result<_, _>>(),
            value => one(value).map(|one| vec![one]),
        }
        .map(Impairs)
    }
}

/// Impairment keys for cables, in one direction or both.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Table")]
pub(super) struct Impair {
    pub(super) on: Option<Targets>,
    pub(super) from: Option<String>,
    pub(super) keys: ImpairKeys,
}

impl TryFrom<Table> for Impair {
    type Error = String;

    fn try_from(table: Table) -> Result<Self, String> {
        let mut impair = Impair {
            on: None,
            from: None,
            keys: ImpairKeys::default(),
        };
        for (key, value) in table {
            match (key.as_str(), value) {
                ("on", value) => {
                    let targets = value.try_into::<Targets>();
                    impair.on = Some(targets.map_err(|error| error.message().to_owned())?);
                }
                ("from", Value::String(port)) => impair.from = Some(port),
                ("from", value) => return Err(format!("from: {value} is not the name of a port")),
                (key, value) => set(&mut impair.keys, key, &value)?,
            }
        }
        Ok(impair)
    }
}

/// Sets one key of an impairment from a TOML file.
fn set(keys: &mut ImpairKeys, key: &str, value: &Value) -> Result<(), String> {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match keys.set(key, &text) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let known: Vec<_> = KEYS.iter().map(|key| key.name).collect();
            Err(format!(
                "unknown key {key}; the keys are on, from, {}",
                known.join(", ")
            ))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Cuts cables and mends them again.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flap {
    pub(super) on: Option<Targets>,
    pub(super) times: u32,
    /// The time from one cut to the next.
    pub(super) every: Time,
    /// How long a cable stays cut; half of `every` by default.
    pub(super) down: Option<Time>,
    /// Whether the ends keep their carrier while the cable swallows frames.
    #[serde(default)]
    pub(super) blackhole: bool,
}

/// Changes a key in steps from one value to another.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ramp {
    pub(super) on: Option<Targets>,
    pub(super) from: Option<String>,
    pub(super) key: String,
    pub(super) start: String,
    pub(super) end: String,
    pub(super) over: Time,
    /// The number of steps; by default one every 100 ms.
    pub(super) steps: Option<u32>,
}

/// Reads a scenario; `path` is what messages call it.
pub(super) fn parse(path: &str, text: &str) -> anyhow::Result<Scenario> {
    let scenario: Scenario = toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.get(..start).unwrap_or(text).matches('\n').count() + 1;
        anyhow::anyhow!("{path}, line {line}: {}", error.message())
    })?;
    anyhow::ensure!(
        !scenario.step.is_empty(),
        "{path} has no step: write [[step]], when (at = \"5s\"), and what (cut = \"spine1\")"
    );
    anyhow::ensure!(
        scenario.step.len() <= MOST_STEPS,
        "{path} has {} steps, the most are {MOST_STEPS}: `every` and `times` repeat one",
        scenario.step.len()
    );
    Ok(scenario)
}
