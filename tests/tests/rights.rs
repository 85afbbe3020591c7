//! Once it is ready, a fabric has dropped every capability that it does not need, in each of its
//! threads and for the programs that it starts.
#![allow(missing_docs, clippy::unwrap_used)]

use dataplane::rights::CapabilitySet;
use ikv_tests::have_root;
use ikv_tests::panel::PanelHost;
use ikv_tests::patience::{SOON, wait_until};
use ikv_tests::rights::assert_rights;

/// The uid of the threads that touch frames, below those of switches and BMCs.
const UID: u32 = 69_999;

#[test]
fn a_patch_panel_keeps_only_the_capabilities_to_undo_its_changes() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("rights");
    let before = host.state();
    let fabric = host.run(&["--workers", "2"]);
    assert_rights(
        fabric.pid(),
        CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW | CapabilitySet::CHOWN,
        UID,
    );
    // They suffice to restore a tap and to undo everything.
    host.netns.ip("link del ikvm1-3-1");
    fabric.wait_said("another program removed ikvm1-3-1: made anew");
    fabric.end();
    before.assert_unchanged(&host.state(), "a fabric with few capabilities ended");
}

#[test]
fn a_wire_keeps_only_the_capability_to_remove_its_guard() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("rightsw");
    host.netns.ip("link add va type veth peer name vb");
    let before = host.state();
    let socket = |end: &str| host.folder().join(end).display().to_string();
    let [a, b] = ["a", "b"].map(socket);
    let (listens, connects) = (format!("vhost-user:{a}"), format!("vhost-user-client:{b}"));
    for (ports, kept, uid) in [
        // One that connects to root's sockets stays root's.
        ([&*listens, &*connects], CapabilitySet::empty(), 0),
        (["tap:pa", &*listens], CapabilitySet::empty(), UID),
        (["netdev:va", "netdev:vb"], CapabilitySet::NET_ADMIN, UID),
    ] {
        let mut fabric = host.spawn(host.command(&["patch", ports[0], ports[1]]));
        fabric.wait_said("✓ wire");
        wait_until("the wire", SOON, || host.ask(&["status"]).code == Some(0));
        assert_rights(fabric.pid(), kept, uid);
        fabric.signal(rustix::process::Signal::TERM);
        assert!(fabric.wait_end().success(), "{}", fabric.stderr());
        before.assert_unchanged(&host.state(), ports[0]);
    }
}
