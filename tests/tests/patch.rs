//! `ikv-fabric patch`: one cable between two ports without a datacenter.
#![allow(missing_docs, clippy::unwrap_used)]

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use guest::{Guest as FrontEnd, GuestOptions};
use ikv_tests::patience::{SOON, ended, wait_until};
use ikv_tests::{Answer, Netns, Wire, have_root, ikv_fabric, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn ping(from: &Netns, to: &str) -> bool {
    let mut ping = from.command("ping");
    let output = ping.args(["-c", "3", "-i", "0.1", "-w", "5", to]).output();
    output.unwrap().status.success()
}

#[test]
fn taps_keep_working_in_other_namespaces() {
    if !have_root() {
        return;
    }
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    let wire = Wire::between(Netns::new("wire"), "tap:pa", "tap:pb");
    for (netns, tap, address) in [(&left, "pa", "10.9.0.1/24"), (&right, "pb", "10.9.0.2/24")] {
        wire.switch
            .ip(&format!("link set {tap} netns {}", netns.name()));
        netns.ip(&format!("addr add {address} dev {tap}"));
        netns.ip(&format!("link set {tap} up"));
    }
    assert!(ping(&left, "10.9.0.2"));

    for name in ["wire", "pa", "wire:b"] {
        let cables = wire.cables(&[name]);
        assert_eq!(cables[0]["name"], "wire");
        for (lane, (from, to)) in [("pa", "pb"), ("pb", "pa")].into_iter().enumerate() {
            let lane = &cables[0]["lanes"][lane];
            assert_eq!((&lane["from"], &lane["to"]), (&from.into(), &to.into()));
            let count = |key: &str| lane[key].as_u64().unwrap();
            let drops = lane["drops"].as_object().unwrap().values();
            let dropped: u64 = drops.map(|count| count.as_u64().unwrap()).sum();
            assert!(count("frames_out") >= 3, "{lane}");
            let accounted = count("frames_out") + count("held") + dropped;
            assert_eq!(count("frames_in"), accounted, "{lane}");
        }
    }

    run(wire.command("cable").args(["wire", "blackhole"]));
    assert!(!ping(&left, "10.9.0.2"));
    run(wire.command("cable").args(["pa", "up"]));
    assert!(ping(&left, "10.9.0.2"));
    let unknown = wire.command("cables").arg("pc").output().unwrap();
    assert_eq!(unknown.status.code(), Some(1));

    wire.end();
    assert!(!left.ip("link show").contains("pa"), "the tap is left");
}

#[test]
fn existing_devices_are_connected_and_the_host_is_silent_on_them() {
    if !have_root() {
        return;
    }
    let switch = Netns::new("netdevs");
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    for (netns, device, address) in [(&left, "va", "10.9.1.1/24"), (&right, "vb", "10.9.1.2/24")] {
        let far = format!("{device}0");
        let name = netns.name();
        switch.ip(&format!(
            "link add {device} type veth peer name {far} netns {name}"
        ));
        netns.ip(&format!("addr add {address} dev {far}"));
        netns.ip(&format!("link set {far} up"));
        // The switch's own address on the device must stay silent.
        switch.ip(&format!("addr add 10.9.1.9/24 dev {device}"));
        switch.ip(&format!("link set {device} up"));
    }
    assert!(ping(&left, "10.9.1.9"), "an ordinary device answers");
    let wire = Wire::between(switch, "netdev:va", "netdev:vb");
    assert!(ping(&left, "10.9.1.2"));
    assert!(!ping(&left, "10.9.1.9"));
    wire.end();
}

#[test]
fn invalid_ports_are_usage_errors_and_missing_devices_are_named() {
    if !have_root() {
        return;
    }
    let netns = Netns::new("none");
    let folder = tempfile::tempdir().unwrap();
    let patch = |a: &str, b: &str| {
        let mut command = netns.command(ikv_fabric().to_str().unwrap());
        let socket = folder.path().join("wire.sock");
        command.arg("--socket").arg(socket).args(["patch", a, b]);
        command.stdin(Stdio::null()).output().unwrap()
    };
    assert_eq!(patch("ika", "tap:b").status.code(), Some(2));
    let missing = patch("tap:x0", "netdev:nosuch0");
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("nosuch0"));
    assert!(!netns.ip("link show").contains("x0"));
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

/// Debian's uid of `nobody`; the machine need not have that account.
const NOBODY: u32 = 65_534;

/// A folder of nobody's with a copy of the program: the build's folder may be closed to others.
fn nobodys_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(ikv_fabric(), folder.path().join("program")).unwrap();
    chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    folder
}

/// `ikv-fabric WORD…`, run as nobody with a runtime folder.
fn as_nobody(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    let user = NOBODY.to_string();
    command
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"])
        .arg(folder.join("program"))
        .args(words)
        .env("XDG_RUNTIME_DIR", folder)
        .stdin(Stdio::null());
    command
}

