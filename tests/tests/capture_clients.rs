//! Readers of a capture: pipes, Wireshark, slow readers and readers that vanish.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ikv_tests::capturing::{Capturing, Shark, drainers, frames_and_lost, have_shark};
use ikv_tests::patience::{SOON, ended, ensure, output_within, until, wait_until};
use ikv_tests::{Pair, VhostWire, figure, have_root, ikv_fabric, run};
use rustix::process::Signal;

#[test]
fn frames_reach_a_pipe_at_once_and_closing_it_ends_the_capture() {
    if !have_root() || !have_shark() {
        return;
    }
    let pair = Pair::new("capture");
    let folder = tempfile::tempdir().unwrap();
    pair.ping_answered(1);
    let mut command = pair.wire.program();
    command.args(["capture", "wire", "-f", "icmp", "-w", "-"]);
    let mut capturing = Capturing::start(&mut command);
    let mut stdout = capturing.stdout();
    let mut bytes = vec![0; 1 << 16];
    let head = stdout.read(&mut bytes).unwrap();
    assert!(head > 100, "the beginning of the file");
    let began = Instant::now();
    pair.ping_answered(1);
    assert!(stdout.read(&mut bytes).unwrap() >= 98);
    let took = began.elapsed();
    figure(
        "capture -w -: from the ping to the pipe",
        &format!("{took:?} (wanted: 100 ms)"),
    );
    assert!(took < Duration::from_secs(2), "{took:?}");
    drop(stdout);
    assert!(capturing.wait().success(), "{}", capturing.said());
    assert_eq!(capturing.said().lines().next(), Some("capturing"));

    let file = folder.path().join("dumpcap.pcapng");
    let mut command = pair.wire.program();
    command.args(["capture", "wire", "-f", "icmp", "--count", "4", "-w", "-"]);
    let mut capturing = Capturing::start(&mut command);
    let mut dumpcap = Command::new("dumpcap");
    dumpcap.args(["-q", "-i", "-", "-w"]).arg(&file);
    dumpcap.stdin(capturing.stdout()).stderr(Stdio::null());
    let mut dumpcap = dumpcap.spawn().unwrap();
    pair.ping_answered(2);
    assert!(capturing.wait().success());
    assert!(ended(&mut dumpcap, SOON).unwrap().success());
    assert_eq!(Shark::of(&file).count(), 4);
    std::fs::remove_file(file).unwrap();
    pair.end();
}

#[test]
fn a_client_that_vanishes_leaves_no_capture_behind() {
    if !have_root() {
        return;
    }
    let pair = Pair::new("capture");
    // More clients than captures may run at the same time.
    for _ in 0..20 {
        let mut command = pair.wire.program();
        let mut capturing = Capturing::start(command.args(["capture", "wire"]));
        wait_until("the draining thread", SOON, || {
            drainers(pair.wire.pid()) == 1
        });
        capturing.signal(Signal::KILL);
        capturing.wait();
        // The capture is removed before its draining thread ends.
        until("the draining thread's end", SOON, || {
            let left = drainers(pair.wire.pid());
            ensure(left == 0, || format!("{left} are left"))
        });
    }
    pair.end();
}

#[test]
fn a_slow_reader_loses_copies_and_delays_no_frame() {
    if !have_root() || !have_shark() {
        return;
    }
    let pair = Pair::new("slow");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace.pcapng");
    let entered = || -> u64 {
        let lanes = &pair.wire.cables(&[])[0]["lanes"];
        let frames = |lane: usize| lanes[lane]["frames_in"].as_u64().unwrap();
        frames(0) + frames(1)
    };
    let before = entered();
    let capturing = pair.wire.capture_to(&file, &[]);
    capturing.signal(Signal::STOP);
    pair.send_tcp(250_000_000);
    pair.ping_answered(1);
    let sent = entered() - before;
    capturing.signal(Signal::CONT);
    let (captured, lost) = frames_and_lost(&capturing.interrupt());
    assert!(captured > 0 && lost > 0, "{captured} captured, {lost} lost");
    assert_eq!(captured + lost, sent);
    assert_eq!(Shark::of(&file).count(), captured);
    pair.end();
}

#[test]
fn a_million_frames_are_captured_or_counted_as_lost() {
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
fn wireshark_lists_cables_and_captures_on_them() {
    if !have_root() || !have_shark() {
        return;
    }
    let pair = Pair::new("capture");
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
    let mut install = at_home(pair.wire.program());
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
    // tshark reports that it captures before its extcap program does.
    wait_until("the capture", SOON, || drainers(pair.wire.pid()) == 1);
    pair.ping_answered(3);
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
    wait_until("the capture's end", SOON, || drainers(pair.wire.pid()) == 0);

    let asks = |words: &[&str]| {
        let mut command = pair.wire.program();
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
    assert!(wrong.contains("is not a tcpdump expression"), "{wrong}");
    assert!(asks(&["--extcap-interface", "wire", "--extcap-config"]).contains("{call=--from}"));
    let dlts = asks(&["--extcap-interface", "wire", "--extcap-dlts"]);
    assert!(dlts.starts_with("dlt {number=1}"), "{dlts}");
    pair.end();
    let listed = String::from_utf8_lossy(&run(&mut tshark(&["-D"])).stdout).into_owned();
    assert!(
        !listed.contains("ikv-fabric"),
        "interfaces without a fabric: {listed}"
    );
}
