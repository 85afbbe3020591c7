use model::mac::Mac;
use std::io;

use super::files::other_fabric;
use super::machine::{acceleration, available_mib, memory, packages, tun_device};
use super::network::{address_conflicts, link_conflicts, route_conflicts, table_conflicts};
use super::*;
use host::address::HostRoute;
use host::journal::{Identity, Journal};
use host::links::Link;
use host::lock::Lock;
use host::plan::{HostLinkPlan, TABLE, TapForm, TapOpener, TapPlan};
use model::config::Snat;
use serde_json::json;

fn input() -> HostPlanInput {
    HostPlanInput {
        taps: ["ikvm1-3-1", "ikvm1-3-2"]
            .map(|name| TapPlan {
                name: name.into(),
                alias: String::new(),
            })
            .into(),
        tap_form: TapForm {
            opener: TapOpener::Root,
            mtu: 9000,
            multi_queue: false,
        },
        host: Some(HostLinkPlan {
            name: "ikhn".into(),
            mac: Mac([0; 6]),
            mtu: 9000,
            address: "192.168.96.1/24".parse().unwrap(),
            peer: "192.168.96.2".parse().unwrap(),
            range: "192.168.96.0/19".parse().unwrap(),
            snat: Snat::Masquerade,
            reach: model::config::HostReach::default(),
            ipv6_forwarding: false,
        }),
        ipmi: None,
    }
}

fn link(name: &str, alias: &str) -> Link {
    Link {
        index: 1,
        name: name.into(),
        alias: alias.into(),
        group: 0,
        master: None,
        mtu: 1500,
        up: true,
        carrier: true,
        tun: false,
    }
}

fn route(destination: &str, link: &str) -> HostRoute {
    HostRoute {
        destination: destination.parse().unwrap(),
        link: link.into(),
        table: 254,
    }
}

#[test]
fn all_missing_packages_are_in_one_line() {
    let programs = [FOR_PANEL, FOR_SWITCHES, FOR_IMAGE].concat();
    let finding = packages(&programs, |name| name == "nft" || name == "cpio").unwrap();
    assert_eq!(
        finding.what,
        "not installed: qemu-system-x86_64, setpriv, prlimit, unshare, ssh, mmdebstrap, mksquashfs, lz4, zstd, xz"
    );
    assert_eq!(
        finding.remedy,
        "apt install lz4 mmdebstrap openssh-client qemu-system-x86 squashfs-tools util-linux xz-utils \
         zstd"
    );
    assert_eq!(packages(&programs, |_| true), None);
}

#[test]
fn routes_in_the_way_are_named_and_default_routes_are_not() {
    let routes = [
        route("0.0.0.0/0", "eth0"),
        route("128.0.0.0/1", "tun0"),
        route("10.0.0.0/8", "eth0"),
        route("192.168.0.0/16", "vpn0"),
        route("192.168.111.0/24", "virbr1"),
        route("192.168.128.0/24", "eth1"),
        route("192.168.96.0/19", "ikhn"),
    ];
    let found = route_conflicts(&input(), &routes);
    let what: Vec<&str> = found.iter().map(|f| f.what.as_str()).collect();
    assert_eq!(
        what,
        [
            "the host's route to 192.168.0.0/16 on vpn0 overlaps the fabric's range 192.168.96.0/19",
            "the host's route to 192.168.111.0/24 on virbr1 overlaps the fabric's range 192.168.96.0/19",
        ]
    );
    let without = HostPlanInput {
        host: None,
        ..input()
    };
    assert_eq!(route_conflicts(&without, &routes), []);
}

#[test]
fn addresses_in_the_range_are_named() {
    let addresses = [
        ("lo".to_owned(), "127.0.0.1/8".parse().unwrap()),
        ("eth0".to_owned(), "192.168.97.5/32".parse().unwrap()),
    ];
    let found = address_conflicts(&input(), &addresses);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].what.starts_with("eth0 has 192.168.97.5/32"),
        "{}",
        found[0].what
    );
}

