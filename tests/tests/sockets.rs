//! Every tap has a vhost-user socket beside it; the first of the two that is plugged into carries
//! the cable.
#![allow(missing_docs, clippy::unwrap_used)]

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use guest::{Guest as FrontEnd, GuestOptions, HEADER};
use ikv_tests::ipxe::{Guest, MACHINE, assert_talks, have_qemu};
use ikv_tests::panel::{PanelFabric, PanelHost};
use ikv_tests::patience::{SOON, ensure, until, wait_until};
use ikv_tests::{Nic, have_root};
use rustix::process::Signal;

/// The owner's uid; the machine need not have that account.
const USER: u32 = 54_321;

/// A server's end and the leaf's end of its cable.
const FAR: &str = "ikvm1-3-1";
const NEAR: &str = "ikls1-3";

fn socket(host: &PanelHost, end: &str) -> PathBuf {
    let folder = host.socket().parent().unwrap().to_owned();
    folder.join("vhost").join(format!("{end}.sock"))
}

fn connect(host: &PanelHost, end: &str) -> FrontEnd {
    FrontEnd::connect(&socket(host, end), &GuestOptions::default()).unwrap()
}

fn frame(number: u8) -> Vec<u8> {
    let mut frame = vec![number; 60];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
    frame
}

fn send(front_end: &mut FrontEnd, frame: &[u8]) {
    let (_, queue) = front_end.pair();
    let sent = queue.send(1, |out| {
        out.header(&[0; HEADER]);
        out.frame(frame);
    });
    assert_eq!(sent.unwrap(), 1);
}

/// Whether the frame comes out at the front end within `limit`.
fn receives(front_end: &mut FrontEnd, frame: &[u8], limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    let mut found = false;
    while !found && Instant::now() < deadline {
        let (queue, _) = front_end.pair();
        let taken = queue.receive(32, |incoming| found |= incoming.to_vec() == frame);
        if taken.unwrap() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    found
}

/// Asserts that frames pass in both directions, once the front end's rings are the cable's port.
fn assert_talk(front_end: &mut FrontEnd, tap: &Nic, number: u8) {
    until("a frame from the front end", SOON, || {
        send(front_end, &frame(number));
        let received = tap.receive_within(Duration::from_millis(200));
        ensure(
            received.is_some_and(|(_, got)| got == frame(number)),
            || "none".into(),
        )
    });
    tap.send([0; 10], &frame(number + 1));
    assert!(receives(front_end, &frame(number + 1), SOON));
}

fn plug(host: &PanelHost, tap: &str) -> Nic {
    host.netns.enter(|| Nic::plain(tap))
}

#[test]
fn every_tap_has_a_socket_for_the_owner_only() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("socks");
    let fabric = host.run(&["--set", &format!("owner={USER}")]);
    let links = host.netns.ip("-o link show");
    let taps: Vec<_> = links
        .lines()
        .filter_map(|line| line.split(": ").nth(1))
        .filter(|name| name.starts_with("ik") && *name != "ikhn")
        .collect();
    assert_eq!(taps.len(), 281);
    for tap in taps {
        let meta = socket(&host, tap).symlink_metadata().unwrap();
        assert!(meta.file_type().is_socket(), "{tap}");
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o600, USER), "{tap}");
    }
    fabric.end();
    assert!(!socket(&host, FAR).parent().unwrap().exists());
}

#[test]
fn a_low_limit_of_open_files_is_enough() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("ulimit");
    let run = host.run_command(&[]);
    let mut command = host.netns.command("sh");
    command
        .args(["-c", "ulimit -Sn 256 && exec \"$0\" \"$@\""])
        .arg(run.get_program())
        .args(run.get_args());
    let mut fabric = host.spawn(command);
    fabric.wait_ready();
    fabric.end();
}

#[test]
fn the_first_end_plugged_into_carries_the_cable() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("first");
    let fabric = host.run(&[]);
    let near = plug(&host, NEAR);

    let mut front_end = connect(&host, FAR);
    assert_talk(&mut front_end, &near, 1);
    let late = plug(&host, FAR);
    fabric.wait_said(&format!(
        "another program opened {FAR}, but its vhost-user socket carries the cable"
    ));
    late.send([0; 10], &frame(50));
    assert_talk(&mut front_end, &near, 3);
    assert!(late.receive_within(Duration::ZERO).is_none());

    drop(front_end);
    fabric.wait_said(&format!(
        "the vhost-user front end at {FAR} has left: its tap carries the cable now"
    ));
    late.send([0; 10], &frame(60));
    let (_, first) = near.receive();
    assert_eq!(
        first,
        frame(60),
        "the first frame must be one sent after the tap became the port"
    );
    near.send([0; 10], &frame(61));
    assert_eq!(late.receive().1, frame(61));

    // While the tap carries the cable, front ends are refused and the refusal is reported.
    assert!(FrontEnd::connect(&socket(&host, FAR), &GuestOptions::default()).is_err());
    fabric.wait_said(&format!("{FAR}: turned a front end away"));
    drop(late);
    until("the socket to be free", SOON, || {
        let options = GuestOptions::default();
        let mut again =
            FrontEnd::connect(&socket(&host, FAR), &options).map_err(|error| error.to_string())?;
        assert_talk(&mut again, &near, 7);
        Ok(())
    });
    fabric.end();
}

