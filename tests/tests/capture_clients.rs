//! Who reads a capture: pipes, Wireshark, those that are slow, those that go away.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ikv_tests::capturing::{Capturing, Shark, drainers, frames_and_lost, have_shark, ping, send};
use ikv_tests::patience::{SOON, ended, ensure, output_within, until, wait_until};
use ikv_tests::{Pair, VhostWire, figure, have_root, ikv_fabric, run};
use rustix::process::Signal;

#[test]
fn standard_output_is_written_at_once_and_its_end_ends_the_capture() {
    if !have_root() || !have_shark() {
        return;
    }
    let Pair {
        wire,
        left,
        right: _right,
    } = Pair::new("capture");
    let folder = tempfile::tempdir().unwrap();
    ping(&left, 1);
    let mut command = wire.program();
    command.args(["capture", "wire", "-f", "icmp", "-w", "-"]);
    let mut capturing = Capturing::start(&mut command);
    let mut stdout = capturing.stdout();
    let mut bytes = vec![0; 1 << 16];
    let head = stdout.read(&mut bytes).unwrap();
    assert!(head > 100, "the file's beginning");
    let began = Instant::now();
    ping(&left, 1);
    assert!(stdout.read(&mut bytes).unwrap() >= 98);
    let took = began.elapsed();
    figure(
        "capture -w -: a ping, and it is in the pipe",
        &format!("{took:?} (wanted: 100 ms)"),
    );
    assert!(took < Duration::from_secs(2), "{took:?}");
    drop(stdout);
    assert!(capturing.wait().success(), "{}", capturing.said());
    assert_eq!(capturing.said().lines().next(), Some("capturing"));

    let file = folder.path().join("dumpcap.pcapng");
    let mut command = wire.program();
    command.args(["capture", "wire", "-f", "icmp", "--count", "4", "-w", "-"]);
    let mut capturing = Capturing::start(&mut command);
    let mut dumpcap = Command::new("dumpcap");
    dumpcap.args(["-q", "-i", "-", "-w"]).arg(&file);
    dumpcap.stdin(capturing.stdout()).stderr(Stdio::null());
    let mut dumpcap = dumpcap.spawn().unwrap();
    ping(&left, 2);
    assert!(capturing.wait().success());
    assert!(ended(&mut dumpcap, SOON).unwrap().success());
    assert_eq!(Shark::of(&file).count(), 4);
    std::fs::remove_file(file).unwrap();
    wire.end();
}

#[test]
fn a_client_that_is_gone_leaves_no_tap_behind() {
    if !have_root() {
        return;
    }
    let Pair {
        wire,
        left: _left,
        right: _right,
    } = Pair::new("capture");
    // More than may run at the same time.
    for _ in 0..20 {
        let mut command = wire.program();
        let mut capturing = Capturing::start(command.args(["capture", "wire"]));
        wait_until("the draining thread", SOON, || drainers(wire.pid()) == 1);
        capturing.signal(Signal::KILL);
        capturing.wait();
        // A tap is gone before its thread is.
        until("the draining thread's end", SOON, || {
            let left = drainers(wire.pid());
            ensure(left == 0, || format!("{left} are left"))
        });
    }
    wire.end();
}

#[test]
fn a_reader_that_is_too_slow_loses_copies_and_delays_nobody() {
    if !have_root() || !have_shark() {
        return;
    }
    let Pair { wire, left, right } = Pair::new("slow");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace.pcapng");
    let entered = || -> u64 {
        let lanes = &wire.cables(&[])[0]["lanes"];
        let frames = |lane: usize| lanes[lane]["frames_in"].as_u64().unwrap();
        frames(0) + frames(1)
    };
    let before = entered();
    let mut command = wire.command("capture");
    let capturing = Capturing::start(command.args(["wire", "-w"]).arg(&file));
    capturing.signal(Signal::STOP);
    send([&left, &right], 250_000_000);
    ping(&left, 1);
    let sent = entered() - before;
    capturing.signal(Signal::CONT);
    let (captured, lost) = frames_and_lost(&capturing.interrupt());
    assert!(captured > 0 && lost > 0, "{captured} captured, {lost} lost");
    assert_eq!(captured + lost, sent);
    assert_eq!(Shark::of(&file).count(), captured);
    wire.end();
}

