//! Super-frames in tunnels, and behind many and foreign tags.

use super::*;

/// A tunnel: its outer headers from IP on, and what is in it.
#[derive(Debug, Clone)]
struct Tunnel {
    six: bool,
    protocol: u8,
    /// What is between the IP header and the packet inside.
    head: Vec<u8>,
    /// Whether the packet inside is an Ethernet frame.
    ethernet: bool,
    /// Whether UDP has a checksum.
    checksum: bool,
}

/// Where the outer IP header begins: behind a tag.
const OUTER: usize = 18;

impl Tunnel {
    fn udp(header: &[u8], ethernet: bool) -> Self {
        let ports = [0xc0, 0x01, 0x12, 0xb5, 0, 0, 0, 0];
        Tunnel {
            six: false,
            protocol: 17,
            head: [&ports[..], header].concat(),
            ethernet,
            checksum: false,
        }
    }

    fn without_udp(protocol: u8, head: &[u8], ethernet: bool) -> Self {
        Tunnel {
            six: false,
            protocol,
            head: head.into(),
            ethernet,
            checksum: false,
        }
    }

    /// One of every kind, with IPv4 or IPv6 inside.
    fn kinds(six_inside: bool) -> Vec<Tunnel> {
        let (gpe, ip_in_ip) = if six_inside { (2, 41) } else { (1, 4) };
        let ip: [u8; 2] = if six_inside { [0x86, 0xdd] } else { [0x08, 0] };
        let geneve = [2, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 1, 9, 9, 9, 9];
        let udp = [
            Tunnel::udp(&[8, 0, 0, 0, 0, 0, 7, 0], true),
            Tunnel::udp(&[0x0c, 0, 0, gpe, 0, 0, 7, 0], false),
            Tunnel::udp(&geneve, true),
            Tunnel::udp(&[&[0, 0][..], &ip, &[0, 0, 7, 0]].concat(), false),
            Tunnel::udp(&[], false),
            Tunnel::udp(&[0, ip_in_ip, 0, 0], false),
        ];
        let with_checksum = udp.clone().map(|tunnel| Tunnel {
            checksum: true,
            ..tunnel
        });
        let others = [
            Tunnel::without_udp(47, &[&[0, 0][..], &ip].concat(), false),
            Tunnel::without_udp(47, &[0x20, 0, 0x65, 0x58, 0, 0, 0, 7], true),
            Tunnel::without_udp(ip_in_ip, &[], false),
        ];
        let four = udp.into_iter().chain(with_checksum).chain(others);
        let four: Vec<_> = four.collect();
        let six = four.clone().into_iter().map(|tunnel| Tunnel {
            six: true,
            ..tunnel
        });
        four.into_iter().chain(six).collect()
    }

    fn pseudo(&self, len: usize) -> checksum::Sum {
        let mut sum = checksum::Sum::default();
        if self.six {
            sum.add(&[0xfc; 32]);
        } else {
            sum.add(&[192, 168, 0, 1, 192, 168, 0, 2]);
        }
        sum.add(&[0, self.protocol]);
        sum.add(&(len as u32).to_be_bytes());
        sum
    }

