//! `ikv-fabric capture`: every frame once, as Wireshark reads it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use ikv_tests::capturing::{Capturing, Shark, frames_and_lost, have_shark, ping, send};
use ikv_tests::patience::{SOON, output_within};
use ikv_tests::{Netns, Pair, Wire, have_root, run};
use serde_json::Value;

#[test]
fn every_frame_is_there_once_with_its_port_and_direction() {
    if !have_root() || !have_shark() {
        return;
    }
    let Pair {
        wire,
        left,
        right: _right,
    } = Pair::new("capture");
    let folder = tempfile::tempdir().unwrap();
    let directions = [
        "frame.interface_name",
        "frame.packet_flags_direction",
        "icmp.type",
    ];
    let row = |row: [&str; 3]| row.map(str::to_owned).to_vec();
    for (option, expected) in [
        (
            "--snap=0",
            [
                row(["pa", "0x00000001", "8"]),
                row(["pb", "0x00000001", "0"]),
            ],
        ),
        (
            "--wire",
            [
                row(["pb", "0x00000002", "8"]),
                row(["pa", "0x00000002", "0"]),
            ],
        ),
    ] {
        let file = folder.path().join("trace.pcapng");
        let mut command = wire.command("capture");
        command.args(["wire", option, "-w"]).arg(&file);
        let capturing = Capturing::start(&mut command);
        ping(&left, 3);
        // What was seen until then is written.
        let (frames, lost) = frames_and_lost(&capturing.interrupt());
        let shark = Shark::of(&file);
        assert_eq!((shark.count(), lost), (frames, 0));
        let pings = shark.fields("icmp", &directions);
        assert_eq!(pings.len(), 6, "{pings:?}");
        for pair in pings.chunks(2) {
            assert_eq!(pair, expected);
        }
        let info = shark.info();
        for words in [
            "Number of interfaces in file: 2",
            "Name = pa",
            "Description = wire:b, cable wire",
            "Time precision = nanoseconds (9)",
            "Strict time order:   True",
            "Number of stat entries = 1",
        ] {
            assert!(info.contains(words), "{words}: {info}");
        }
        std::fs::remove_file(file).unwrap();
    }
    wire.end();
}

#[test]
fn a_verdict_is_a_comment_of_the_frame() {
    if !have_root() || !have_shark() {
        return;
    }
    let Pair {
        wire,
        left,
        right: _right,
    } = Pair::new("capture");
    let folder = tempfile::tempdir().unwrap();
    run(wire.command("cable").args(["wire", "blackhole"]));
    let file = folder.path().join("trace.pcapng");
    let mut command = wire.command("capture");
    command.args(["wire", "--count", "2", "-w"]).arg(&file);
    let capturing = Capturing::start(&mut command);
    let mut ping = left.command("ping");
    ping.args(["-c", "3", "-i", "0.1", "-w", "1", "10.9.0.2"]);
    output_within(&mut ping, SOON);
    capturing.finish();
    let told = Shark::of(&file).verbose();
    assert!(told.contains("dropped: blackhole"), "{told}");

    // Nothing comes out of a blackhole.
    let mut command = wire.command("capture");
    command.args(["wire", "--wire", "--for", "300ms"]);
    let capturing = Capturing::start(&mut command);
    output_within(&mut ping, SOON);
    assert_eq!(capturing.finish(), "");
}

/// What a capture says of pings while one thing is done to them.
fn verdicts(wire: &Wire, left: &Netns, impairment: &[&str], options: &[&str]) -> Vec<String> {
    let impair = [
        &["wire", "--from", "pa", "--clear", "--match", "icmp"],
        impairment,
    ]
    .concat();
    run(wire.command("impair").args(impair));
    let mut command = wire.command("capture");
    command.args(["wire", "-f", "icmp[icmptype] = icmp-echo"]);
    let capturing = Capturing::start(command.args(options));
    let mut ping = left.command("ping");
    output_within(
        ping.args(["-c", "2", "-i", "0.1", "-W", "1", "10.9.0.2"]),
        SOON,
    );
    let text = capturing.interrupt();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let verdict = |line: Value| line["verdict"].as_str().unwrap_or_default().to_owned();
    lines.map(verdict).collect()
}

#[test]
fn what_an_impairment_does_to_a_frame_is_said_of_it() {
    if !have_root() {
        return;
    }
    let Pair {
        wire,
        left,
        right: _right,
    } = Pair::new("verdicts");
    let said = |impairment: &[&str]| verdicts(&wire, &left, impairment, &[]);
    assert_eq!(said(&["--delay", "10ms"]), ["delayed 10.000 ms"; 2]);
    assert_eq!(said(&["--loss", "100%"]), ["dropped: loss"; 2]);
    assert_eq!(said(&["--drop", "1"]), ["dropped: chosen", ""]);
    assert_eq!(said(&["--duplicate", "100%"]), ["duplicated"; 2]);
    let corrupted = said(&["--corrupt", "100%"]);
    assert_eq!(corrupted.len(), 2);
    for verdict in corrupted {
        assert!(verdict.starts_with("corrupted: bit "), "{verdict}");
    }
    // At the port where they leave: what came out.
    let out = |impairment: &[&str]| verdicts(&wire, &left, impairment, &["--wire"]);
    assert_eq!(out(&["--loss", "100%"]).len(), 0);
    let mut twice = out(&["--duplicate", "100%"]);
    twice.sort();
    assert_eq!(
        twice,
        ["duplicated", "duplicated", "the duplicate", "the duplicate"]
    );
    run(wire.command("impair").args(["wire", "--clear"]));
    wire.end();
}