#[test]
fn a_million_frames_are_all_captured_or_counted() {
    if !have_shark() {
        return;
    }
    let wire = VhostWire::start();
    let program = |words: &[&str]| {
        let mut command = Command::new(ikv_fabric());
        command
            .arg("--socket")
            .arg(wire.folder().join("control"))
            .args(words);
        command
    };
    let file = wire.folder().join("trace.pcapng");
    let mut command = program(&["--json", "capture", "wire", "--snap", "64", "-w"]);
    let capturing = Capturing::start(command.arg(&file));
    let frames = |wire: &VhostWire| -> u64 { wire.lanes().iter().map(|lane| lane.frames_in).sum() };
    until("a million frames", Duration::from_secs(90), || {
        let load = [
            "bench", "wire", "--size", "64", "--time", "2", "--trial", "0", "--load", "1000",
        ];
        let output = output_within(&mut program(&load), SOON);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let frames = frames(&wire);
        ensure(frames >= 1_000_000, || format!("{frames} frames"))
    });
    wire.quiet();
    let sent = frames(&wire);
    let (captured, lost) = frames_and_lost(&capturing.interrupt());
    figure(
        "frames through a captured cable",
        &format!("{sent}, of which {captured} captured and {lost} counted as lost"),
    );
    assert_eq!(captured + lost, sent);
    assert_eq!(Shark::of(&file).count(), captured);
    std::fs::remove_file(file).unwrap();
    wire.end();
}

#[test]
fn wireshark_lists_the_cables_and_captures_on_them() {
    if !have_root() || !have_shark() {
        return;
    }
    let Pair {
        wire,
        left,
        right: _right,
    } = Pair::new("capture");
    let home = tempfile::tempdir().unwrap();
    let at_home = |mut command: Command| {
        command
            .env("HOME", home.path())
            .env_remove("XDG_CONFIG_HOME");
        command
    };
    let tshark = |words: &[&str]| {
        let mut command = at_home(Command::new("tshark"));
        command.args(words);
        command
    };
    let mut install = at_home(wire.program());
    run(install.args(["extcap", "install"]));
    let listed = String::from_utf8_lossy(&run(&mut tshark(&["-D"])).stdout).into_owned();
    assert!(
        listed.contains("wire (ikv-fabric cable, pa - pb)"),
        "{listed}"
    );
    assert!(
        listed.contains("ikv-fabric (every cable of ikv-fabric)"),
        "{listed}"
    );

    let file = home.path().join("trace.pcapng");
    let mut command = tshark(&["-i", "wire", "-f", "icmp", "-c", "4", "-w"]);
    let mut running = command.arg(&file).stderr(Stdio::piped()).spawn().unwrap();
    // tshark says that it captures before its extcap does.
    wait_until("the tap", SOON, || drainers(wire.pid()) == 1);
    ping(&left, 3);
    assert!(ended(&mut running, SOON).unwrap().success());
    let mut said = String::new();
    running
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(!said.contains("Error"), "{said}");
    let shark = Shark::of(&file);
    assert_eq!(shark.count(), 4);
    assert!(shark.info().contains("Name = pb"));
    wait_until("the tap's end", SOON, || drainers(wire.pid()) == 0);

    let asks = |words: &[&str]| {
        let mut command = wire.program();
        let output = run(command.arg("extcap").args(words));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(
        asks(&[
            "--extcap-interface",
            "wire",
            "--extcap-capture-filter",
            "arp"
        ]),
        ""
    );
    let wrong = asks(&[
        "--extcap-interface",
        "wire",
        "--extcap-capture-filter",
        "prot 9",
    ]);
    assert!(wrong.contains("is no tcpdump expression"), "{wrong}");
    assert!(asks(&["--extcap-interface", "wire", "--extcap-config"]).contains("{call=--from}"));
    let dlts = asks(&["--extcap-interface", "wire", "--extcap-dlts"]);
    assert!(dlts.starts_with("dlt {number=1}"), "{dlts}");
    wire.end();
    let listed = String::from_utf8_lossy(&run(&mut tshark(&["-D"])).stdout).into_owned();
    assert!(
        !listed.contains("ikv-fabric"),
        "no fabric, no interface: {listed}"
    );
}
