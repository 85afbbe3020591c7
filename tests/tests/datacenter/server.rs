//! A server that runs BGP itself: on VLAN 10 with both leaves of rack 2, on VLAN 11 with leaf2.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ikv_tests::patience::{ensure, until};
use ikv_tests::{LAN_BRIDGE, figure};

use super::cutting::Mended;
use super::facts;
use super::lab::{SERVER_ADDRESS, SERVER_SECOND_ADDRESS, Up};
use super::routing::{established, host_reaches, paths, summary};

/// Time for the server to boot and to establish its sessions.
const BOOT: Duration = Duration::from_secs(90);

/// Time for sessions to be established again, or to expire after the hold time of 3 s that the
/// server asks for; emulated switches answer slowly.
const SOON: Duration = Duration::from_secs(30);

/// The interface of VLAN 10 on the leaves' NIC of U6.
fn server_nic() -> String {
    format!("{}.10", facts::nic(6))
}

/// QEMU without `script=no` runs Debian's /etc/qemu-ifup, which puts the tap into the bridge
/// of the default route.
pub(crate) fn freed(up: &mut Up) {
    up.server.wait_booted(BOOT);
    let host = &up.fabric.site.host;
    let of_bridge = host.ip(&format!("-o link show master {LAN_BRIDGE}"));
    assert_eq!(
        of_bridge.lines().count(),
        1,
        "only the LAN's own link: {of_bridge}"
    );
    let notice = format!("put ikvm2-6-1 on {LAN_BRIDGE}");
    until("a notice of the run", SOON, || {
        let said = up.fabric.stderr();
        ensure(said.contains(&notice), || said)
    });
}

fn wait_for_sessions(up: &Up, leaves: &[&str], expected: bool) {
    for leaf in leaves {
        until(
            &format!("{leaf}'s session with the server: {expected}"),
            SOON,
            || {
                let summary = summary(&up.cli, leaf);
                let found = established(&summary).contains(&server_nic());
                ensure(found == expected, || summary.to_string())
            },
        );
    }
}

pub(crate) fn sessions(up: &mut Up) {
    up.server.wait_booted(BOOT);
    wait_for_sessions(up, &["leaf3", "leaf4"], true);
    let seen = established(&up.server.vtysh("show bgp summary"));
    for nic in ["net0.10", "net1.10"] {
        assert!(seen.contains(nic), "{seen:?}");
    }
    host_reaches(up, SERVER_ADDRESS, SOON);
    let status = up.cli.node("leaf3");
    assert_eq!(
        status["bgp"]["expected"], 2,
        "a server's session never counts"
    );
    assert_eq!(status["bgp"]["established"], 2);
}

/// Addresses that are not derived from the MAC address: random ones, and one that somebody typed.
pub(crate) fn any_link_local(up: &mut Up) {
    let server = Ipv4Addr::from(SERVER_ADDRESS);
    for mode in ["random", "none", "eui64"] {
        for nic in ["net0.10", "net1.10"] {
            let line = format!(
                "ip link set {nic} down; ip link set {nic} addrgenmode {mode}; ip link set {nic} up"
            );
            up.server.exec(&["sh", "-c", &line]);
            if mode == "none" {
                let line = ["ip", "address", "add", "fe80::6/64", "dev", nic, "nodad"];
                up.server.exec(&line);
            }
        }
        // Each leaf by its own cable.
        for leaf in ["leaf3", "leaf4"] {
            until(&format!("{leaf} reaches it, {mode}"), SOON, || {
                let found = paths(&up.cli, leaf, server);
                ensure(found == BTreeSet::from([server_nic()]), || {
                    format!("{found:?}")
                })?;
                let address = server.to_string();
                let ping = ["exec", leaf, "--", "ping", "-c1", "-W1", &address];
                let pinged = up.cli.run(&ping);
                ensure(pinged.code == Some(0), || {
                    let device = server_nic();
                    up.cli
                        .exec(leaf, &["ip", "neighbour", "show", "dev", &device])
                })
            });
        }
        host_reaches(up, SERVER_ADDRESS, SOON);
    }
    wait_for_sessions(up, &["leaf3", "leaf4"], true);
}

/// The server announces every route it knows to both leaves; they accept only its own address.
pub(crate) fn no_transit(up: &mut Up) {
    let server = Ipv4Addr::from(SERVER_ADDRESS);
    let to_spines = BTreeSet::from([facts::nic(1), facts::nic(2)]);
    for (leaf, other) in [("leaf3", facts::loopback(6)), ("leaf4", facts::loopback(5))] {
        assert_eq!(paths(&up.cli, leaf, other), to_spines, "{leaf} to {other}");
        assert_eq!(paths(&up.cli, leaf, server), BTreeSet::from([server_nic()]));
    }
    until(
        "paths over both spines from another rack to it",
        SOON,
        || {
            let found = paths(&up.cli, "leaf1", server);
            ensure(found == to_spines, || format!("{found:?}"))
        },
    );
}

