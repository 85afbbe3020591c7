//! Bytes and descriptors on the socket that no protocol allows.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bench::guest::{Guest, GuestOptions, Session};
use dataplane::Side;
use ikv_tests::patience::{SOON, wait_until};

use crate::bay::{Bay, Line};

const VERSION: u32 = 1;

fn session(line: &Line) -> Session {
    Session::begin(UnixStream::connect(line.socket(Side::A)).unwrap(), 2).unwrap()
}

/// A message and why it ends its session.
type Breach = (&'static str, u32, u32, Vec<u8>);

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn halves(halves: &[u32]) -> Vec<u8> {
    halves.iter().flat_map(|half| half.to_ne_bytes()).collect()
}

fn breaches() -> Vec<Breach> {
    vec![
        ("request 99 is none", 99, VERSION, vec![]),
        ("request 0 is none", 0, VERSION, vec![]),
        ("flags 0x2 are not", 1, 2, vec![]),
        ("flags 0x5 are not", 1, VERSION | 4, vec![]),
        ("does not offer it", 6, VERSION, words(&[0, 0])),
        ("features 0x8000000000000000", 2, VERSION, words(&[1 << 63])),
        ("its body does not have the size", 2, VERSION, vec![1, 2, 3]),
        ("ring 200: there are only", 8, VERSION, halves(&[200, 64])),
        (
            "entries are more than any",
            8,
            VERSION,
            halves(&[0, 65_536]),
        ),
        (
            "enable it with 1 or disable it",
            18,
            VERSION,
            halves(&[0, 7]),
        ),
        ("another number of descriptors", 12, VERSION, words(&[0])),
        ("its body does not have the size", 5, VERSION, halves(&[3, 0])),
    ]
}

#[test]
fn messages_that_nobody_may_send_end_their_session() {
    let bay = Bay::new();
    for (reason, request, flags, body) in breaches() {
        let line = bay.line();
        let session = session(&line);
        session.message(request, flags, &body, &[]).unwrap();
        bay.expect_fault(&line, reason);
        wait_until("the session to end", SOON, || !session.is_open());
        drop(session);
        line.check_heals(&GuestOptions::default());
    }
    bay.end();
}

#[test]
fn a_body_longer_than_any_is_not_waited_for() {
    let bay = Bay::new();
    let line = bay.line();
    let session = session(&line);
    session
        .bytes(&halves(&[1, VERSION, u32::MAX]), &[])
        .unwrap();
    bay.expect_fault(&line, "more than any message has");
    bay.end();
}

/// Half a message keeps nobody waiting but its own socket, and an honest front end can come as
/// soon as it has left.
#[test]
fn half_messages_hold_up_nobody() {
    let bay = Bay::new();
    let lines: Vec<_> = (0..40).map(|_| bay.line()).collect();
    let message = [halves(&[2, VERSION, 8]), words(&[0])].concat();
    let held: Vec<_> = lines
        .iter()
        .zip(1..)
        .map(|(line, sent)| {
            let mut socket = UnixStream::connect(line.socket(Side::A)).unwrap();
            let part = &message[..sent % message.len()];
            socket.write_all(part).unwrap();
            socket
        })
        .collect();
    // The others are served meanwhile.
    let line = bay.line();
    line.check_heals(&GuestOptions::default());
    drop(held);
    for line in &lines {
        wait_until("a place at the socket", SOON, || {
            Guest::connect(line.socket(Side::A), &GuestOptions::default()).is_ok()
        });
    }
    bay.end();
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    let bay = Bay::new();
    let file = tempfile::tempfile().unwrap();
    let line = bay.line();
    for count in [1, 9, 64, 250] {
        for _ in 0..20 {
            let socket = UnixStream::connect(line.socket(Side::A)).unwrap();
            let Ok(session) = Session::begin(socket, 2) else {
                continue; // the one before is still being closed
            };
            let files = vec![file.as_fd(); count];
            // It may have been cut off in the midst of it.
            let _ = session.message(2, VERSION, &words(&[0]), &files);
            let mut rest = Vec::new();
            let mut socket = session.socket();
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            // The end, or a reset.
            let _ = socket.read_to_end(&mut rest);
            assert!(!session.is_open());
        }
    }
    wait_until("a place at the socket", SOON, || {
        Guest::connect(line.socket(Side::A), &GuestOptions::default()).is_ok()
    });
    bay.end();
}

/// Questions without end, whose answers nobody reads.
#[test]
fn a_flood_of_questions_is_ended_when_nobody_reads_the_answers() {
    let bay = Bay::new();
    let line = bay.line();
    let session = session(&line);
    let question = halves(&[1, VERSION, 0]);
    let many = question.repeat(1000);
    session
        .socket()
        .set_write_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut socket = session.socket();
    wait_until("the flood to be ended", SOON, || {
        // Its buffer may be full, or its other end gone.
        let _ = socket.write(&many);
        !bay.faults(&line).is_empty()
    });
    drop(session);
    line.check_heals(&GuestOptions::default());
    bay.end();
}
