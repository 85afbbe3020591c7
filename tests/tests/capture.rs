//! `ikv-fabric capture`: each frame is captured once, and Wireshark reads the files.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use ikv_tests::capturing::{Shark, frames_and_lost, have_shark};
use ikv_tests::patience::{SOON, output_within};
use ikv_tests::{Pair, have_root, run};
use serde_json::Value;

#[test]
fn each_frame_is_captured_once_with_port_and_direction() {
    if !have_root() || !have_shark() {
        return;
    }
    let pair = Pair::new("capture");
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
        let capturing = pair.wire.capture_to(&file, &[option]);
        pair.ping_answered(3);
        // An interrupted capture still writes the frames that it has seen.
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
    pair.end();
}

#[test]
fn a_frames_comment_is_its_verdict() {
    if !have_root() || !have_shark() {
        return;
    }
    let pair = Pair::new("capture");
    let folder = tempfile::tempdir().unwrap();
    run(pair.wire.command("cable").args(["wire", "blackhole"]));
    let file = folder.path().join("trace.pcapng");
    let capturing = pair.wire.capture_to(&file, &["--count", "2"]);
    let mut ping = pair.left.command("ping");
    ping.args(["-c", "3", "-i", "0.1", "-w", "1", "10.9.0.2"]);
    output_within(&mut ping, SOON);
    capturing.finish();
    let packets = Shark::of(&file).verbose();
    assert!(packets.contains("dropped: blackhole"), "{packets}");

    // No frame leaves a blackhole.
    let capturing = pair.wire.capture(&["--wire", "--for", "300ms"]);
    output_within(&mut ping, SOON);
    assert_eq!(capturing.finish(), "");
}

/// The verdicts of a capture on two pings while the frames from `pa` are impaired.
fn verdicts(pair: &Pair, impairment: &[&str], options: &[&str]) -> Vec<String> {
    let impair = [
        &["wire", "--from", "pa", "--clear", "--match", "icmp"],
        impairment,
    ]
    .concat();
    run(pair.wire.command("impair").args(impair));
    let echoes = ["-f", "icmp[icmptype] = icmp-echo"];
    let capturing = pair.wire.capture(&[&echoes, options].concat());
    let mut ping = pair.left.command("ping");
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
fn a_verdict_names_what_an_impairment_did() {
    if !have_root() {
        return;
    }
    let pair = Pair::new("verdicts");
    let said = |impairment: &[&str]| verdicts(&pair, impairment, &[]);
    assert_eq!(said(&["--delay", "10ms"]), ["delayed 10.000 ms"; 2]);
    assert_eq!(said(&["--loss", "100%"]), ["dropped: loss"; 2]);
    assert_eq!(said(&["--drop", "1"]), ["dropped: chosen", ""]);
    assert_eq!(said(&["--duplicate", "100%"]), ["duplicated"; 2]);
    let corrupted = said(&["--corrupt", "100%"]);
    assert_eq!(corrupted.len(), 2);
    for verdict in corrupted {
        assert!(verdict.starts_with("corrupted: bit "), "{verdict}");
    }
    // With --wire, the frames as they left the cable.
    let out = |impairment: &[&str]| verdicts(&pair, impairment, &["--wire"]);
    assert_eq!(out(&["--loss", "100%"]).len(), 0);
    let mut twice = out(&["--duplicate", "100%"]);
    twice.sort();
    assert_eq!(
        twice,
        ["duplicated", "duplicated", "the duplicate", "the duplicate"]
    );
    run(pair.wire.command("impair").args(["wire", "--clear"]));
    pair.end();
}

#[test]
fn captures_share_one_clock() {
    if !have_root() {
        return;
    }
    let pair = Pair::new("clock");
    run(pair
        .wire
        .command("impair")
        .args(["wire", "--from", "pa", "--delay", "30ms"]));
    let capture = |options: &[&str]| {
        let echoes = ["-f", "icmp[icmptype] = icmp-echo", "--count", "3"];
        pair.wire.capture(&[&echoes, options].concat())
    };
    let (entered, left_at) = (capture(&[]), capture(&["--wire"]));
    pair.ping_answered(3);
    let times = |text: String| -> Vec<u64> {
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .map(|line| line["time_ns"].as_u64().unwrap())
            .collect()
    };
    let (entered, left_at) = (times(entered.finish()), times(left_at.finish()));
    for (entered, left_at) in entered.iter().zip(&left_at) {
        let took = left_at.saturating_sub(*entered);
        assert!((30_000_000..130_000_000).contains(&took), "{took} ns");
    }
    assert_eq!((entered.len(), left_at.len()), (3, 3));
    pair.end();
}

#[test]
fn filter_count_time_and_port_select_frames() {
    if !have_root() {
        return;
    }
    let pair = Pair::new("capture");
    let lines = |options: &[&str]| {
        let capturing = pair.wire.capture(options);
        pair.ping_answered(3);
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
        let mut command = pair.wire.program();
        let output = command.arg("capture").args(options).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
    };
    refused(
        &["wire", "-f", "prot 9"],
        "\"prot 9\" is not a tcpdump expression",
    );
    refused(&["pc"], "there is no cable \"pc\"");
    refused(&["wire", "--from", "pc"], "there is no port \"pc\"");
    refused(
        &["wire", "-w", "/nonexistent/t"],
        "cannot write /nonexistent/t",
    );
    pair.end();
}

#[test]
fn a_ring_keeps_the_newest_files() {
    if !have_root() || !have_shark() {
        return;
    }
    let pair = Pair::new("capture");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.pcapng");
    let capturing = pair.wire.capture_to(&file, &["--ring", "2x1MB"]);
    pair.send_tcp(8_000_000);
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
    pair.end();
}

#[test]
fn super_frames_are_flagged_or_segmented_with_valid_checksums() {
    if !have_root() || !have_shark() {
        return;
    }
    let pair = Pair::new("capture");
    let folder = tempfile::tempdir().unwrap();
    let capture = |options: &[&str]| {
        let file = folder.path().join("trace.pcapng");
        let capturing = pair
            .wire
            .capture_to(&file, &[&["-f", "tcp"], options].concat());
        pair.send_tcp(1_000_000);
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
    pair.end();
}