pub(crate) fn vlan_network(up: &mut Up) {
    until("leaf2's session with 192.168.113.200", SOON, || {
        let summary = summary(&up.cli, "leaf2");
        let peers = established(&summary);
        ensure(peers.contains("192.168.113.200"), || summary.to_string())
    });
    host_reaches(up, SERVER_SECOND_ADDRESS, SOON);
    let at_leaf2 = paths(&up.cli, "leaf2", SERVER_SECOND_ADDRESS.into());
    assert_eq!(at_leaf2, BTreeSet::from(["brvlan11".into()]));
}

/// With a prefix in place of the server's address, and back. Neither needs a restart.
pub(crate) fn vlan_range(up: &mut Up) {
    for (peers, is_dynamic) in [
        ("[\"192.168.113.192/28\"]", true),
        ("[\"192.168.113.200\", \"192.168.113.201\"]", false),
    ] {
        up.cli
            .ok(&["apply", "--set", &format!("bgp.vlan_peers={peers}")]);
        until(peers, SOON, || {
            let summary = summary(&up.cli, "leaf2");
            let session = &summary["ipv4Unicast"]["peers"]["192.168.113.200"];
            let holds = session["state"] == "Established"
                && session["dynamicPeer"].as_bool().unwrap_or(false) == is_dynamic;
            ensure(holds, || summary.to_string())
        });
        host_reaches(up, SERVER_SECOND_ADDRESS, SOON);
    }
}

fn reached(cable: &str, began: Instant) {
    let time = began.elapsed().as_secs_f64();
    figure(
        &format!("server reachable again, one cable {cable}"),
        &format!("{time:.1} s"),
    );
}

pub(crate) fn first_cable_down(up: &mut Up) {
    let _mended = Mended(&up.cli, "ikeb3-6");
    let changed = up.cli.json(&["cable", "ikeb3-6", "down"]);
    assert_eq!(
        (&changed["name"], &changed["state"]),
        (&"ikeb3-6".into(), &"down".into())
    );
    // The leaf loses its carrier. A QEMU that opened the tap itself cannot be notified.
    let note = changed["notes"].to_string();
    assert!(note.contains("ikvm2-6-1"), "{changed}");
    let began = Instant::now();
    host_reaches(up, SERVER_ADDRESS, SOON);
    reached("cut", began);
    wait_for_sessions(up, &["leaf3"], false);
    let other_leaf = paths(&up.cli, "leaf4", SERVER_ADDRESS.into());
    assert_eq!(other_leaf, BTreeSet::from([server_nic()]));
    up.cli.ok(&["cable", "rack2:u6:1", "up"]);
    wait_for_sessions(up, &["leaf3", "leaf4"], true);
}

pub(crate) fn second_cable_blackhole(up: &mut Up) {
    let drops = |up: &Up| {
        let report = up.cli.json(&["cables", "ikeb4-6"]);
        assert_eq!(report[0]["state"], "blackhole");
        report[0]["lanes"][0]["drops"]["blackhole"]
            .as_u64()
            .unwrap_or(0)
    };
    let _mended = Mended(&up.cli, "ikeb4-6");
    up.cli.ok(&["cable", "leaf4:u6", "blackhole"]);
    let began = Instant::now();
    // Neither end notices: some connections fail until the hold time is over.
    wait_for_sessions(up, &["leaf4"], false);
    host_reaches(up, SERVER_ADDRESS, SOON);
    reached("a blackhole", began);
    let carrier = format!("/sys/class/net/{}/carrier", facts::nic(6));
    assert_eq!(up.cli.exec("leaf4", &["cat", &carrier]), "1\n");
    assert!(drops(up) > 0, "the leaf's frames are counted as lost");
    up.cli.ok(&["cable", "ikeb4-6", "up"]);
    wait_for_sessions(up, &["leaf3", "leaf4"], true);
    host_reaches(up, SERVER_ADDRESS, SOON);
}

/// The server's QEMU notices the cut by the end of its vhost-user session, and the repair by a new
/// session; the leaf's own QEMU changes the leaf's carrier.
pub(crate) fn carrier(up: &mut Up) {
    let _mended = Mended(&up.cli, "ikeb2-7");
    let wait_for = |carrier: &str| {
        until(&format!("carrier {carrier} at the server"), SOON, || {
            let seen = up.server.exec(&["cat", "/sys/class/net/net2/carrier"]);
            ensure(seen.trim() == carrier, || seen)
        });
    };
    wait_for("1");
    let began = Instant::now();
    let changed = up.cli.json(&["cable", "ikvm1-7-2", "down"]);
    assert_eq!(changed["notes"], serde_json::json!([]), "both ends know");
    wait_for("0");
    let time = began.elapsed().as_secs_f64();
    figure(
        "cable cut, vhost-user server without carrier",
        &format!("{time:.1} s"),
    );
    let leafs = format!("/sys/class/net/{}/carrier", facts::nic(7));
    assert_eq!(up.cli.exec("leaf2", &["cat", &leafs]), "0\n");
    up.cli.ok(&["cable", "ikvm1-7-2", "up"]);
    wait_for("1");
    host_reaches(up, SERVER_SECOND_ADDRESS, SOON);
}
