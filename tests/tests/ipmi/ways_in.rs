//! Ways to a BMC that need no password, or have no right to it.

use std::fs;
use std::net::UdpSocket;

use ikv_tests::Fabric;
use ikv_tests::patience::{SOON, output_within};

use super::PORT;

const HOST: &str = "127.0.0.1";

/// Cipher suites that authenticate every message, and work between `ipmi_sim` and ipmitool.
const GOOD: [u8; 2] = [2, 3];

pub(super) fn are_shut(fabric: &Fabric) {
    only_suites_that_authenticate_open(fabric);
    no_session_begins_without_authentication(fabric);
    commands_without_a_session_do_nothing(fabric);
}

/// Whether ipmitool reads the power status with these arguments.
fn opens(fabric: &Fabric, arguments: &[&str]) -> bool {
    let mut command = fabric.site.host.command("timeout");
    command
        .args(["20", "ipmitool", "-N", "1", "-R", "1", "-H", HOST])
        .args(["-p", PORT])
        .args(arguments)
        .args(["power", "status"]);
    output_within(&mut command, 2 * SOON).status.success()
}

/// Asks at once, because ipmitool waits for every answer that does not come.
fn opened(fabric: &Fabric, ways: &[Vec<String>]) -> Vec<String> {
    std::thread::scope(|scope| {
        let ask = |way: &Vec<String>| {
            let words: Vec<_> = way.iter().map(String::as_str).collect();
            opens(fabric, &words)
        };
        let asked: Vec<_> = ways
            .iter()
            .map(|way| (way, scope.spawn(move || ask(way))))
            .collect();
        let found = asked.into_iter().filter_map(|(way, asked)| {
            let opened = asked.join().unwrap();
            opened.then(|| way.join(" "))
        });
        found.collect()
    })
}

fn words(text: &str) -> Vec<String> {
    text.split(' ')
        .map(|word| word.trim_matches('\'').to_owned())
        .collect()
}

/// Every cipher suite, IPMI 1.5 and an empty user, with a wrong and with the right password.
fn only_suites_that_authenticate_open(fabric: &Fabric) {
    let secret = fs::read_to_string(fabric.scratch().join("keys/ipmi_password")).unwrap();
    let secret = secret.trim();
    let mut wrong = Vec::new();
    for suite in 0..=17 {
        for user in [
            "ipmiusr -P wrong",
            "ipmiusr -P ''",
            "'' -P ''",
            "nobody -P x",
        ] {
            wrong.push(words(&format!("-I lanplus -C {suite} -U {user}")));
        }
    }
    for kind in ["NONE", "PASSWORD", "MD2", "MD5"] {
        wrong.push(words(&format!("-I lan -A {kind} -U ipmiusr -P wrong")));
        wrong.push(words(&format!("-I lan -A {kind} -U '' -P ''")));
    }
    // Few at a time: a BMC has few sessions.
    let found: Vec<_> = wrong
        .chunks(8)
        .flat_map(|ways| opened(fabric, ways))
        .collect();
    assert_eq!(found, Vec::<String>::new());

    // With the password, suites that do not authenticate every message are refused nevertheless.
    let right = |suite: u8| words(&format!("-I lanplus -C {suite} -U ipmiusr -P {secret}"));
    let weak: Vec<_> = [0, 1, 6, 15].map(right).into();
    assert_eq!(opened(fabric, &weak), Vec::<String>::new());
    for suite in GOOD {
        assert_eq!(opened(fabric, &[right(suite)]).len(), 1, "suite {suite}");
    }
}

/// An Open Session Request (IPMI 2.0, table 13-9). `length` is 8, or 0 for a proposal of nothing.
fn open_session(tag: u8, payload: u8, [auth, integrity]: [u8; 2], length: u8) -> Vec<u8> {
    let head = [6, 0, 0xff, 7, 6, payload, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0];
    let session = [tag, 4, 0, 0, 0xa0, 0xa1, 0xa2, 0xa3];
    let proposal = |kind, algorithm| [kind, 0, 0, length, algorithm, 0, 0, 0];
    [
        &head[..],
        &session,
        &proposal(0, auth),
        &proposal(1, integrity),
        &proposal(2, 0),
    ]
    .concat()
}

/// A session without integrity takes commands before its password is checked, so it must not even
/// begin. The BMC answers in order: the first answer is the one to the last request.
fn no_session_begins_without_authentication(fabric: &Fabric) {
    let host = &fabric.site.host;
    let socket = host.enter(|| UdpSocket::bind((HOST, 0))).unwrap();
    socket.connect(format!("{HOST}:{PORT}")).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let refused = [[0, 0], [1, 0], [2, 0], [0, 1], [0x40, 1], [1, 0xc0]];
    for payload in [0x10, 0x50, 0x90] {
        for algorithms in refused {
            let request = open_session(1, payload, algorithms, 8);
            socket.send(&request).unwrap();
        }
        socket.send(&open_session(1, payload, [0, 0], 0)).unwrap();
    }
    socket.send(&open_session(99, 0x10, [1, 1], 8)).unwrap();
    let mut answer = [0; 100];
    let length = socket.recv(&mut answer).unwrap();
    assert_eq!(
        (answer[5], answer[16]),
        (0x11, 99),
        "{:?}",
        &answer[..length]
    );
}

/// Chassis Control and Set User Password as messages of IPMI 1.5 that name no session, or one that
/// does not exist.
fn commands_without_a_session_do_nothing(fabric: &Fabric) {
    let host = &fabric.site.host;
    let socket = host.enter(|| UdpSocket::bind((HOST, 0))).unwrap();
    let power_off: &[u8] = &[0x20, 0x00, 0xe0, 0x81, 0x04, 0x02, 0x00];
    let password = [
        &[0x20, 0x18, 0xc8, 0x81, 0x08, 0x47, 2, 2][..],
        b"0123456789abcdef",
    ]
    .concat();
    for message in [power_off, &password] {
        for session in [0_u32, 1, 2, 4] {
            for authentication in [0_u8, 2, 4, 5, 7, 0xff] {
                let code: &[u8] = if authentication == 0 { &[] } else { &[0; 16] };
                let sum = message[3..]
                    .iter()
                    .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
                let datagram = [
                    &[6, 0, 0xff, 7, authentication, 0, 0, 0, 0][..],
                    &session.to_le_bytes(),
                    code,
                    &[message.len() as u8 + 1],
                    message,
                    &[sum.wrapping_neg()],
                ]
                .concat();
                socket.send_to(&datagram, format!("{HOST}:{PORT}")).unwrap();
            }
        }
    }
}
