//! The changes that a running fabric cannot make.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FabricPlan, KeyChange, keys};
use crate::config;

/// A key whose value cannot change while the fabric runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// The key as in the file: `vm.nic`.
    pub key: String,
    /// Why not, and the remedy.
    pub what: String,
}

/// All differences between `new` and the running `old` that the running fabric cannot adopt, by
/// key.
pub fn refusals(old: &FabricPlan, new: &FabricPlan) -> Vec<Refusal> {
    let mut refused: Vec<_> = keys::changed(&old.config, &new.config)
        .into_iter()
        .filter(|change| !config::is_live(&change.key))
        .map(|KeyChange { key, .. }| Refusal {
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
