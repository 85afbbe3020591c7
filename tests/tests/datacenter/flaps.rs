//! Cables that lose their carrier for a moment: what the kernel forwards by is what zebra knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ikv_tests::patience::{ensure, until};
use ikv_tests::{Cli, figure};
use serde_json::Value;

use super::facts::SWITCHES;
use super::lab::Up;

/// leaf1's cables to the spines.
const CABLES: [&str; 2] = ["iksb12", "iksb22"];

/// How long a flap lasts.
const DOWN: [&str; 3] = ["10ms", "50ms", "200ms"];

/// How many flaps of each length there are, of one cable and of both; `IKV_FLAPS` asks for more.
const TIMES: usize = 4;

/// Limit for the routes to agree after the fabric is ready. zebra may still be at work then.
const AGREED: Duration = Duration::from_secs(20);

/// The next hops of each prefix that BGP has brought, by interface.
type Routes = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn agree(up: &mut Up) {
    let asked = std::env::var("IKV_FLAPS").ok();
    let times = asked.map_or(TIMES, |flaps| flaps.parse().unwrap());
    let before = SWITCHES.map(|node| kernel(&up.cli, node));
    let folder = tempfile::tempdir().unwrap();
    for cables in [&CABLES[..1], &CABLES[..]] {
        let step = |down: &&str| {
            format!(
                "[[step]]\nflap = {{ on = {cables:?}, times = {times}, every = \"700ms\", down = \"{down}\" }}\n"
            )
        };
        let scenario = folder.path().join("flaps.toml");
        std::fs::write(&scenario, DOWN.iter().map(step).collect::<String>()).unwrap();
        up.cli
            .ok(&["scenario", "run", &scenario.display().to_string()]);
        up.cli.wait_ready(60);
        for (node, before) in SWITCHES.into_iter().zip(&before) {
            until(&format!("{node}'s routes to be as before"), AGREED, || {
                let [kernel, rib] = [kernel(&up.cli, node), rib(&up.cli, node)];
                ensure(kernel == rib && kernel == *before, || {
                    format!("kernel {kernel:?}\nRIB {rib:?}\nbefore {before:?}")
                })
            });
        }
    }
    let all = 2 * DOWN.len() * times;
    figure(
        "flaps of a leaf's cables",
        &format!("{all}, kernel and RIB agree everywhere"),
    );
}

/// The routes of BGP in the switch's kernel. A next hop without carrier is none.
fn kernel(cli: &Cli, node: &str) -> Routes {
    let routes = cli.exec_json(node, &["ip", "-j", "route", "show", "proto", "bgp"]);
    let mut found = Routes::new();
    for route in array(&routes) {
        let prefix = match route["dst"].as_str().unwrap() {
            "default" => "0.0.0.0/0".to_owned(),
            host if !host.contains('/') => format!("{host}/32"),
            prefix => prefix.to_owned(),
        };
        let hops = match &route["nexthops"] {
            Value::Null => std::slice::from_ref(route),
            hops => array(hops),
        };
        let lives = |hop: &&Value| {
            let mut flags = array(&hop["flags"]).iter();
            !flags.any(|flag| flag == "dead" || flag == "linkdown")
        };
        let devices = hops.iter().filter(lives).map(|hop| text(&hop["dev"]));
        found.insert(prefix, devices.collect());
    }
    found
}

/// The routes of BGP that zebra has chosen, with the next hops that it says are in the kernel.
fn rib(cli: &Cli, node: &str) -> Routes {
    let routes = cli.vtysh(node, "show ip route");
    let mut found = Routes::new();
    for (prefix, routes) in routes.as_object().unwrap() {
        let chosen = |route: &&Value| route["protocol"] == "bgp" && route["selected"] == true;
        for route in array(routes).iter().filter(chosen) {
            let hops = array(&route["nexthops"]).iter();
            let installed = hops.filter(|hop| hop["active"] == true && hop["fib"] == true);
            let devices = installed.map(|hop| text(&hop["interfaceName"]));
            found.insert(prefix.clone(), devices.collect());
        }
    }
    found
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
