//! Front ends that break rules: each costs its own session, with one sentence that says why.
#![allow(missing_docs, clippy::unwrap_used)]

mod front_end;

use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use front_end::*;
use ikv_dataplane::vhost_sockets::{Role, SocketEvent, SocketSpec};
use rustix::fs::ftruncate;
use rustix::net::sockopt::set_socket_linger;

/// What a front end does, and a part of the sentence that it earns.
type Case = (&'static str, fn(&mut FrontEnd, &Guest));

fn raw(front: &FrontEnd, request: u32, flags: u32, body: &[u8]) {
    front
        .raw(&FrontEnd::message(request, flags, body), &[])
        .unwrap();
}

fn share(front: &mut FrontEnd, regions: &[[u64; 4]], files: &[BorrowedFd<'_>]) {
    front.send(request::SET_MEM_TABLE, &table(regions), files);
}

fn region(guest: u64, size: u64, user: u64) -> [u64; 4] {
    [guest, size, user, 0]
}

const CASES: &[Case] = &[
    ("request 4000 is none", |front, _| {
        raw(front, 4000, REQUEST, &[]);
    }),
    ("flags 0x2", |front, _| {
        raw(front, request::SET_OWNER, 2, &[]);
    }),
    ("flags 0x5", |front, _| {
        raw(front, request::SET_OWNER, 5, &[]);
    }),
    ("a body of 4294967295 bytes", |front, _| {
        let words = [request::SET_OWNER, REQUEST, u32::MAX];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        front.raw(&bytes, &[]).unwrap();
    }),
    ("SET_OWNER: its body", |front, _| {
        front.send(request::SET_OWNER, &[0; 8], &[]);
    }),
    ("SET_FEATURES: its body", |front, _| {
        front.send(request::SET_FEATURES, &[0; 7], &[]);
    }),
    (
        "SET_OWNER: another number of descriptors",
        |front, guest| {
            front.send(request::SET_OWNER, &[], &[guest.file.as_fd()]);
        },
    ),
    (
        "SET_VRING_KICK: another number of descriptors",
        |front, _| {
            front.send(request::SET_VRING_KICK, &words(&[0]), &[]);
        },
    ),
    (
        "SET_VRING_CALL: another number of descriptors",
        |front, guest| {
            let files = [guest.calls[0].as_fd(); 2];
            front.send(request::SET_VRING_CALL, &words(&[0]), &files);
        },
    ),
    ("more than 32 descriptors", |front, guest| {
        let bytes = FrontEnd::message(request::SET_OWNER, REQUEST, &[]);
        front.raw(&bytes, &[guest.file.as_fd(); 253]).unwrap();
    }),
    ("more than 32 descriptors", |front, guest| {
        // A few with every byte of a header that is never complete.
        for _ in 0..11 {
            let _ = front.raw(&[1], &[guest.file.as_fd(); 5]);
        }
    }),
    ("SEND_RARP: this back end does not offer it", |front, _| {
        front.send(request::SEND_RARP, &words(&[0]), &[]);
    }),
    ("features 0x4000000 that were not offered", |front, _| {
        front.send(request::SET_FEATURES, &words(&[VERSION_1 | 1 << 26]), &[]);
    }),
    (
        "protocol features 0x20 that were not offered",
        |front, _| {
            front.send(request::SET_PROTOCOL_FEATURES, &words(&[0x20]), &[]);
        },
    ),
    ("ring 16: there are only 16", |front, _| {
        front.send(request::SET_VRING_NUM, &state(16, 64), &[]);
    }),
    ("ring 4294967295: there are only 16", |front, _| {
        front.send(request::GET_VRING_BASE, &state(u32::MAX, 0), &[]);
    }),
    ("ring 255: there are only 16", |front, guest| {
        front.send(
            request::SET_VRING_KICK,
            &words(&[255]),
            &[guest.kicks[0].as_fd()],
        );
    }),
    ("ring 3: enable it with 1", |front, _| {
        front.send(request::SET_VRING_ENABLE, &state(3, 2), &[]);
    }),
    ("ring 1: 32769 entries", |front, _| {
        front.send(request::SET_VRING_NUM, &state(1, 32_769), &[]);
    }),
    (
        "SET_VRING_KICK: a descriptor that is neither",
        |front, _| {
            let (reader, _writer) = std::io::pipe().unwrap();
            front.send(request::SET_VRING_KICK, &words(&[1]), &[reader.as_fd()]);
        },
    ),
    (
        "ring 0: started without a kick descriptor",
        |front, guest| {
            front.share(guest);
            front.start(guest, 0, 0);
            front.send(request::SET_VRING_KICK, &words(&[1 << 8]), &[]);
            front.enable(0, 1);
        },
    ),
    ("SET_MEM_TABLE: its body", |front, _| {
        front.send(request::SET_MEM_TABLE, &state(u32::MAX, 0), &[]);
    }),
    ("SET_MEM_TABLE: its body", |front, guest| {
        let body = [&table(&[Guest::REGION])[..], &[0]].concat();
        front.send(request::SET_MEM_TABLE, &body, &[guest.file.as_fd()]);
    }),
    ("SET_MEM_TABLE: another number", |front, guest| {
        share(front, &[Guest::REGION], &[guest.file.as_fd(); 2]);
    }),
    ("0x4000000000000000 is empty, too large", |front, guest| {
        share(front, &[region(1 << 62, 1 << 41, 0)], &[guest.file.as_fd()]);
    }),
    ("SET_MEM_TABLE: its body", |front, guest| {
        // Beyond the last address.
        share(
            front,
            &[region(u64::MAX - 4095, 8192, 0)],
            &[guest.file.as_fd()],
        );
    }),
    ("0x1000 and 0x0 overlap", |front, guest| {
        let regions = [region(0x1000, 0x2000, 0), region(0, 0x1001, 1 << 40)];
        share(front, &regions, &[guest.file.as_fd(); 2]);
    }),
    ("0x0 and 0x10000 overlap", |front, guest| {
        // The same addresses in the front end.
        let regions = [region(0, 0x2000, 0x5000), region(0x10000, 0x2000, 0x6fff)];
        share(front, &regions, &[guest.file.as_fd(); 2]);
    }),
    (
        "needs 1052672 bytes of a file that has 1048576",
        |front, guest| {
            let region = [0, Guest::BYTES, 0, 4096];
            share(front, &[region], &[guest.file.as_fd()]);
        },
    ),
    ("SET_MEM_TABLE: a descriptor that is neither", |front, _| {
        let file = File::open("/proc/self/exe").unwrap();
        share(front, &[region(0, 4096, 0)], &[file.as_fd()]);
    }),
    (
        "ring 1: its descriptor is not an eventfd",
        |front, guest| {
            front.send(request::SET_VRING_KICK, &words(&[1]), &[guest.file.as_fd()]);
        },
    ),
    ("is not a file in memory", |front, guest| {
        share(front, &[region(0, 4096, 0)], &[guest.kicks[0].as_fd()]);
    }),
    ("and 0x40000000 overlap", |front, guest| {
        front.share(guest);
        let region = words(&[0, Guest::ADDRESS, 4096, 0, 0]);
        front.send(request::ADD_MEM_REG, &region, &[guest.file.as_fd()]);
    }),
    ("vring 0: its device area", |front, guest| {
        front.share(guest);
        front.start(guest, 0, 0);
        let mut address = state(0, 0);
        let (start, end) = (Guest::USER, Guest::USER + Guest::BYTES);
        address.extend(words(&[start, end - 4, start, 0]));
        front.send(request::SET_VRING_ADDR, &address, &[]);
        front.enable(0, 1);
    }),
    ("vring 0 cannot have 63 entries", |front, guest| {
        front.share(guest);
        front.start(guest, 0, 0);
        front.send(request::SET_VRING_NUM, &state(0, 63), &[]);
        front.enable(0, 1);
    }),
    (
        "transmit queue 0: the available index jumped",
        |front, guest| {
            front.bring_up(guest);
            guest.set_available(1, 1000);
        },
    ),
    ("it does not read our answers", |front, _| {
        front.stream.set_nonblocking(true).unwrap();
        let message = FrontEnd::message(request::GET_FEATURES, REQUEST, &[]);
        until("the end", || match front.raw(&message, &[]) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => None,
            Err(_) => Some(()),
        });
        front.stream.set_nonblocking(false).unwrap();
    }),
];

#[test]
fn every_breach_ends_its_session_with_its_reason() {
    for (sentence, misbehave) in CASES {
        let bench = bench();
        let guest = Guest::new();
        let mut front = bench.connect();
        front.agree(PROTOCOL_FEATURES | VERSION_1);
        misbehave(&mut front, &guest);
        let fault = until(sentence, || match bench.sockets.event()? {
            SocketEvent::Fault { reason, .. } => Some(reason),
            _ => None,
        });
        assert!(fault.starts_with("socket1: "), "{fault}");
        assert!(fault.contains(sentence), "expected {sentence}: {fault}");
        assert!(front.is_hung_up());
        let mut next = bench.connect();
        next.bring_up(&Guest::new());
        bench.stop();
    }
}

#[test]
fn a_guest_that_faults_is_unplugged_and_may_come_back() {
    let bench = bench();
    let guest = Guest::new();
    let mut front = bench.connect();
    front.bring_up(&guest);
    assert_eq!(bench.event(), bench.plugged());
    guest.set_available(1, 1000);
    rustix::io::write(&guest.kicks[1], &1u64.to_ne_bytes()).unwrap();
    assert!(bench.fault().contains("index jumped"));
    assert_eq!(bench.event(), bench.unplugged());
    assert!(front.is_hung_up());
    let guest = Guest::new();
    let mut front = bench.connect();
    front.bring_up(&guest);
    assert_eq!(bench.event(), bench.plugged());
    bench.stop();
}

/// The front end cuts its memory short while a worker uses it.
#[test]
fn truncated_memory_costs_the_session_and_not_the_process() {
    for left in [0, 0x8000, 0x10000] {
        let bench = bench();
        let guest = Guest::new();
        let mut front = bench.connect();
        front.bring_up(&guest);
        ping_pong(&bench, &guest, 0);
        assert_eq!(bench.event(), bench.plugged());
        ftruncate(&guest.file, left).unwrap();
        until("the end", || {
            rustix::io::write(&guest.kicks[1], &1u64.to_ne_bytes()).unwrap();
            if left >= 0x8000 {
                // The rings are there, the buffers are gone.
                let next = guest.number(Guest::area(1, 1) + 2);
                guest.set_available(1, next);
                guest.transmit_again();
            }
            let _ = bench
                .host
                .send(ikv_dataplane::VnetHeader::default(), &[1; 60]);
            match bench.sockets.event()? {
                SocketEvent::Fault { reason, .. } => {
                    let _: () = assert!(reason.contains("truncated"), "{reason}");
                    Some(())
                }
                _ => None,
            }
        });
        assert!(front.is_hung_up());
        bench.stop();
    }
}

/// A second socket, at the other end of the cable; where its socket is.
fn another_socket(bench: &Bench, folder: &tempfile::TempDir) -> std::path::PathBuf {
    let path = folder.path().join("other");
    let spec = SocketSpec {
        name: "other".into(),
        cable: bench.cable.id,
        side: ikv_dataplane::Side::A,
        role: Role::Server(UnixListener::bind(&path).unwrap()),
        mtu: None,
    };
    bench.sockets.add(spec).wait().unwrap();
    path
}

/// Half a message, a flood, and connections without end at one socket: the other one's front end
/// comes up as if nothing were.
#[test]
fn nobody_keeps_the_other_sockets_waiting() {
    let bench = bench();
    let folder = tempfile::tempdir().unwrap();
    let path = another_socket(&bench, &folder);
    let half = FrontEnd::new(UnixStream::connect(&path).unwrap());
    half.raw(&[1, 0, 0], &[]).unwrap();
    let guest = Guest::new();
    bench.connect().bring_up(&guest);
    drop(half);

    let done = std::sync::atomic::AtomicBool::new(false);
    let is_done = || done.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let message = FrontEnd::message(request::SET_OWNER, REQUEST, &[]).repeat(100);
            let flood = FrontEnd::new(UnixStream::connect(&path).unwrap());
            while !is_done() {
                let _ = flood.raw(&message, &[]);
                let _ = UnixStream::connect(&path);
            }
        });
        for _ in 0..20 {
            until("a free socket", || {
                let mut front = bench.connect();
                front.stream.set_nonblocking(false).unwrap();
                front.send(request::GET_FEATURES, &[], &[]);
                front.answer()
            });
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    bench.stop();
}

