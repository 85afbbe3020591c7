//! A DHCP client (RFC 2131) that sends any options, such as those of firmware or installers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

use crate::Station;
use crate::patience::deadline;

/// Interval between attempts of a message without an answer.
const AGAIN: Duration = Duration::from_secs(2);

/// The longest wait for an answer to a message.
const LIMIT: Duration = Duration::from_secs(20);

const COOKIE: [u8; 4] = [99, 130, 83, 99];
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;

/// Options of RFC 2132, RFC 3004, RFC 4039 and RFC 4578.
pub mod option {
    #![allow(missing_docs)] // names of the RFCs
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const DOMAIN: u8 = 15;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const BOOT_FILE: u8 = 67;
    pub const USER_CLASS: u8 = 77;
    pub const RAPID_COMMIT: u8 = 80;
    pub const ARCHITECTURE: u8 = 93;
    /// iPXE's own options, each with its length.
    pub const IPXE: u8 = 175;
}

/// An OFFER or ACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The address that the client may use (yiaddr).
    pub address: Ipv4Addr,
    /// next-server (siaddr).
    pub next_server: Ipv4Addr,
    /// Boot file: option 67, otherwise the `file` field.
    pub boot_file: String,
    /// All options by code.
    pub options: BTreeMap<u8, Vec<u8>>,
}

impl Answer {
    /// An option's value as an address, or the first address of a list.
    pub fn address_option(&self, option: u8) -> Option<Ipv4Addr> {
        let first: [u8; 4] = self.options.get(&option)?.get(..4)?.try_into().ok()?;
        Some(first.into())
    }

    /// The lease time in seconds.
    pub fn lease_time(&self) -> Option<u32> {
        let bytes = self.options.get(&option::LEASE_TIME)?.as_slice();
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }
}

/// Sends DISCOVER and returns the OFFER. `options` are sent in addition to those of every client.
///
/// # Panics
/// Without an answer.
pub fn discover(station: &mut Station, options: &[(u8, &[u8])]) -> Answer {
    exchange(station, DISCOVER, options, OFFER)
}

/// Gets a new lease by the usual four messages, and returns the ACK.
///
/// # Panics
/// Without an answer.
pub fn lease(station: &mut Station, options: &[(u8, &[u8])]) -> Answer {
    let offer = discover(station, options);
    let (address, server) = (
        offer.address.octets(),
        offer.options[&option::SERVER].clone(),
    );
    let mut options = options.to_vec();
    options.push((option::REQUESTED_ADDRESS, &address));
    options.push((option::SERVER, &server));
    exchange(station, REQUEST, &options, ACK)
}

/// Gets a new lease by two messages (RFC 4039), and returns the ACK.
///
/// # Panics
/// Without an answer.
pub fn rapid_lease(station: &mut Station) -> Answer {
    exchange(station, DISCOVER, &[(option::RAPID_COMMIT, &[][..])], ACK)
}

fn exchange(station: &mut Station, kind: u8, options: &[(u8, &[u8])], expected: u8) -> Answer {
    // A number that answers to earlier messages do not have.
    let elapsed = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    let transaction = elapsed.subsec_nanos() ^ u32::from(kind);
    let frame = frame(station.mac, transaction, kind, options);
    let deadline = deadline(LIMIT);
    while Instant::now() < deadline {
        station.send(&frame);
        let answer = station.receive(Instant::now() + AGAIN, |frame| {
            let answer = parse(frame, transaction)?;
            (answer.options.get(&option::MESSAGE_TYPE)? == &[expected]).then_some(answer)
        });
        if let Some(answer) = answer {
            return answer;
        }
    }
    panic!("DHCP message {kind} with {options:?}: no answer of type {expected} in {LIMIT:?}");
}

fn frame(mac: [u8; 6], transaction: u32, kind: u8, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0];
    message.extend(transaction.to_be_bytes());
    message.extend([0, 0, 0x80, 0]); // seconds; answer by broadcast
    message.extend([0; 16]);
    message.extend(mac);
    message.resize(236, 0);
    message.extend(COOKIE);
    let wanted = [
        1,
        option::ROUTER,
        option::DNS,
        option::DOMAIN,
        66,
        option::BOOT_FILE,
    ];
    let always = [
        (option::MESSAGE_TYPE, &[kind][..]),
        (option::PARAMETERS, &wanted),
    ];
    for (code, value) in always.iter().chain(options) {
        message.extend([*code, value.len() as u8]);
        message.extend(*value);
    }
    message.push(255);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac, [0xff; 6])
        .ipv4([0; 4], [255; 4], 64)
        .udp(68, 67)
        .write(&mut frame, &message)
        .expect("a Vec takes any write");
    frame
}

fn parse(frame: &[u8], transaction: u32) -> Option<Answer> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Udp(udp)) = packet.transport else {
        return None;
    };
    let message = udp.payload();
    let ours = udp.destination_port() == 68
        && message.get(4..8)? == transaction.to_be_bytes()
        && message.get(236..240)? == COOKIE;
    if !ours {
        return None;
    }
    let address = |at: usize| {
        Some(Ipv4Addr::from(
            <[u8; 4]>::try_from(message.get(at..at + 4)?).ok()?,
        ))
    };
    let options = parse_options(message.get(240..)?);
    let file = options
        .get(&option::BOOT_FILE)
        .map_or(message.get(108..236)?, Vec::as_slice);
    let end = file.iter().position(|b| *b == 0).unwrap_or(file.len());
    Some(Answer {
        address: address(16)?,
        next_server: address(20)?,
        boot_file: String::from_utf8_lossy(&file[..end]).into_owned(),
        options,
    })
}

fn parse_options(mut bytes: &[u8]) -> BTreeMap<u8, Vec<u8>> {
    let mut options = BTreeMap::new();
    loop {
        match bytes {
            [0, rest @ ..] => bytes = rest,
            [code, length, rest @ ..] if *code != 255 && rest.len() >= usize::from(*length) => {
                let (value, rest) = rest.split_at(usize::from(*length));
                options.insert(*code, value.to_vec());
                bytes = rest;
            }
            _ => return options,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_message_can_be_parsed() {
        let mac = [2, 0, 0, 0, 0, 9];
        let mut bytes = frame(
            mac,
            7,
            OFFER,
            &[(option::BOOT_FILE, b"x.efi\0"), (51, &[0, 0, 2, 88])],
        );
        assert_eq!(parse(&bytes, 7), None, "a message to the server's port");
        bytes[36..38].copy_from_slice(&68u16.to_be_bytes());
        let answer = parse(&bytes, 7).unwrap();
        assert_eq!(
            (answer.boot_file.as_str(), answer.lease_time()),
            ("x.efi", Some(600))
        );
        assert_eq!(parse(&bytes, 8), None);
    }
}
