//! A BGP speaker on the host, which peers with internet over the host link.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use ikv_tests::patience::{ensure, until};

use super::facts;
use super::lab::Up;
use super::routing::paths;

const INTERNET: Ipv4Addr = Ipv4Addr::new(192, 168, 96, 2);
/// Time for a session, and for a route to reach a spine; emulated switches answer slowly.
const SOON: Duration = Duration::from_secs(30);

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const KEEPALIVE: u8 = 4;

/// A message of RFC 4271, section 4.1.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap();
    let mut message = vec![0xff; 16];
    message.extend(length.to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

/// Version 4, AS 65010, hold time 30 s, router-id 192.168.96.1, IPv4 unicast.
fn open() -> Vec<u8> {
    let id = [192, 168, 96, 1];
    let capability = [8, 2, 6, 1, 4, 0, 1, 0, 1];
    let body = [&[4, 0xfd, 0xf2, 0, 30], &id[..], &capability].concat();
    message(OPEN, &body)
}

/// 10.77.0.1/32 and 0.0.0.0/0, both by the host.
fn announcement() -> Vec<u8> {
    let origin = [0x40, 1, 1, 0];
    let path = [0x40, 2, 4, 2, 1, 0xfd, 0xf2];
    let next_hop = [0x40, 3, 4, 192, 168, 96, 1];
    let attributes = [&origin[..], &path, &next_hop].concat();
    let length = u8::try_from(attributes.len()).unwrap();
    let body = [
        &[0, 0, 0, length],
        &attributes[..],
        &[32, 10, 77, 0, 1],
        &[0],
    ]
    .concat();
    message(UPDATE, &body)
}

struct Session {
    stream: TcpStream,
    /// Whether internet has sent its OPEN.
    is_open: bool,
}

impl Session {
    /// The first keepalive after internet's OPEN establishes the session, each further one keeps it.
    fn keep(&mut self) {
        let mut taken = [0; 4096];
        match self.stream.read(&mut taken) {
            Ok(0) => panic!("internet has ended the session"),
            Ok(_) => self.is_open = true,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        if self.is_open {
            self.stream.write_all(&message(KEEPALIVE, &[])).unwrap();
        }
    }
}

/// Its routes come in, its default does not; and it does not get the one that leads to itself.
pub(crate) fn peers(up: &mut Up) {
    let host = &up.fabric.site.host;
    let address = SocketAddr::from((INTERNET, 179));
    let mut stream = host.enter(|| TcpStream::connect_timeout(&address, SOON).unwrap());
    stream.write_all(&open()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut session = Session {
        stream,
        is_open: false,
    };
    let peer = |up: &Up, what: &str| {
        up.cli
            .vtysh("internet", &format!("show bgp ipv4 unicast {what}"))
    };
    until("the host's session", SOON, || {
        let summary = peer(up, "summary");
        let state = &summary["peers"]["192.168.96.1"]["state"];
        session.keep();
        ensure(state == "Established", || summary.to_string())
    });
    session.stream.write_all(&announcement()).unwrap();
    until("the host's route at a spine", SOON, || {
        session.keep();
        let found = paths(&up.cli, "spine1", "10.77.0.1".parse().unwrap());
        let nic = facts::nic(1);
        ensure(found == BTreeSet::from([nic]), || format!("{found:?}"))
    });
    let of_host = "neighbors 192.168.96.1";
    let taken = peer(up, &format!("{of_host} routes"));
    let taken: Vec<_> = taken["routes"].as_object().unwrap().keys().collect();
    assert_eq!(taken, ["10.77.0.1/32"]);
    let told = peer(up, &format!("{of_host} advertised-routes"));
    let told = told["advertisedRoutes"].as_object().unwrap();
    assert!(told.contains_key("192.168.98.1/32"), "{told:?}");
    assert!(!told.contains_key("0.0.0.0/0"), "{told:?}");
}
