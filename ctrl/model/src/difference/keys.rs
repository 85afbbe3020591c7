//! The keys of two configurations that differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::config::Config;

/// The longest value that is shown, in characters.
const SHOWN: usize = 60;

/// A key whose value differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyChange {
    /// As in the file: `topology.num_u`.
    pub key: String,
    /// Its value in the running fabric, as TOML; `None` if it has none. A password is not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// Its value in the requested one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is: Option<String>,
}

/// The keys whose values differ, sorted. A list counts as one value, and so do all cables.
pub(super) fn changed(old: &Config, new: &Config) -> Vec<KeyChange> {
    let (old, new) = (flat(old), flat(new));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let differ = keys
        .into_iter()
        .filter(|key| old.get(*key) != new.get(*key));
    differ
        .map(|key| KeyChange {
            key: key.clone(),
            was: old.get(key).map(|value| shown(key, value)),
            is: new.get(key).map(|value| shown(key, value)),
        })
        .collect()
}

fn shown(key: &str, value: &Value) -> String {
    if key.contains("password") {
        return "(not shown)".into();
    }
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

fn flat(config: &Config) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    // A configuration that TOML cannot represent was refused when it was built.
    let table = Table::try_from(config).unwrap_or_default();
    for (name, value) in table {
        match value {
            Value::Table(inner) => {
                let inner = inner.into_iter();
                values.extend(inner.map(|(key, value)| (format!("{name}.{key}"), value)));
            }
            value => _ = values.insert(name, value),
        }
    }
    values
}

impl fmt::Display for KeyChange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "unset".into());
        write!(
            out,
            "{}: {}, was {}",
            self.key,
            value(&self.is),
            value(&self.was)
        )
    }
}