    /// What is in front of `len` bytes of the packet inside.
    fn front(&self, len: usize) -> Vec<u8> {
        let mut front = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x81, 0, 0, 9];
        let datagram = self.head.len() + len;
        if self.six {
            front.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            front.extend((datagram as u16).to_be_bytes());
            front.extend([self.protocol, 64]);
            front.extend([0xfc; 32]);
        } else {
            let mut ip = [0; 20];
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&(20 + datagram as u16).to_be_bytes());
            ip[4..10].copy_from_slice(&[0xff, 0xff, 0x40, 0, 64, self.protocol]);
            ip[12..].copy_from_slice(&[192, 168, 0, 1, 192, 168, 0, 2]);
            let mut sum = checksum::Sum::default();
            sum.add(&ip);
            ip[10..12].copy_from_slice(&(!sum.folded()).to_be_bytes());
            front.extend([0x08, 0]);
            front.extend(ip);
        }
        let head = front.len();
        front.extend(&self.head);
        if self.protocol == 17 {
            front[head + 4..head + 6].copy_from_slice(&(datagram as u16).to_be_bytes());
            if self.checksum {
                let unfinished = self.pseudo(datagram).folded();
                front[head + 6..head + 8].copy_from_slice(&unfinished.to_be_bytes());
            }
        }
        front
    }

    fn around(&self, sender: &Sender) -> (VnetHeader, Vec<u8>) {
        let instead_of = if self.ethernet { 0 } else { 14 };
        let len = sender.frame().1.len() - instead_of;
        behind(sender, &self.front(len), instead_of)
    }

    /// Checks the outer headers of a piece; gives the frame inside.
    fn verified(&self, piece: &[u8], number: usize) -> Vec<u8> {
        let word = |at: usize| u16::from_be_bytes([piece[at], piece[at + 1]]);
        let at = if self.six { OUTER + 40 } else { OUTER + 20 };
        if self.six {
            assert_eq!(usize::from(word(OUTER + 4)), piece.len() - at);
        } else {
            assert_eq!(usize::from(word(OUTER + 2)), piece.len() - OUTER);
            assert_eq!(word(OUTER + 4), 0xffff_u16.wrapping_add(number as u16));
            let mut sum = checksum::Sum::default();
            sum.add(&piece[OUTER..at]);
            assert_eq!(sum.folded(), 0xffff, "the outer IP checksum");
        }
        let inside = at + self.head.len();
        if self.protocol == 17 {
            assert_eq!(usize::from(word(at + 4)), piece.len() - at);
            assert_eq!(word(at + 6) != 0, self.checksum);
            if self.checksum {
                let mut sum = self.pseudo(piece.len() - at);
                sum.add(&piece[at..]);
                assert_eq!(sum.folded(), 0xffff, "the outer UDP checksum");
            }
            assert_eq!(piece[at + 8..inside], self.head[8..]);
        } else {
            assert_eq!(piece[at..inside], self.head);
        }
        if self.ethernet {
            return piece[inside..].to_vec();
        }
        let ethertype = if piece[inside] >> 4 == 6 {
            [0x86, 0xdd]
        } else {
            [0x08, 0]
        };
        [&[2; 12][..], &ethertype, &piece[inside..]].concat()
    }
}

/// A sender's frame with `front` in place of its first bytes.
fn behind(sender: &Sender, front: &[u8], instead_of: usize) -> (VnetHeader, Vec<u8>) {
    let (mut header, frame) = sender.frame();
    for at in [2, 6] {
        let old = u16::from_le_bytes([header.0[at], header.0[at + 1]]);
        let new = usize::from(old) + front.len() - instead_of;
        header.0[at..at + 2].copy_from_slice(&(new as u16).to_le_bytes());
    }
    (header, [front, &frame[instead_of..]].concat())
}

fn check_tunnel(tunnel: &Tunnel, sender: &Sender) {
    let (header, frame) = tunnel.around(sender);
    let burst = scattered(header, &frame, &sender.parts);
    assert!(burst.needs().contains(Offloads::NESTED), "{tunnel:?}");
    let pieces = cut(&burst, Offloads::NONE).unwrap();
    let count = sender.payload.len().div_ceil(sender.size.into()).max(1);
    assert_eq!(pieces.len(), count);
    let mut payload = Vec::new();
    for (number, (header, piece)) in pieces.iter().enumerate() {
        assert_eq!(*header, VnetHeader::default());
        payload.extend(verified(&tunnel.verified(piece, number)).1);
    }
    assert!(payload == sender.payload, "the payload is another one");
    // Nobody takes it whole. Who finishes checksums gets the same in the end: the outer one is good already.
    let left = cut(&burst, Offloads::ALL).unwrap();
    assert_eq!(left.len(), count);
    for ((header, piece), finished) in left.into_iter().zip(pieces) {
        assert_eq!(header.needs(), Offloads::CSUM);
        let again = cut(&scattered(header, &piece, &[99]), Offloads::NONE).unwrap();
        assert_eq!(again, [finished]);
    }
}

