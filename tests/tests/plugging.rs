//! User VMs plug in at any time: an unmodified QEMU with the options of ikvswitch's README, as root
//! or not. The fabric undoes what other programs do to the taps.
//!
//! The guests need no disk: QEMU's iPXE asks for an address by DHCP.
#![allow(missing_docs, clippy::unwrap_used)]

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;

use ikv_tests::ipxe::{Guest, MACHINE, assert_talks, have_qemu};
use ikv_tests::panel::{PanelFabric, PanelHost};
use ikv_tests::patience::{SOON, wait_until};
use ikv_tests::{Answer, Netns, Nic, have_root, say, skip};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde_json::Value;

const MAC_1: &str = "08:00:27:06:00:31";
const MAC_2: &str = "08:00:27:06:00:32";

/// The uid of the user who plugs in; the machine need not have that account.
const USER: u32 = 54_321;

/// The gid of a group that may plug in; it need not exist either.
const GROUP: u32 = 54_399;

/// QEMU as root, without options for its network.
fn qemu(host: &PanelHost) -> Command {
    let mut command = host.netns.command("qemu-system-x86_64");
    command.args(MACHINE).arg("order=n");
    command
}

/// QEMU as an ordinary user. Debian's udev opens /dev/net/tun to all users, since a tap's owner
/// decides who may use that tap; on this machine only root may open it. So the user gets another
/// node, in the mount namespace that `ip netns exec` makes; the machine's node stays unchanged.
fn qemu_of(host: &PanelHost, user: u32, group: u32) -> Command {
    let mut command = host.netns.command("bash");
    let script = "mount -t tmpfs -o mode=755 none /dev/net \
                  && mknod -m 666 /dev/net/tun c 10 200 \
                  && exec setpriv --reuid \"$0\" --regid \"$1\" --clear-groups --no-new-privs -- \"${@:2}\"";
    command
        .args(["-c", script, &user.to_string(), &group.to_string()])
        .arg("qemu-system-x86_64")
        .args(MACHINE)
        .arg("order=n");
    command
}

/// The literal options of ikvswitch's README for a VM in rack 1, position 3.
fn readme_options(more: &str) -> Vec<String> {
    [(0, MAC_1), (1, MAC_2)]
        .iter()
        .flat_map(|(index, mac)| {
            let ifname = format!("ikvm1-3-{}", index + 1);
            [
                "-device".to_owned(),
                format!("virtio-net-pci,netdev=net{index},mac={mac}"),
                "-netdev".to_owned(),
                format!("tap,id=net{index},ifname={ifname}{more}"),
            ]
        })
        .collect()
}

fn is_plugged(host: &PanelHost, tap: &str) -> bool {
    host.netns
        .ip(&format!("link show {tap}"))
        .contains("LOWER_UP")
}

fn wait_plugged(host: &PanelHost, tap: &str, plugged: bool) {
    let what = format!(
        "{tap} to be {}",
        if plugged { "plugged" } else { "unplugged" }
    );
    wait_until(&what, SOON, || is_plugged(host, tap) == plugged);
}

fn switch_port(host: &PanelHost, tap: &str) -> Nic {
    host.netns.enter(|| Nic::plain(tap))
}

#[test]
fn an_unmodified_qemu_plugs_in_and_can_be_replaced() {
    if !have_qemu() {
        return;
    }
    let host = PanelHost::new("qemu");
    let fabric = host.run(&[]);
    let [leaf1, leaf2] = ["ikls1-3", "ikls2-3"].map(|tap| switch_port(&host, tap));

    // Debian's /etc/qemu-ifup runs and finds no bridge with a default route.
    let mut guest = Guest::start(qemu(&host).args(readme_options("")));
    assert_talks(&leaf1, MAC_1);
    assert!(
        is_plugged(&host, "ikvm1-3-2"),
        "the second NIC is unplugged"
    );
    guest.assert_alive();
    drop(guest);
    for tap in ["ikvm1-3-1", "ikvm1-3-2"] {
        wait_plugged(&host, tap, false);
    }

    let mut options = readme_options(",script=no,downscript=no");
    options[5] += ",bootindex=0";
    let mut guest = Guest::start(qemu(&host).args(&options));
    assert_talks(&leaf2, MAC_2);
    guest.assert_alive();
    let lanes = &host.json(&["cables", "rack1:u3:2"])[0]["lanes"];
    assert!(lanes[1]["frames_out"].as_u64().unwrap() >= 2, "{lanes}");
    assert!(!fabric.stderr().contains("  ! "), "{}", fabric.stderr());
    fabric.end();
    // The VM belongs to the user: it outlives its cable.
    guest.assert_alive();
}

