//! A network namespace per test: the test runs on a thread of its own that enters a new one, so
//! nothing of the machine's own network is touched and nothing is left behind.
#![allow(dead_code)] // each test binary takes what it needs

use std::process::Command;
use std::thread;

use host::plan::{HostLinkPlan, HostPlanInput, Snat, TapPlan};

/// Runs `test` in a fresh network namespace with `lo` up; prints SKIP without root, and fails
/// instead of skipping under `CI=true`.
pub(crate) fn in_namespace(name: &str, test: impl FnOnce() + Send + 'static) {
    let missing = missing();
    if let Some(missing) = missing {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "{name}: {missing} under CI"
        );
        eprintln!("SKIP {name}: {missing}");
        return;
    }
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Only this thread moves; programs it starts are in its namespace too.
        #[allow(deprecated)]
        // the replacement is unsafe because of CLONE_FILES, not asked for here
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
        shell("ip link set lo up");
        test();
    });
    if let Err(panic) = thread.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root");
    }
    let found = |name| host::program::find(name).is_some();
    if !found("nft") {
        return Some("needs nft (apt install nftables)");
    }
    (!found("ip")).then_some("needs ip (apt install iproute2)")
}

/// What a shell command prints; panics if it fails.
pub(crate) fn shell(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that a fabric might change, as text to compare.
pub(crate) fn picture() -> String {
    let commands = [
        "ip -d link show",
        "ip -d address show",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "ip rule show",
        "ip neigh show",
        "nft list ruleset",
        "sysctl -a 2>/dev/null | grep -E '^net\\.' | grep -vE 'nf_conntrack_count|random|stat'",
    ];
    commands
        .map(|command| format!("# {command}\n{}", shell(command)))
        .join("\n")
}

/// `count` taps and, with `host`, the host link of the default fabric.
pub(crate) fn input(count: usize, host: bool) -> HostPlanInput {
    let taps = (0..count)
        .map(|n| TapPlan {
            name: format!("ikvm{}-{}-{}", n / 42 + 1, n % 42 / 2 + 3, n % 2 + 1),
            alias: format!("rack{}:u{}:{}", n / 42 + 1, n % 42 / 2 + 3, n % 2 + 1),
        })
        .collect();
    HostPlanInput {
        taps,
        tap_mtu: 9000,
        tap_owner: Some(65534),
        host: host.then(|| HostLinkPlan {
            name: "ikhn".into(),
            mac: [0x00, 0x22, 0x22, 0xdd, 0xee, 0x01],
            mtu: 9000,
            address: "192.168.96.1/24".parse().unwrap(),
            peer: "192.168.96.2".parse().unwrap(),
            range: "192.168.96.0/19".parse().unwrap(),
            snat: Snat::Masquerade,
            ipv6_forwarding: false,
        }),
        ipmi: None,
    }
}
