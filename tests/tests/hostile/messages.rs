//! Messages and descriptors on a front end's socket that violate the vhost-user protocol.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use dataplane::Side;
use guest::{Guest, GuestOptions, Session};
use ikv_tests::patience::{SOON, wait_until};

use crate::testbed::{TestCable, Testbed};

const VERSION: u32 = 1;

fn session(cable: &TestCable) -> Session {
    Session::begin(UnixStream::connect(cable.socket(Side::A)).unwrap(), 2).unwrap()
}

/// The reported reason, and the request, flags and body of the message.
type Violation = (&'static str, u32, u32, Vec<u8>);

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn halves(halves: &[u32]) -> Vec<u8> {
    halves.iter().flat_map(|half| half.to_ne_bytes()).collect()
}

fn violations() -> Vec<Violation> {
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
            "entries are more than a ring can have",
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
        (
            "its body does not have the size",
            5,
            VERSION,
            halves(&[3, 0]),
        ),
    ]
}

#[test]
fn an_invalid_message_ends_its_session() {
    let testbed = Testbed::new();
    for (reason, request, flags, body) in violations() {
        let cable = testbed.cable();
        let session = session(&cable);
        session.message(request, flags, &body, &[]).unwrap();
        testbed.expect_fault(&cable, reason);
        wait_until("the session to end", SOON, || !session.is_open());
        drop(session);
        cable.assert_works(&GuestOptions::default());
    }
    testbed.end();
}

#[test]
fn an_oversized_body_ends_the_session_at_once() {
    let testbed = Testbed::new();
    let cable = testbed.cable();
    let session = session(&cable);
    session
        .bytes(&halves(&[1, VERSION, u32::MAX]), &[])
        .unwrap();
    testbed.expect_fault(&cable, "more than any message has");
    testbed.end();
}

/// Half a message delays only its own socket, which takes another front end once the first has
/// left.
#[test]
fn half_messages_do_not_delay_other_sockets() {
    let testbed = Testbed::new();
    let cables: Vec<_> = (0..40).map(|_| testbed.cable()).collect();
    let message = [halves(&[2, VERSION, 8]), words(&[0])].concat();
    let held: Vec<_> = cables
        .iter()
        .zip(1..)
        .map(|(cable, sent)| {
            let mut socket = UnixStream::connect(cable.socket(Side::A)).unwrap();
            let part = &message[..sent % message.len()];
            socket.write_all(part).unwrap();
            socket
        })
        .collect();
    // Other sockets are served meanwhile.
    let cable = testbed.cable();
    cable.assert_works(&GuestOptions::default());
    drop(held);
    for cable in &cables {
        wait_until("the socket to be free", SOON, || {
            Guest::connect(cable.socket(Side::A), &GuestOptions::default()).is_ok()
        });
    }
    testbed.end();
}

#[test]
fn unexpected_descriptors_are_closed() {
    let testbed = Testbed::new();
    let file = tempfile::tempfile().unwrap();
    let cable = testbed.cable();
    for count in [1, 9, 64, 250] {
        for _ in 0..20 {
            let socket = UnixStream::connect(cable.socket(Side::A)).unwrap();
            let Ok(session) = Session::begin(socket, 2) else {
                continue; // the session before is still being closed
            };
            let files = vec![file.as_fd(); count];
            // The session may end before the whole message is written.
            let _ = session.message(2, VERSION, &words(&[0]), &files);
            let mut rest = Vec::new();
            let mut socket = session.socket();
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            // Returns at the end of the stream or with a reset.
            let _ = socket.read_to_end(&mut rest);
            assert!(!session.is_open());
        }
    }
    wait_until("the socket to be free", SOON, || {
        Guest::connect(cable.socket(Side::A), &GuestOptions::default()).is_ok()
    });
    testbed.end();
}

/// A front end that sends requests endlessly and never reads the answers.
#[test]
fn unread_answers_end_the_session() {
    let testbed = Testbed::new();
    let cable = testbed.cable();
    let session = session(&cable);
    let question = halves(&[1, VERSION, 0]);
    let many = question.repeat(1000);
    session
        .socket()
        .set_write_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut socket = session.socket();
    wait_until("the flood to be ended", SOON, || {
        // The buffer may be full, or the other end closed.
        let _ = socket.write(&many);
        !testbed.faults(&cable).is_empty()
    });
    drop(session);
    cable.assert_works(&GuestOptions::default());
    testbed.end();
}
