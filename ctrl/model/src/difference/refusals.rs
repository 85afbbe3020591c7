//! The changes that a running fabric cannot make.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::FabricPlan;
use crate::config::{self, Config};

/// A key whose value cannot change while the fabric runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The key as in the file: `vm.nic`.
    pub key: String,
    /// Why not, and the remedy.
    pub what: String,
}

/// All differences between `new` and the running `old` that the running fabric cannot adopt, by
/// key.
pub fn refusals(old: &FabricPlan, new: &FabricPlan) -> Vec<Refusal> {
    let mut refused: Vec<_> = changed(&old.config, &new.config)
        .into_iter()
        .filter(|key| !config::is_live(key))
        .map(|key| Refusal {
            what: remedy(&key).into(),
            key,
        })
        .collect();
    let spines = [old, new].map(|plan| plan.config.topology.spines);
    if spines[0] != spines[1] && !old.switches.is_empty() {
        refused.push(Refusal {
            key: "topology.spines".into(),
            what: format!(
                "the running fabric has {}, and with {} every leaf would have another AS number \
                 and loopback; restart the fabric",
                spines[0], spines[1]
            ),
        });
    }
    refused
}

fn remedy(key: &str) -> &'static str {
    if key.starts_with("recorder.") {
        "the flight recorder of a running fabric stays as it is (`ikv-fabric recorder trigger` \
         sets its triggers); leave the key as it was, or restart the fabric"
    } else {
        "this cannot be changed while the fabric runs; leave it as it was, or restart the fabric"
    }
}

/// The keys whose values differ. A list counts as one value.
fn changed(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (flat(old), flat(new));
    let keys = old.keys().chain(new.keys()).filter(|key| {
        let values = [&old, &new].map(|values| values.get(*key));
        values[0] != values[1]
    });
    let mut keys: Vec<_> = keys.cloned().collect();
    keys.sort();
    keys.dedup();
    keys
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
