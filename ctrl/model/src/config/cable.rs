//! `[[cable]]`: what a cable is like from the start, and cables of one's own.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::Problem;
use super::keys::{Kind, is_near, shown};
use crate::cable_change::CableState;
use crate::impairment::{ImpairKeys, KEYS};

/// One `[[cable]]`. Several may be of the same cable; later ones win.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CableKeys {
    /// A cable that there is, by its name or either end; with `ends`: what the new one is called,
    /// at most 15 characters. Default with `ends`: `ikcb` and a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Joins two ports by a new cable: ends of cables between leaves and servers, by name or
    /// alias. The cables that had them are left with one end, or are gone where both went.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<String>,
    /// `up`, `down` or `blackhole`. Default: `up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<CableState>,
    /// The impairment is for frames that enter at this port. Default: none, which means both
    /// lanes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What is done to frames: the keys of `ikv-fabric impair`. Default: nothing.
    #[serde(flatten)]
    pub impair: ImpairKeys,
}

/// What the keys take that are not those of an impairment.
pub(super) const OWN_KEYS: &[(&str, Kind)] = &[
    ("name", Kind::Text),
    ("ends", Kind::List(&Kind::Text)),
    ("state", Kind::State),
    ("from", Kind::Text),
];

/// Everything that is wrong with the keys and values of `[[cable]]`.
pub(super) fn problems(value: &Value, found: &mut Vec<Problem>) {
    let mut problem = |key: String, what: String| found.push(Problem { key, what });
    let Value::Array(cables) = value else {
        let what = format!(
            "{} is not a list; write its keys below [[cable]]",
            shown(value)
        );
        return problem("cable".into(), what);
    };
    for (index, cable) in cables.iter().enumerate() {
        let Value::Table(cable) = cable else {
            let what = format!(
                "{} is not a table; write its keys below [[cable]]",
                shown(cable)
            );
            problem(format!("cable[{index}]"), what);
            continue;
        };
        for (key, value) in cable {
            if let Err(what) = check(key, value) {
                problem(format!("cable[{index}].{key}"), what);
            }
        }
        if let Err(what) = check_together(cable) {
            problem(format!("cable[{index}]"), what);
        }
    }
}

fn check(key: &str, value: &Value) -> Result<(), String> {
    if let Some((_, kind)) = OWN_KEYS.iter().find(|(known, _)| *known == key) {
        return kind.check_all(value);
    }
    let text = match value {
        Value::String(text) => text.clone(),
        // A filter that is compiled, or a table that is read: `run` has done it.
        Value::Table(_)
            if Table::from_iter([(key.to_owned(), value.clone())])
                .try_into::<ImpairKeys>()
                .is_ok() =>
        {
            return Ok(());
        }
        Value::Array(_) | Value::Table(_) => {
            return Err(format!("{} is not a single value", shown(value)));
        }
        other => other.to_string(),
    };
    match ImpairKeys::default().set(key, &text) {
        Ok(true) => Ok(()),
        Ok(false) => Err(unknown(key)),
        Err(error) => Err(error.what),
    }
}

fn unknown(key: &str) -> String {
    let known = OWN_KEYS.iter().map(|(known, _)| *known);
    let known: Vec<_> = known.chain(KEYS.iter().map(|key| key.name)).collect();
    match known.iter().find(|known| is_near(key, known)) {
        Some(near) => format!("unknown key; did you mean {near}?"),
        None => format!("unknown key; [[cable]] has {}", known.join(", ")),
    }
}

fn check_together(cable: &Table) -> Result<(), String> {
    match (cable.get("name"), cable.get("ends")) {
        (None, None) => Err(
            "neither name nor ends is there: name = \"iksb12\" changes a cable, ends = \
             [\"leaf1:u3\", \"leaf3:u5\"] makes one"
                .into(),
        ),
        (_, Some(Value::Array(ends))) if ends.len() != 2 => Err(format!(
            "ends names {} ports, a cable has two ends",
            ends.len()
        )),
        _ => Ok(()),
    }
}
