//! Once it stands, a fabric has given up every right of root's that it does not need, in each
//! of its threads and for whatever it starts.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;

use dataplane::rights::CapabilitySet;
use ikv_tests::have_root;
use ikv_tests::panel::PanelHost;

/// Name, permitted, effective and bounding capabilities of each thread, and whether programs
/// that it starts may gain more.
fn threads(pid: u32) -> Vec<(String, [u64; 3], bool)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |folder: std::path::PathBuf| {
        let status = fs::read_to_string(folder.join("status")).unwrap();
        let field = |key: &str| {
            let mut lines = status.lines();
            let line = lines.find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().to_owned()
        };
        let sets = ["CapPrm:", "CapEff:", "CapBnd:"];
        let sets = sets.map(|key| u64::from_str_radix(&field(key), 16).unwrap());
        (field("Name:"), sets, field("NoNewPrivs:") == "0")
    };
    tasks.map(|task| of(task.unwrap().path())).collect()
}

/// The first thread keeps `kept`, the others nothing.
fn assert_rights(pid: u32, kept: CapabilitySet) {
    let threads = threads(pid);
    assert!(threads.len() >= 3, "{threads:?}");
    for (name, sets, may_gain) in threads {
        let expected = if name == "ikv-fabric" { kept.bits() } else { 0 };
        assert_eq!(sets, [expected; 3], "{name}");
        assert!(!may_gain, "{name}");
    }
}

#[test]
fn a_patch_panel_keeps_what_takes_the_host_back_and_its_workers_nothing() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("rights");
    let before = host.state();
    let fabric = host.run(&["--workers", "2"]);
    assert_rights(
        fabric.pid(),
        CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW,
    );
    // It still can: a tap is made anew, and everything taken away.
    host.netns.ip("link del ikvm1-3-1");
    fabric.wait_said("somebody removed ikvm1-3-1: made anew");
    fabric.end();
    before.assert_unchanged(&host.state(), "with few rights");
}

#[test]
fn a_wire_keeps_nothing_but_what_removes_its_guard() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("rightsw");
    host.netns.ip("link add va type veth peer name vb");
    let before = host.state();
    let socket = |end: &str| host.folder().join(end).display().to_string();
    let [a, b] = ["a", "b"].map(socket);
    let (listens, connects) = (format!("vhost-user:{a}"), format!("vhost-user-client:{b}"));
    for (ports, kept) in [
        ([&*listens, &*connects], CapabilitySet::empty()),
        (["tap:pa", &*listens], CapabilitySet::empty()),
        (["netdev:va", "netdev:vb"], CapabilitySet::NET_ADMIN),
    ] {
        let mut fabric = host.spawn(host.command(&["patch", ports[0], ports[1]]));
        fabric.wait_said("✓ wire");
        ikv_tests::patience::wait_until("the wire", ikv_tests::patience::SOON, || {
            host.ask(&["status"]).code == Some(0)
        });
        assert_rights(fabric.pid(), kept);
        fabric.signal(rustix::process::Signal::TERM);
        assert!(fabric.wait_end().success(), "{}", fabric.stderr());
        before.assert_unchanged(&host.state(), ports[0]);
    }
}