#[test]
fn a_user_plugs_into_taps_that_they_own() {
    if !have_qemu() {
        return;
    }
    say("plugging in as a user: that QEMU sees a /dev/net/tun of mode 0666");
    let host = PanelHost::new("user");
    let fabric = host.run(&["--set", &format!("owner={USER}")]);
    let leaf = switch_port(&host, "ikls1-3");
    for more in ["", ",script=no,downscript=no"] {
        let mut guest = Guest::start(qemu_of(&host, USER, USER).args(readme_options(more)));
        assert_talks(&leaf, MAC_1);
        guest.assert_alive();
        drop(guest);
        wait_plugged(&host, "ikvm1-3-1", false);
    }

    let options = readme_options(",script=no,downscript=no");
    let refused = Answer::of(qemu_of(&host, USER + 1, USER + 1).args(&options));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("Operation not permitted"),
        "{refused:?}"
    );
    fabric.end();
}

/// Members of the group open taps and sockets as the owner would, and command nothing.
#[test]
fn members_of_the_group_plug_in_and_others_do_not() {
    if !have_qemu() {
        return;
    }
    let host = PanelHost::new("group");
    let [owner, group] = [format!("owner={USER}"), format!("host.plug_group={GROUP}")];
    let fabric = host.run(&["--set", &owner, "--set", &group]);
    // The kernel opens taps of a group for its members alone: the fabric says that the owner is none.
    assert!(
        fabric
            .stderr()
            .contains("is not in the group of host.plug_group"),
        "{}",
        fabric.stderr()
    );

    let socket = host.socket().with_file_name("vhost").join("ikvm1-3-1.sock");
    let meta = socket.metadata().unwrap();
    assert_eq!(
        (meta.mode() & 0o777, meta.uid(), meta.gid()),
        (0o660, USER, GROUP)
    );
    let connects = |uid: u32, gid: u32, socket: &Path| {
        let connect = || {
            // Of this thread alone, which ends at once.
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(None, Gid::from_raw(gid), None).unwrap();
            set_thread_res_uid(None, Uid::from_raw(uid), None).unwrap();
            UnixStream::connect(socket).is_ok()
        };
        thread::scope(|scope| scope.spawn(connect).join().unwrap())
    };
    assert!(connects(USER + 1, GROUP, &socket), "a member");
    assert!(connects(USER, USER, &socket), "the owner");
    assert!(!connects(USER + 1, USER + 1, &socket), "somebody else");
    assert!(
        !connects(USER + 1, GROUP, &host.socket()),
        "a member, at the API"
    );

    let leaf = switch_port(&host, "ikls1-3");
    let options = readme_options(",script=no,downscript=no");
    let refused = Answer::of(qemu_of(&host, USER, USER).args(&options));
    assert!(
        refused.stderr.contains("Operation not permitted"),
        "{refused:?}"
    );
    let mut guest = Guest::start(qemu_of(&host, USER + 1, GROUP).args(&options));
    assert_talks(&leaf, MAC_1);
    guest.assert_alive();
    drop(guest);
    fabric.end();
}

#[test]
fn qemu_ifups_bridging_is_undone_and_reported() {
    if !have_qemu() {
        return;
    }
    if !std::path::Path::new("/etc/qemu-ifup").exists() {
        return skip("needs /etc/qemu-ifup (apt-get install qemu-system-common)");
    }
    let host = PanelHost::new("ifup");
    // The host's default route leads over a bridge, as where VMs share the host's LAN.
    let lan = Netns::new("lan");
    let cable = format!(
        "link add lan0 type veth peer name wan0 netns {}",
        lan.name()
    );
    for line in [
        &cable,
        "link set lan0 addrgenmode none",
        "link add brlan address 02:00:00:00:99:02 type bridge",
        "link set brlan addrgenmode none",
        "link set lan0 master brlan up",
        "link set brlan up",
        "address add 10.99.0.2/24 dev brlan",
        "route add default via 10.99.0.1",
    ] {
        host.netns.ip(line);
    }
    lan.ip("link set wan0 up");
    wait_until("the bridge to have carrier", SOON, || {
        is_plugged(&host, "brlan")
    });
    let before = host.state();
    let fabric = host.run(&[]);
    let leaf = switch_port(&host, "ikls1-3");
    let guest = Guest::start(qemu(&host).args(readme_options("")));
    for tap in ["ikvm1-3-1", "ikvm1-3-2"] {
        fabric.wait_said(&format!(
            "another program put {tap} on brlan (QEMU without script=no does so): taken off again"
        ));
    }
    assert_talks(&leaf, MAC_1);
    let links: Vec<Value> = serde_json::from_str(&host.netns.ip("-json link show")).unwrap();
    let enslaved: Vec<&Value> = links
        .iter()
        .filter(|link| link["master"] == "brlan" && link["ifname"] != "lan0")
        .collect();
    assert!(enslaved.is_empty(), "{enslaved:?}");
    let learnt = host.netns.run("bridge fdb show br brlan");
    assert!(
        !learnt.contains(MAC_1),
        "the guest was on the host's LAN: {learnt}"
    );
    drop(guest);
    fabric.end();
    before.assert_unchanged(&host.state(), "qemu-ifup had bridged the taps");
}

