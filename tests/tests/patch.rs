//! `ikv-fabric patch`: one cable between two ports, without a datacenter.
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::{Child, Command, Stdio};

use ikv_tests::patience::{SOON, ended, wait_until};
use ikv_tests::{Netns, have_root, ikv_fabric, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A running patch in a namespace of its own.
struct Wire {
    switch: Netns,
    folder: tempfile::TempDir,
    process: Child,
}

impl Wire {
    fn between(switch: Netns, a: &str, b: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = switch
            .command(ikv_fabric().to_str().unwrap())
            .arg("--socket")
            .arg(folder.path().join("wire.sock"))
            .args(["patch", a, b])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let wire = Wire {
            switch,
            folder,
            process,
        };
        wait_until("the wire's socket", SOON, || {
            wire.command("status").output().unwrap().status.success()
        });
        wire
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(ikv_fabric());
        let socket = self.folder.path().join("wire.sock");
        command.args(["--json", "--socket"]).arg(socket).arg(verb);
        command
    }

    fn cables(&self, names: &[&str]) -> Value {
        let output = run(self.command("cables").args(names));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Ends it and expects that nothing of it is left.
    fn end(mut self) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::INT).unwrap();
        let status = ended(&mut self.process, SOON).expect("it ends when told to");
        assert!(status.success(), "{status}");
        assert_eq!(self.folder.path().read_dir().unwrap().count(), 0);
        let rules = self.switch.run("nft list ruleset");
        assert_eq!(rules, "", "its guard is gone");
    }
}

fn ping(from: &Netns, to: &str) -> bool {
    let mut ping = from.command("ping");
    let output = ping.args(["-c", "3", "-i", "0.1", "-w", "5", to]).output();
    output.unwrap().status.success()
}

#[test]
fn taps_work_on_in_the_namespaces_they_are_moved_to() {
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
    assert!(!left.ip("link show").contains("pa"), "the tap is gone");
}

#[test]
fn devices_that_exist_are_joined_and_the_host_does_not_answer_on_them() {
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
    assert!(
        ping(&left, "10.9.1.9"),
        "without a wire it is an ordinary device"
    );
    let wire = Wire::between(switch, "netdev:va", "netdev:vb");
    assert!(ping(&left, "10.9.1.2"));
    assert!(!ping(&left, "10.9.1.9"));
    wire.end();
}

#[test]
fn what_is_no_port_is_a_usage_error_and_what_does_not_exist_is_named() {
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