/// A socket whose last close waits until its peer has read everything, or for 20 seconds.
fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (silent, _) = listener.accept().unwrap();
    sender.set_nonblocking(true).unwrap();
    while sender.write(&[0; 4096]).is_ok() {}
    set_socket_linger(&sender, Some(Duration::from_secs(20))).unwrap();
    (sender, silent)
}

#[test]
fn a_descriptor_that_will_not_close_holds_up_its_own_socket_only() {
    let bench = bench();
    let folder = tempfile::tempdir().unwrap();
    let path = another_socket(&bench, &folder);
    let mut peers = Vec::new();
    let began = Instant::now();
    for round in 0..12 {
        let (sender, silent) = lingering();
        peers.push(silent);
        let front = FrontEnd::new(UnixStream::connect(&path).unwrap());
        // In a message, in half of one, and where it is never read.
        let message = FrontEnd::message(request::SET_OWNER, REQUEST, &[]);
        let length = if round % 2 == 0 { 12 } else { 5 };
        let _ = front.raw(&message[..length], &[sender.as_fd()]);
        let unread = UnixStream::connect(&path).map(FrontEnd::new);
        let _ = unread.map(|front| front.raw(&message, &[sender.as_fd()]));
        drop(front);
        // Whose close is the last one is open, so ours must not wait either.
        std::thread::spawn(move || drop(sender));
        let mut honest = bench.connect();
        assert_ne!(honest.ask(request::GET_FEATURES, &[]), 0);
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    bench.stop();
}