#[test]
fn a_wire_between_sockets_needs_no_root() {
    if !have_root() {
        return;
    }
    let folder = nobodys_folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let ports = [
        format!("vhost-user:{}", path("a.sock")),
        format!("vhost-user-client:{}", path("b.sock")),
    ];
    let start = || {
        let mut command = as_nobody(folder.path(), &["patch", &ports[0], &ports[1]]);
        command.stderr(Stdio::null()).spawn().unwrap()
    };
    let answers = |words: &[&str]| as_nobody(folder.path(), words).output().unwrap();
    let mut patch = start();
    wait_until("the wire", SOON, || answers(&["status"]).status.success());
    let meta = folder.path().join("a.sock").metadata().unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o600, NOBODY));
    for name in ["wire", "wire:a", "wire:b", &path("a.sock"), &path("b.sock")] {
        let said = answers(&["--json", "cables", name]);
        let cables: Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!(cables[0]["lanes"][0]["from"], path("a.sock"), "{name}");
        assert_eq!(cables[0]["lanes"][0]["to"], path("b.sock"), "{name}");
    }

    // Another wire does not take over a socket that is in use.
    let (other, c) = (path("other.sock"), format!("vhost-user:{}", path("c")));
    let refused = answers(&["--socket", &other, "patch", &ports[0], &c]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("another program listens there already"),
        "{said}"
    );

    // Root's commands believe nobody's server nothing: what it answers could name files.
    let socket = path("ikv-fabric/control.sock");
    for words in [
        &["status"][..],
        &["ssh", "leaf1"],
        &["vm-args", "rack1:u3"],
        &["cables"],
    ] {
        let mut command = Command::new(ikv_fabric());
        command.args(["--socket", &socket]).args(words);
        let answer = Answer::of(&mut command);
        let says = format!("listens at {socket} runs as user {NOBODY}, and could answer anything");
        assert!(answer.refusal().contains(&says), "{answer:?}");
    }

    // A stale socket is replaced, another file is not.
    patch.kill().unwrap();
    patch.wait().unwrap();
    assert!(folder.path().join("a.sock").exists());
    let mut patch = start();
    wait_until("the wire again", SOON, || {
        answers(&["status"]).status.success()
    });
    kill_process(Pid::from_child(&patch), Signal::TERM).unwrap();
    assert!(ended(&mut patch, SOON).unwrap().success());
    let left: Vec<_> = folder.path().read_dir().unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "more than the program is left: {left:?}");
    std::fs::write(folder.path().join("a.sock"), "precious").unwrap();
    let refused = answers(&["patch", &ports[0], &ports[1]]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("a file that is not a socket is there"),
        "{said}"
    );
    assert_eq!(
        std::fs::read(folder.path().join("a.sock")).unwrap(),
        b"precious"
    );
}

#[test]
fn cutting_a_wire_disconnects_its_front_ends() {
    let folder = tempfile::tempdir().unwrap();
    let socket = |end: &str| folder.path().join(end);
    let port = |end: &str| format!("vhost-user:{}", socket(end).display());
    let ask = |words: &[&str]| {
        let mut command = Command::new(ikv_fabric());
        command.arg("--socket").arg(socket("control")).args(words);
        command
    };
    let mut patch = ask(&["patch", &port("a"), &port("b")])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the wire", SOON, || {
        ask(&["status"]).output().unwrap().status.success()
    });
    let connects = || FrontEnd::connect(&socket("a"), &GuestOptions::default()).is_ok();
    assert!(connects());
    run(&mut ask(&["cable", "wire", "down"]));
    assert!(!connects());
    run(&mut ask(&["cable", "wire", "up"]));
    wait_until("the socket to be free", SOON, connects);
    kill_process(Pid::from_child(&patch), Signal::TERM).unwrap();
    assert!(ended(&mut patch, SOON).unwrap().success());
}

#[test]
fn workers_respect_tasksets_cpus() {
    let folder = tempfile::tempdir().unwrap();
    let port = |end: &str| format!("vhost-user:{}", folder.path().join(end).display());
    let start = |cpus: &str| {
        let mut command = Command::new("taskset");
        command
            .args(["-c", "0"])
            .arg(ikv_fabric())
            .arg("--socket")
            .arg(folder.path().join("control"))
            .args(["patch", "--cpus", cpus, &port("a"), &port("b")]);
        command
    };
    let refused = start("0,1").output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("may not run on CPU 1, only on 0"), "{said}");
    let mut patch = start("0").stderr(Stdio::null()).spawn().unwrap();
    wait_until("the wire", SOON, || folder.path().join("b").exists());
    kill_process(Pid::from_child(&patch), Signal::TERM).unwrap();
    assert!(ended(&mut patch, SOON).is_some());
}