#[test]
fn a_tap_that_was_removed_or_set_down_is_restored() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("meddle");
    let fabric = host.run(&["--set", &format!("owner={USER}")]);
    let is_complete = |tap: &str| {
        let link = host.netns.ip(&format!("-d link show {tap}"));
        let guarded = host.netns.run("nft list ruleset");
        ["mtu 9000", "NOARP", ",UP", "addrgenmode none", "user 54321"]
            .iter()
            .all(|word| link.contains(word))
            && guarded.contains(&format!("hook ingress device \"{tap}\""))
    };
    let [near, far] = ["ikls1-5", "ikvm1-5-1"];
    for (tap, how) in [
        (near, "removed while unplugged"),
        (far, "removed"),
        (far, "once more"),
    ] {
        assert!(is_complete(tap), "{how}");
        let times = fabric.stderr().matches("made anew").count();
        host.netns.ip(&format!("link del {tap}"));
        wait_until("the tap to be restored", SOON, || {
            fabric.stderr().matches("made anew").count() > times
        });
        assert!(
            fabric
                .stderr()
                .contains(&format!("another program removed {tap}: made anew"))
        );
        assert!(is_complete(tap), "{how}");
        assert_cable_works(&host, near, far, how);
    }
    host.netns.ip(&format!("link set {far} down"));
    fabric.wait_said(&format!("another program set {far} down: set up again"));
    assert_cable_works(&host, near, far, "set down");

    // A guest that was plugged in has lost its tap; another one plugs in.
    let orphan = switch_port(&host, far);
    host.netns.ip(&format!("link del {far}"));
    wait_until("the tap to be restored", SOON, || {
        fabric
            .stderr()
            .matches(&format!("removed {far}: made anew"))
            .count()
            == 3
    });
    assert_cable_works(&host, near, far, "removed while plugged");
    drop(orphan);
    assert_ends_well(fabric, &host);
}

fn assert_cable_works(host: &PanelHost, near: &str, far: &str, how: &str) {
    let [near, far] = [near, far].map(|tap| switch_port(host, tap));
    let mut frame = vec![0xff; 60];
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    near.send([0; 10], &frame);
    assert_eq!(far.receive().1, frame, "{how}");
    far.send([0; 10], &frame);
    assert_eq!(near.receive().1, frame, "{how}");
}

fn assert_ends_well(fabric: PanelFabric<'_>, host: &PanelHost) {
    fabric.end();
    let links = host.netns.ip("-o link show");
    assert_eq!(links.lines().count(), 1, "only lo is left: {links}");
    assert_eq!(host.netns.run("nft list ruleset"), "");
}

#[test]
fn qemu_accepts_the_options_of_vm_args() {
    if !have_qemu() {
        return;
    }
    let host = PanelHost::new("vmargs");
    let fabric = host.run(&[]);
    let printed = host.ask(&["vm-args", "rack2:u6"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let line = format!(
        "exec qemu-system-x86_64 {} order=n -S {}",
        MACHINE.join(" "),
        printed.stdout
    );
    let pasted = Guest::start(host.netns.command("sh").args(["-c", &line]));
    let words: Vec<String> =
        serde_json::from_value(host.json(&["vm-args", "rack2:u7"])["args"].clone()).unwrap();
    let listed = Guest::start(qemu(&host).args(["-S"]).args(&words));
    for (mut guest, u) in [(pasted, 6), (listed, 7)] {
        for nic in [1, 2] {
            wait_plugged(&host, &format!("ikvm2-{u}-{nic}"), true);
        }
        guest.assert_alive();
    }
    fabric.end();
}
