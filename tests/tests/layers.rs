//! The layers of the workspace: a crate uses only crates below it.
//!
//! Dependencies of tests (`[dev-dependencies]`) do not count.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use ikv_tests::run;
use serde_json::Value;

/// Every crate of the workspace, from the ground up, with the workspace crates that it may use.
const LAYERS: [(&str, &[&str]); 13] = [
    ("ikv-dataplane", &[]),
    ("ikv-frr-conf", &[]),
    ("ikv-guest", &["ikv-dataplane"]),
    ("ikv-bench", &["ikv-dataplane", "ikv-guest"]),
    ("ikv-model", &["ikv-dataplane", "ikv-frr-conf"]),
    ("ikv-decode", &["ikv-dataplane", "ikv-model"]),
    ("ikv-host", &["ikv-dataplane", "ikv-model"]),
    (
        "ikv-vm",
        &["ikv-dataplane", "ikv-frr-conf", "ikv-model", "ikv-host"],
    ),
    ("ikv-api", &["ikv-dataplane", "ikv-model"]),
    ("ikv-web", &["ikv-api"]),
    (
        "ikv-fabric-lib",
        &[
            "ikv-dataplane",
            "ikv-frr-conf",
            "ikv-model",
            "ikv-decode",
            "ikv-host",
            "ikv-vm",
            "ikv-api",
            "ikv-web",
        ],
    ),
    (CLI, BELOW_CLI),
    (TESTS, BELOW_CLI),
];

const CLI: &str = "ikv-fabric";
const TESTS: &str = "ikv-tests";

/// The command line and the tests may use every other crate. No crate may use them: the tests run
/// the program as a user does.
const BELOW_CLI: &[&str] = &[
    "ikv-dataplane",
    "ikv-frr-conf",
    "ikv-guest",
    "ikv-bench",
    "ikv-model",
    "ikv-decode",
    "ikv-host",
    "ikv-vm",
    "ikv-api",
    "ikv-web",
    "ikv-fabric-lib",
];

/// Each crate of the workspace with the workspace crates that it depends on, for its build as well
/// as for its code.
fn workspace() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let metadata: Value = serde_json::from_slice(&run(&mut command).stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |package: &Value| package["name"].as_str().unwrap().to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let uses = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let not_for_tests = dependencies.filter(|dependency| dependency["kind"] != "dev");
        let names: BTreeSet<String> = not_for_tests.map(name).collect();
        names.intersection(&ours).cloned().collect()
    };
    packages.iter().map(|it| (name(it), uses(it))).collect()
}

#[test]
fn the_table_lists_every_crate_from_the_ground_up() {
    let listed: BTreeSet<String> = LAYERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let found: BTreeSet<String> = workspace().into_keys().collect();
    let missing: Vec<_> = found.difference(&listed).collect();
    assert!(
        missing.is_empty(),
        "{missing:?}: add a line to LAYERS in {}, above the crates that use it, with the crates \
         that it may use",
        file!()
    );
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(
        gone.is_empty(),
        "{gone:?}: not in the workspace; take the line out of LAYERS in {}",
        file!()
    );
    for (index, (name, allowed)) in LAYERS.iter().enumerate() {
        let below = |other: &&str| LAYERS[..index].iter().any(|(name, _)| name == other);
        let above: Vec<_> = allowed.iter().filter(|other| !below(other)).collect();
        assert!(
            above.is_empty(),
            "{name} may use {above:?}, listed below it"
        );
    }
}

#[test]
fn no_crate_depends_on_one_above_it() {
    let mut violations = Vec::new();
    for (name, uses) in workspace() {
        let allowed = LAYERS.iter().find(|(known, _)| *known == name);
        // The other test reports a crate without a line.
        let Some((_, allowed)) = allowed else {
            continue;
        };
        for used in uses {
            if !allowed.contains(&used.as_str()) {
                violations.push(format!("{name} -> {used}"));
            }
        }
    }
    assert!(
        violations.is_empty(),
        "{}: move what is needed down into a crate that both may use, or, if the layer is to \
         change, change LAYERS in {}",
        violations.join(", "),
        file!()
    );
}