#[test]
fn links_of_our_names_are_counted() {
    let links = [link("lo", ""), link("ikhn", ""), link("ikvm1-3-2", "")];
    let finding = link_conflicts(&input(), &links).unwrap();
    assert_eq!(
        finding.what,
        "link ikvm1-3-2 and 1 more of our names exists already"
    );
    let stale = [link("ikhn", "ikv-fabric 4194305.11 host")];
    let finding = link_conflicts(&input(), &stale).unwrap();
    assert_eq!(
        finding.what,
        "link ikhn exists already, of a fabric that was killed, pid 4194305"
    );
    assert!(finding.remedy.contains("clean"), "{}", finding.remedy);
    assert_eq!(link_conflicts(&input(), &links[..1]), None);
}

#[test]
fn a_table_of_our_name_is_found() {
    let with = |family: &str| json!({"nftables": [{"table": {"family": family, "name": TABLE}}]});
    assert_eq!(table_conflicts(&with("inet"), None).len(), 1);
    let found = table_conflicts(&with("netdev"), None);
    assert_eq!(found[0].remedy, "nft delete table netdev ikv-fabric");
    assert_eq!(table_conflicts(&with("ip"), None), []);
}

#[test]
fn a_table_of_another_fabric_is_told_with_that_fabric() {
    let ours = Identity::current().unwrap();
    let ruleset = json!({"nftables": [
        {"table": {"family": "inet", "name": TABLE}},
        {"chain": {"family": "inet", "table": TABLE, "name": ours.chain()}},
    ]});
    let found = table_conflicts(&ruleset, None);
    let pid = std::process::id().to_string();
    assert!(found[0].what.contains(&pid), "{}", found[0].what);
    assert!(found[0].remedy.contains("another network namespace"));
    // `run` takes away what a killed fabric has left on its own socket.
    assert_eq!(table_conflicts(&ruleset, Some(&ours)), []);
}

#[test]
fn kvm_needs_both_the_cpu_and_the_device() {
    let intel = "processor: 0\nflags\t\t: fpu vmx sse\n";
    let none = "flags\t\t: fpu svmx sse\n";
    assert_eq!(acceleration(intel, Ok(())).what, "switches run under KVM");
    let denied = acceleration(intel, Err(io::ErrorKind::PermissionDenied.into()));
    assert_eq!(denied.severity, Severity::Warning);
    assert!(
        acceleration(none, Ok(()))
            .what
            .contains("neither vmx nor svm")
    );
}

#[test]
fn memory_is_compared_in_mib() {
    let available = available_mib("MemTotal: 9 kB\nMemAvailable:    2097152 kB\n").unwrap();
    assert_eq!(available, 2048);
    assert_eq!(memory(2048, available), None);
    assert!(memory(2049, available).unwrap().what.contains("2049 MiB"));
}

#[test]
fn a_tun_device_that_is_not_there_is_an_error() {
    let finding = tun_device(Path::new("/nowhere/net/tun"), false).unwrap();
    assert_eq!(
        (finding.severity, &*finding.remedy),
        (Severity::Error, "modprobe tun")
    );
}

#[test]
fn a_running_fabric_and_a_killed_one_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let paths = StatePaths::beside(&folder.path().join("control.sock"));
    assert_eq!(other_fabric(&paths, 1), None);
    let lock = Lock::acquire(&paths).unwrap();
    let running = other_fabric(&paths, 1).unwrap();
    assert_eq!(running.severity, Severity::Error);
    assert!(running.what.contains(&std::process::id().to_string()));
    lock.release().unwrap();
    let mut journal = Journal::new(&paths.journal, false).unwrap();
    journal.begin(host::journal::Undo::Tables).unwrap();
    let killed = other_fabric(&paths, 1).unwrap();
    assert_eq!(killed.severity, Severity::Note);
    assert!(killed.remedy.contains("ikv-fabric clean"));
}

#[test]
fn worst_first() {
    let folder = tempfile::tempdir().unwrap();
    let paths = StatePaths::beside(&folder.path().join("control.sock"));
    let programs = [Program::of("no-such-program", "no-such-package")];
    let found = check_needs(&programs, u64::MAX, &paths, &input());
    assert!(found.iter().any(|found| found.severity == Severity::Error));
    assert!(found.is_sorted_by(|a, b| a.severity >= b.severity));
    assert!(
        found
            .iter()
            .any(|f| f.remedy == "apt install no-such-package")
    );
    assert!(found.iter().any(|f| f.what.contains("MiB of memory")));
}
