//! Congestion marks (RFC 3168): which frames can carry one, and setting it.

use std::ops::Range;

use crate::offload::{MAX_TAGS, TAGS};

const ETHERTYPE: usize = 12;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// Congestion experienced, as the two bits of the field.
const CE: u8 = 0b11;

/// IPv4's type of service, behind the version; IPv6's traffic class lies across two bytes.
const V4_MIN: usize = 20;
const V4_CHECKSUM: Range<usize> = 10..12;
const V6_LEN: usize = 40;
const V6_SHIFT: u32 = 4;

/// Bytes of a frame that [`ect`] needs: all tags and an IPv6 header.
pub(crate) const HEAD: usize = ETHERTYPE + 2 + 4 * MAX_TAGS + V6_LEN;

#[derive(Debug, Clone, Copy)]
enum Packet {
    V4,
    V6,
}

/// Whether the packet in this frame declares that its ends understand a mark, or carries one
/// already. `head` is the frame's beginning: [`HEAD`] bytes, or all of a shorter frame.
pub(crate) fn ect(head: &[u8]) -> bool {
    packet(head).is_some_and(|(packet, at)| field(head, packet, at) != 0)
}

/// Marks the packet in this frame, and updates the checksum of an IPv4 header (RFC 1624).
/// Does not change a frame that is not [`ect`].
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

/// The version of the IP packet in a frame, and where the packet begins. Its fixed header is complete.
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

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn v4(tos: u8) -> Vec<u8> {
        let mut header = etherparse::Ipv4Header::new(
            8,
            64,
            etherparse::IpNumber::UDP,
            [10, 0, 0, 1],
            [10, 0, 0, 2],
        )
        .expect("8 bytes fit");
        header.dscp = etherparse::IpDscp::try_new(tos >> 2).expect("6 bits");
        header.ecn = etherparse::IpEcn::try_new(tos & 3).expect("2 bits");
        frame(etherparse::IpHeaders::Ipv4(
            header,
            etherparse::Ipv4Extensions::default(),
        ))
    }

    fn v6(ecn: u8) -> Vec<u8> {
        let header = etherparse::Ipv6Header {
            traffic_class: 0xb8 | ecn,
            flow_label: etherparse::Ipv6FlowLabel::try_new(0xf_ffff).expect("20 bits"),
            hop_limit: 64,
            ..Default::default()
        };
        frame(etherparse::IpHeaders::Ipv6(
            header,
            etherparse::Ipv6Extensions::default(),
        ))
    }

    fn frame(ip: etherparse::IpHeaders) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ip(ip).udp(1, 2);
        let mut frame = Vec::new();
        builder.write(&mut frame, &[]).expect("it fits");
        frame
    }

    fn tagged(frame: &[u8], tags: &[u16]) -> Vec<u8> {
        let mut tagged = frame[..ETHERTYPE].to_vec();
        for tag in tags {
            tagged.extend(tag.to_be_bytes());
            tagged.extend([0, 5]);
        }
        tagged.extend(&frame[ETHERTYPE..]);
        tagged
    }

    #[test]
    fn marked_frames_are_as_if_their_sender_had_marked_them() {
        for make in [v4, v6] {
            for tags in [&[][..], &[0x8100], &[0x9100, 0x88a8, 0x8100], &[0x8100; 8]] {
                for ecn in 0..=3 {
                    let mut frame = tagged(&make(ecn), tags);
                    assert_eq!(ect(&frame), ecn != 0);
                    assert_eq!(ect(&frame[..frame.len().min(HEAD)]), ecn != 0);
                    let wanted = if ecn == 0 { 0 } else { 3 };
                    mark(&mut frame);
                    assert_eq!(frame, tagged(&make(wanted), tags), "{ecn} {tags:x?}");
                }
            }
        }
    }

    #[test]
    fn every_checksum_is_mended() {
        for tos in (0..=255).filter(|tos| tos & 3 != 0) {
            let mut frame = v4(tos);
            mark(&mut frame);
            assert_eq!(frame, v4(tos | 3));
        }
    }

    #[test]
    fn other_frames_are_left_alone() {
        let mut arp = vec![0xff; 60];
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        let mut short = v4(1);
        short.truncate(30);
        let mut wrong = v4(1);
        wrong[14] = 0x65;
        let deep = tagged(&v4(1), &[0x8100; MAX_TAGS + 1]);
        for frame in [arp, short, wrong, deep, vec![], vec![8; 13]] {
            assert!(!ect(&frame));
            let mut marked = frame.clone();
            mark(&mut marked);
            assert_eq!(marked, frame);
        }
    }
}
