//! The driver of [`guest`] against another project's back end: DPDK's testpmd, which joins two
//! vhost-user ports as a cable does. Needs root and testpmd.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use guest::{Guest, GuestOptions, HEADER, Incoming, MemoryOptions, Outgoing, Ring, Shape};

const PROGRAM: &str = "/usr/bin/dpdk-testpmd";

/// The longest wait for any one event.
const LIMIT: Duration = Duration::from_secs(20);

/// testpmd in the place of a cable, with a vhost-user socket at either end.
struct Wire {
    testpmd: Child,
    work: tempfile::TempDir,
}

impl Wire {
    fn start() -> Option<Wire> {
        if !Path::new(PROGRAM).exists() || !rustix::process::geteuid().is_root() {
            eprintln!("SKIP the driver against testpmd: needs root and {PROGRAM}");
            assert!(
                std::env::var_os("CI").is_none(),
                "under CI a skip is a failure"
            );
            return None;
        }
        let work = tempfile::tempdir().unwrap();
        let port = |name: &str| {
            let path = work.path().join(name);
            format!(
                "net_vhost{},iface={}",
                u8::from(name == "b"),
                path.display()
            )
        };
        let log = File::create(work.path().join("log")).unwrap();
        let several = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
        let testpmd = Command::new(PROGRAM)
            .args([
                "--lcores",
                if several { "0@0,1@1" } else { "0@0,1@0" },
                "--no-pci",
                "--no-shconf",
                "--no-telemetry",
                "--iova-mode=va",
                "--no-huge",
                "-m",
                "512",
            ])
            .args(["--file-prefix", &format!("ikvbench{}", std::process::id())])
            .args(["--vdev", &port("a"), "--vdev", &port("b"), "--", "-i"])
            .args([
                "--no-mlockall",
                "--total-num-mbufs=16384",
                "--nb-cores=1",
                "--burst=32",
            ])
            .args(["--max-pkt-len=9600", "--auto-start"])
            // testpmd ends when its standard input does.
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let wire = Wire { testpmd, work };
        let began = Instant::now();
        while !wire.log().contains("Press enter") && !wire.log().contains("testpmd>") {
            assert!(began.elapsed() < LIMIT, "{}", wire.log());
            std::thread::yield_now();
        }
        Some(wire)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.work.path().join("log")).unwrap_or_default()
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn guests(&self, options: &GuestOptions) -> [Guest; 2] {
        ["a", "b"].map(|name| Guest::connect(&self.socket(name), options).unwrap())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.testpmd.kill().unwrap();
        self.testpmd.wait().unwrap();
    }
}

/// Sends frames of many sizes from `from` to `to` and checks every byte that arrives.
fn every_frame_arrives(from: &mut Guest, to: &mut Guest, longest: usize) {
    let count = 3_000;
    let frame = |number: usize| -> Vec<u8> {
        let len = 60 + number * 37 % (longest - 60);
        (0..len).map(|at| (at * 3 + number) as u8).collect()
    };
    let (mut sent, mut received) = (0, 0);
    let began = Instant::now();
    while received < count {
        if sent < count && sent - received < 32 {
            sent += from
                .queue(1)
                .send(1, |outgoing| {
                    outgoing.header(&[0; HEADER]);
                    outgoing.frame(&frame(sent));
                })
                .unwrap();
        }
        to.queue(0)
            .receive(32, |incoming| {
                let wanted = frame(received);
                assert_eq!(incoming.len(), wanted.len());
                assert!(incoming.holds(0, &wanted), "frame {received}");
                assert_eq!(incoming.to_vec(), wanted);
                received += 1;
            })
            .unwrap();
        // The first frames may come before testpmd polls the other port.
        assert!(
            began.elapsed() < LIMIT,
            "{received} of {sent} frames arrived"
        );
    }
}