#[test]
fn super_frames_in_tunnels_are_cut_into_good_frames() {
    for (six, udp) in [(false, false), (true, false), (false, true), (true, true)] {
        for tunnel in Tunnel::kinds(six) {
            for len in [0, 100, 1448, 4000] {
                let payload = (0..len).map(|at| (at % 251) as u8).collect();
                check_tunnel(
                    &tunnel,
                    &Sender {
                        six,
                        udp,
                        payload,
                        parts: vec![33, 700],
                        ..Sender::default()
                    },
                );
            }
        }
    }
}

#[test]
fn tags_of_any_kind_and_number_are_looked_behind() {
    for udp in [false, true] {
        for tpid in [0x8100_u16, 0x88a8, 0x9100, 0x9200, 0x9300] {
            for tags in 1..=8 {
                let sender = Sender {
                    udp,
                    ..Sender::default()
                };
                let mut front = sender.frame().1[..12].to_vec();
                for tag in 1..tags {
                    front.extend([0x81, 0, 0, tag as u8]);
                }
                front.extend(tpid.to_be_bytes());
                front.extend([0, tags as u8]);
                let (header, frame) = behind(&sender, &front, 12);
                let burst = scattered(header, &frame, &[usize::MAX]);
                // The kernel's segmentation ends at the tags that it does not know.
                let whole = cut(&burst, Offloads::ALL).unwrap().len() == 1;
                assert_eq!(whole, tpid <= 0x88a8, "{tpid:#x}");
                let mut payload = Vec::new();
                for (_, piece) in cut(&burst, Offloads::NONE).unwrap() {
                    assert_eq!(piece[..front.len()], front);
                    let untagged = [&piece[..12], &piece[front.len()..]].concat();
                    payload.extend(verified(&untagged).1);
                }
                assert!(payload == sender.payload, "the payload is another one");
            }
        }
    }
}

#[test]
fn what_is_no_tunnel_that_can_be_cut_is_refused() {
    let sender = Sender::default();
    let with_checksum = Tunnel::without_udp(47, &[0x80, 0, 8, 0, 0, 0, 0, 0], false);
    let numbered = Tunnel::without_udp(47, &[0x10, 0, 8, 0, 0, 0, 0, 1], false);
    let unknown = Tunnel::without_udp(50, &[0; 8], false);
    let far = Tunnel::udp(&[0; 200], true);
    for tunnel in [with_checksum, numbered, unknown, far] {
        let (header, frame) = tunnel.around(&sender);
        let burst = scattered(header, &frame, &[usize::MAX]);
        assert!(!burst.needs().contains(Offloads::NESTED), "{tunnel:?}");
        assert!(cut(&burst, Offloads::NONE).is_none(), "{tunnel:?}");
    }
    let tags = [[0x81, 0, 0, 1]; 9].concat();
    let (header, frame) = behind(&sender, &[&[2; 12][..], &tags].concat(), 12);
    let burst = scattered(header, &frame, &[usize::MAX]);
    assert!(cut(&burst, Offloads::NONE).is_none(), "nine tags");
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn tunnels_of_any_sender_are_cut(sender in senders(), kind in any::<prop::sample::Index>()) {
        let mut sender = Sender { tags: 0, ip_options: sender.ip_options / 2, ..sender };
        sender.payload.truncate(60_000);
        check_tunnel(kind.get(&Tunnel::kinds(sender.six)), &sender);
    }

    #[test]
    fn a_spoilt_tunnel_is_cut_or_refused(
        kind in any::<prop::sample::Index>(),
        six in any::<bool>(),
        spoilt in prop::collection::vec((12usize..150, any::<u8>()), 0..4),
        keep in prop_oneof![Just(MAX_FRAME), 14usize..200],
        start in prop_oneof![Just(None), (0u8..255).prop_map(Some)],
    ) {
        let sender = Sender { six, ..Sender::default() };
        let (mut header, mut frame) = kind.get(&Tunnel::kinds(six)).around(&sender);
        frame.truncate(keep);
        for (at, value) in spoilt {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        if let Some(start) = start {
            header.0[6] = start;
        }
        if let Some(frames) = cut(&scattered(header, &frame, &[77]), Offloads::NONE) {
            prop_assert!(frames.iter().map(|(_, frame)| frame.len()).sum::<usize>() >= frame.len());
        }
    }
}
