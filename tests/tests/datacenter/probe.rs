//! `ikv-fabric probe`: its in-process hosts in the racks find out whether the fabric is healthy.

use serde_json::Value;

use super::facts;
use super::lab::Up;

/// The longest that a complete probe of a running fabric may take, in seconds.
const LIMIT: f64 = 10.0;

fn all_green(of: &Value) -> bool {
    let list = of.as_array().unwrap();
    list.iter().all(|found| found["green"] == true)
}

/// A host in every rack reaches everything, in time.
pub(crate) fn green(up: &mut Up) {
    let report = up.cli.json(&["probe"]);
    assert_eq!(report["green"], true, "{report:#}");
    assert!(all_green(&report["hosts"]) && all_green(&report["pings"]));
    // Each pings the two other hosts, its gateway, the machine's host and all switches.
    let pings = 3 * (2 + 1 + 1 + facts::SWITCHES.len());
    let count = |key: &str| report[key].as_array().unwrap().len();
    let counts = ["hosts", "pings", "transfers"].map(count);
    assert_eq!(counts, [3, pings, 6], "{report:#}");
    let seconds = report["seconds"].as_f64().unwrap();
    assert!(seconds <= LIMIT, "took {seconds} s");
    ikv_tests::say(&format!("a whole probe took {seconds:.1} s"));
}

/// A position where a VM is plugged in is skipped, and the others are probed.
pub(crate) fn skips(up: &mut Up) {
    let said = up.cli.run(&[
        "probe",
        "--quick",
        "--position",
        "rack2:u6",
        "rack1:u9",
        "rack3:u9",
    ]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    let skipped = "rack2:u6 is skipped: a VM is plugged in by its tap\n";
    assert!(said.stdout.contains(skipped), "{said:#?}");
    assert!(!said.stdout.contains('\x1b'), "colours are for terminals");
}

/// A probe fails over a lossy cable, and passes again once that is mended.
pub(crate) fn red(up: &mut Up) {
    up.cli.ok(&["impair", "rack1:u9:1", "--loss", "100%"]);
    let arguments = ["probe", "--quick", "--position", "rack1:u9", "rack3:u9"];
    let said = up.cli.run(&arguments);
    up.cli.ok(&["impair", "rack1:u9:1", "--clear"]);
    assert_eq!(said.code, Some(1), "{said:#?}");
    let why = "rack1:u9: no DHCP lease from leaf1\n";
    assert!(said.stdout.contains(why), "{said:#?}");
    let said = up.cli.run(&arguments);
    assert_eq!(said.code, Some(0), "mended: {said:#?}");
}