/// Waits until the back end polls both ends: it drops frames that arrive earlier.
fn warm_up(guests: &mut [Guest; 2]) {
    let began = Instant::now();
    for (from, to) in [(0, 1), (1, 0)] {
        let mut arrived = 0;
        while arrived == 0 {
            guests[from]
                .queue(1)
                .send(1, |frame| frame.frame(&[0x55; 60]))
                .unwrap();
            arrived = guests[to].queue(0).receive(64, |_| ()).unwrap();
            assert!(began.elapsed() < LIMIT, "no frame from end {from}");
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut last = Instant::now();
        while last.elapsed() < Duration::from_millis(50) {
            if guests[to].queue(0).receive(64, |_| ()).unwrap() > 0 {
                last = Instant::now();
            }
        }
    }
}

/// All combinations of options to test, except for the kind of ring.
fn variants() -> Vec<(&'static str, GuestOptions)> {
    let plain = GuestOptions {
        send_capacity: 1514,
        ..GuestOptions::default()
    };
    let chained = |count| GuestOptions {
        send_shape: Shape::Chained(count),
        ..plain
    };
    let indirect = Shape::Indirect(3);
    let mergeable = GuestOptions {
        mergeable: true,
        send_capacity: 9014,
        ..plain
    };
    let memory = MemoryOptions {
        regions: 4,
        huge: true,
        sealed: true,
    };
    vec![
        ("plain", plain),
        (
            "in order",
            GuestOptions {
                in_order: true,
                ..plain
            },
        ),
        (
            "event idx",
            GuestOptions {
                event_idx: true,
                ..plain
            },
        ),
        ("chained", chained(4)),
        (
            "chained, in order",
            GuestOptions {
                in_order: true,
                ..chained(2)
            },
        ),
        (
            "chained receive",
            GuestOptions {
                receive_shape: Shape::Chained(3),
                ..plain
            },
        ),
        (
            "indirect",
            GuestOptions {
                send_shape: indirect,
                receive_shape: indirect,
                ..plain
            },
        ),
        (
            "64",
            GuestOptions {
                queue_size: 64,
                ..plain
            },
        ),
        (
            "1024",
            GuestOptions {
                queue_size: 1024,
                ..plain
            },
        ),
        ("mergeable", mergeable),
        (
            "mergeable, in order",
            GuestOptions {
                in_order: true,
                ..mergeable
            },
        ),
        (
            "four regions of huge pages",
            GuestOptions { memory, ..plain },
        ),
    ]
}

#[test]
#[ignore = "needs huge pages: sysctl vm.nr_hugepages=1024, then `cargo test -p ikv-guest -- --ignored`"]
fn every_kind_of_ring_carries_frames() {
    let Some(wire) = Wire::start() else { return };
    for ring in [Ring::Split, Ring::Packed] {
        for (what, options) in variants() {
            let options = GuestOptions { ring, ..options };
            let mut guests = wire.guests(&options);
            warm_up(&mut guests);
            let [a, b] = &mut guests;
            every_frame_arrives(a, b, options.send_capacity);
            every_frame_arrives(b, a, options.send_capacity);
            println!(
                "{ring:?} {what}: features {:#x}, {} kicks",
                a.features(),
                a.queue(1).kicks()
            );
        }
    }
}

/// Prints the highest rate of the driver through testpmd, in both directions, from one thread.
#[test]
#[ignore = "prints a figure, checks nothing"]
fn rate() {
    let Some(wire) = Wire::start() else { return };
    for ring in [Ring::Split, Ring::Packed] {
        for in_order in [false, true] {
            let options = GuestOptions {
                ring,
                in_order,
                queue_size: 1024,
                memory: MemoryOptions {
                    huge: true,
                    ..MemoryOptions::default()
                },
                ..GuestOptions::default()
            };
            let mut guests = wire.guests(&options);
            warm_up(&mut guests);
            for guest in &mut guests {
                guest.queue(1).load(&[0; HEADER], &[0x55; 64]);
            }
            let (began, mut received, mut sent, mut next) = (Instant::now(), [0; 2], [0; 2], 0);
            while began.elapsed() < Duration::from_secs(3) {
                for lane in [0, 1].repeat(64) {
                    let free = 512 - (sent[lane] - received[lane]);
                    let fill = |frame: &mut Outgoing<'_>| {
                        next += 1;
                        frame.word(16, next);
                    };
                    sent[lane] += guests[lane].queue(1).send(free.min(32), fill).unwrap();
                    let mut sum = 0;
                    let take = |frame: &Incoming<'_>| sum += frame.word(16).unwrap();
                    received[lane] += guests[1 - lane].queue(0).receive(64, take).unwrap();
                    std::hint::black_box(sum);
                }
            }
            let rate = received.iter().sum::<usize>() as f64 / began.elapsed().as_secs_f64() / 1e6;
            println!("{ring:?}, in order {in_order}: {rate:.2} Mpps, {received:?} of {sent:?}");
        }
    }
}