#[test]
fn a_tap_removed_beside_a_front_end_is_restored() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("under");
    let fabric = host.run(&[]);
    let near = plug(&host, NEAR);
    let mut front_end = connect(&host, FAR);
    assert_talk(&mut front_end, &near, 1);
    host.netns.ip(&format!("link del {FAR}"));
    fabric.wait_said(&format!("another program removed {FAR}: made anew"));
    assert_talk(&mut front_end, &near, 3);
    let tap = plug(&host, FAR);
    // Only a tap that the fabric knows to be open takes over when the front end leaves.
    fabric.wait_said(&format!("another program opened {FAR}"));
    drop(front_end);
    fabric.wait_said("its tap carries the cable now");
    tap.send([0; 10], &frame(9));
    assert_eq!(near.receive().1, frame(9));
    fabric.end();
}

#[test]
fn cutting_a_cable_disconnects_its_front_end() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("cutvh");
    let fabric = host.run(&[]);
    let near = plug(&host, NEAR);
    let mut front_end = connect(&host, FAR);
    assert_talk(&mut front_end, &near, 1);
    let changed = host.json(&["cable", "rack1:u3:1", "down"]);
    let notes = changed["notes"].as_array().unwrap();
    assert_eq!(notes.len(), 1, "only the tap keeps its carrier: {changed}");
    assert!(notes[0].as_str().unwrap().contains(NEAR), "{changed}");
    // Without the socket QEMU waits silently.
    assert!(!socket(&host, FAR).exists());
    assert!(FrontEnd::connect(&socket(&host, FAR), &GuestOptions::default()).is_err());
    drop(front_end);
    host.json(&["cable", "rack1:u3:1", "blackhole"]);
    assert!(socket(&host, FAR).exists(), "a blackhole has carrier");
    host.json(&["cable", "rack1:u3:1", "up"]);
    assert_talk(&mut connect(&host, FAR), &near, 5);
    fabric.end();
}

fn qemu(host: &PanelHost, options: &str) -> Guest {
    // The printed options set the memory. A machine without a boot server boots again and again.
    let machine = MACHINE.join(" ").replace("-m 64 ", "");
    let line = format!("exec qemu-system-x86_64 {machine} order=n,reboot-timeout=1000 {options}");
    Guest::start(host.netns.command("sh").args(["-c", &line]))
}

#[test]
fn qemu_accepts_the_vhost_user_options_of_vm_args() {
    if !have_qemu() {
        return;
    }
    let host = PanelHost::new("vhargs");
    let fabric = host.run(&[]);
    let leaf = plug(&host, NEAR);
    let words = "vm-args rack1:u3 --nic vhost-user --memory 64M --accel tcg";
    let printed = host.ask(&words.split(' ').collect::<Vec<_>>());
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.stderr.contains("note: "), "{printed:?}");
    assert!(!printed.stdout.contains("note: "), "{printed:?}");
    let (mac, other) = ("02:69:6b:01:03:01", "02:69:6b:01:03:02");
    let mut guest = qemu(&host, &printed.stdout);
    assert_talks(&leaf, mac);
    guest.assert_alive();

    // The same VM uses its cable again after the cut.
    host.json(&["cable", NEAR, "down"]);
    host.json(&["cable", NEAR, "up"]);
    assert_asks(&leaf, "the cut");
    guest.assert_alive();
    drop(guest);

    // The listed options, with an -m of the same size, on the other leaf.
    let listed = host.json(&["vm-args", "rack1:u3:2", "--nic=vhost-user", "--memory=64M"]);
    let listed: Vec<String> = serde_json::from_value(listed["args"].clone()).unwrap();
    let second = plug(&host, "ikls2-3");
    let mut guest = qemu(&host, &format!("-m 64 {}", listed.join(" ")));
    assert_talks(&second, other);
    guest.assert_alive();
    drop(guest);
    assert_no_complaint(&fabric);
    fabric.end();
}

/// Waits for a frame of the guest.
fn assert_asks(leaf: &Nic, after: &str) {
    let from_guest = |frame: &[u8]| frame[6..12] == [2, 0x69, 0x6b, 1, 3, 1];
    leaf.receive_until(
        &format!("a frame after {after}"),
        Duration::from_secs(90),
        from_guest,
    );
}

#[test]
fn a_vm_reconnects_to_a_restarted_fabric() {
    if !have_qemu() {
        return;
    }
    let host = PanelHost::new("vhkill");
    let mut fabric = host.run(&[]);
    let printed = host.ask(&["vm-args", FAR, "--nic=vhost-user", "--memory=64M"]);
    let mut guest = qemu(&host, &printed.stdout);
    assert_asks(&plug(&host, NEAR), "its start");
    fabric.signal(Signal::KILL);
    fabric.wait_end();
    let fabric = host.run(&[]);
    assert_asks(&plug(&host, NEAR), "the restart");
    guest.assert_alive();
    fabric.end();
}

/// The fabric has warned of nothing. The notice that a cut was recorded looks like a warning.
fn assert_no_complaint(fabric: &PanelFabric<'_>) {
    wait_until("the end of the session", SOON, || {
        !fabric.stderr().contains("plugged in already")
    });
    let said = fabric.stderr();
    let complains =
        |line: &&str| line.contains("  ! ") && !line.contains("the flight recorder kept");
    assert_eq!(said.lines().find(complains), None, "{said}");
}
