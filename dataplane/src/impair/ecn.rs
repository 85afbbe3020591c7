//! Congestion marks (RFC 3168): which frames can carry one, and setting it.

use std::ops::Range;

const ETHERTYPE: usize = 12;
const TAGS: [u16; 2] = [0x8100, 0x88a8];
const MAX_TAGS: usize = 2;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// Congestion experienced, as the two bits of the field.
const CE: u8 = 0b11;

/// IPv4's type of service, behind the version; IPv6's traffic class lies across two bytes.
const V4_MIN: usize = 20;
const V4_CHECKSUM: Range<usize> = 10..12;
const V6_LEN: usize = 40;
const V6_SHIFT: u32 = 4;

/// Bytes of a frame that [`ect`] wants to see: two tags and an IPv6 header.
pub(crate) const HEAD: usize = ETHERTYPE + 2 + 4 * MAX_TAGS + V6_LEN;

#[derive(Debug, Clone, Copy)]
enum Packet {
    V4,
    V6,
}

/// Whether the packet in this frame says that its ends understand a mark, or carries one
/// already. `head` is the frame's beginning, [`HEAD`] bytes or all of it.
pub(crate) fn ect(head: &[u8]) -> bool {
    packet(head).is_some_and(|(packet, at)| field(head, packet, at) != 0)
}

/// Marks the packet in this frame, and mends the checksum of an IPv4 header (RFC 1624).
/// Leaves a frame alone that is not [`ect`].
pub(crate) fn mark(frame: &mut [u8]) {
    let Some((packet, at)) = packet(frame) else {
        return;
    };
    if field(frame, packet, at) == 0 {
        return;
    }
    match packet {
        Packet::V6 => frame[at + 1] |= CE << V6_SHIFT,
        Packet::V4 => {
            let before = u16::from_be_bytes([frame[at], frame[at + 1]]);
            frame[at + 1] |= CE;
            let after = u16::from_be_bytes([frame[at], frame[at + 1]]);
            let checksum = &mut frame[at + V4_CHECKSUM.start..at + V4_CHECKSUM.end];
            let old = u16::from_be_bytes([checksum[0], checksum[1]]);
            let sum = u32::from(!old) + u32::from(!before) + u32::from(after);
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            checksum.copy_from_slice(&(!(sum as u16)).to_be_bytes());
        }
    }
}

/// The IP packet in a frame, and where it begins. Its fixed header is there.
fn packet(frame: &[u8]) -> Option<(Packet, usize)> {
    let mut at = ETHERTYPE;
    for _ in 0..=MAX_TAGS {
        let bytes = frame.get(at..at + 2)?;
        let ethertype = u16::from_be_bytes([bytes[0], bytes[1]]);
        at += 2;
        if TAGS.contains(&ethertype) {
            at += 2;
            continue;
        }
        let (packet, version, len) = match ethertype {
            IPV4 => (Packet::V4, 4, V4_MIN),
            IPV6 => (Packet::V6, 6, V6_LEN),
            _ => return None,
        };
        let good = frame.len() >= at + len && frame[at] >> 4 == version;
        return good.then_some((packet, at));
    }
    None
}

/// The two bits. 0: the ends do not understand marks.
fn field(frame: &[u8], packet: Packet, at: usize) -> u8 {
    match packet {
        Packet::V4 => frame[at + 1] & CE,
        Packet::V6 => frame[at + 1] >> V6_SHIFT & CE,
    }
}