#[test]
fn captures_of_both_ports_have_one_clock() {
    if !have_root() {
        return;
    }
    let Pair {
        wire,
        left,
        right: _right,
    } = Pair::new("clock");
    run(wire
        .command("impair")
        .args(["wire", "--from", "pa", "--delay", "30ms"]));
    let capture = |options: &[&str]| {
        let mut command = wire.command("capture");
        command.args(["wire", "-f", "icmp[icmptype] = icmp-echo", "--count", "3"]);
        Capturing::start(command.args(options))
    };
    let (entered, left_it) = (capture(&[]), capture(&["--wire"]));
    ping(&left, 3);
    let times = |text: String| -> Vec<u64> {
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .map(|line| line["time_ns"].as_u64().unwrap())
            .collect()
    };
    let (entered, left_it) = (times(entered.finish()), times(left_it.finish()));
    for (entered, left_it) in entered.iter().zip(&left_it) {
        let took = left_it.saturating_sub(*entered);
        assert!((30_000_000..130_000_000).contains(&took), "{took} ns");
    }
    assert_eq!((entered.len(), left_it.len()), (3, 3));
    wire.end();
}

#[test]
fn a_filter_a_count_a_time_and_a_port_choose_the_frames() {
    if !have_root() {
        return;
    }
    let Pair {
        wire,
        left,
        right: _right,
    } = Pair::new("capture");
    let lines = |options: &[&str]| {
        let mut command = wire.command("capture");
        let capturing = Capturing::start(command.arg("wire").args(options));
        ping(&left, 3);
        let text = capturing.finish();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect::<Vec<Value>>()
    };
    let echoes = lines(&["-f", "icmp[icmptype] = icmp-echo", "--count", "2"]);
    assert_eq!(echoes.len(), 2);
    for line in &echoes {
        assert_eq!(
            (&line["port"], &line["direction"]),
            (&"pa".into(), &"in".into())
        );
        assert_eq!(
            (&line["length"], &line["captured"]),
            (&98.into(), &98.into())
        );
    }
    let replies = lines(&[
        "--from", "wire:b", "-f", "icmp", "--count", "3", "--snap", "60",
    ]);
    assert!(
        replies
            .iter()
            .all(|line| line["port"] == "pb" && line["captured"] == 60)
    );
    let began = Instant::now();
    assert!(lines(&["--for", "500ms", "-f", "udp port 9"]).is_empty());
    assert!(began.elapsed() >= Duration::from_millis(500));

    let refused = |options: &[&str], words: &str| {
        let mut command = wire.program();
        let output = command.arg("capture").args(options).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
    };
    refused(
        &["wire", "-f", "prot 9"],
        "\"prot 9\" is no tcpdump expression",
    );
    refused(&["pc"], "there is no cable \"pc\"");
    refused(&["wire", "--from", "pc"], "there is no port \"pc\"");
    refused(
        &["wire", "-w", "/nonexistent/t"],
        "cannot write /nonexistent/t",
    );
    wire.end();
}

#[test]
fn a_ring_keeps_the_newest_files() {
    if !have_root() || !have_shark() {
        return;
    }
    let Pair { wire, left, right } = Pair::new("capture");
    let folder = tempfile::tempdir().unwrap();
    let mut command = wire.command("capture");
    command.args(["wire", "--ring", "2x1MB", "-w"]);
    let capturing = Capturing::start(command.arg(folder.path().join("t.pcapng")));
    send([&left, &right], 8_000_000);
    let (frames, lost) = frames_and_lost(&capturing.interrupt());
    assert!(frames > 100 && lost == 0, "{frames} frames, {lost} lost");
    let files = std::fs::read_dir(folder.path()).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in &files {
        assert!(file.metadata().unwrap().len() <= 1_000_000);
        let shark = Shark::of(file);
        assert!(shark.count() > 0 && shark.info().contains("Number of stat entries = 1"));
    }
    wire.end();
}

#[test]
fn super_frames_are_flagged_or_cut_and_no_checksum_looks_wrong() {
    if !have_root() || !have_shark() {
        return;
    }
    let Pair { wire, left, right } = Pair::new("capture");
    let folder = tempfile::tempdir().unwrap();
    let capture = |options: &[&str]| {
        let file = folder.path().join("trace.pcapng");
        let mut command = wire.command("capture");
        command
            .args(["wire", "-f", "tcp", "-w"])
            .arg(&file)
            .args(options);
        let capturing = Capturing::start(&mut command);
        send([&left, &right], 1_000_000);
        let (frames, lost) = frames_and_lost(&capturing.interrupt());
        let shark = Shark::of(&file);
        assert_eq!((shark.count(), lost), (frames, 0));
        assert!(!shark.has_wrong_checksums());
        let fields = ["frame.len", "frame.comment", "frame.packet_flags"];
        let rows = shark.fields("tcp.len > 1448", &fields);
        std::fs::remove_file(file).unwrap();
        (rows, frames)
    };
    let (supers, whole) = capture(&[]);
    assert!(!supers.is_empty());
    for row in &supers {
        let [length, comment, flags] = &row[..] else {
            panic!("{row:?}")
        };
        let pieces = (length.parse::<usize>().unwrap() - 66).div_ceil(1448);
        assert_eq!(comment, &format!("super-frame: {pieces} pieces of 1448"));
        assert_eq!(flags, "0x00000a01");
    }
    let (none, cut) = capture(&["--segment"]);
    assert!(none.is_empty(), "{none:?}");
    assert!(cut > whole && cut >= 1_000_000 / 1448, "{cut}");
    wire.end();
}
