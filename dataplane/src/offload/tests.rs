//! [`Cut`] against a second opinion (etherparse), and against arbitrary input.

mod nested;

use etherparse::{
    EtherType, IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, LaxSlicedPacket,
    NetSlice, SlicedPacket, TcpHeader, TcpOptionElement, TransportSlice, UdpHeader,
};
use proptest::prelude::*;

use super::arbitrary::{cut, scattered};
use super::*;
use crate::frame::{Burst, MAX_FRAME, Offloads, VnetHeader};

const V4: ([u8; 4], [u8; 4]) = ([10, 0, 0, 1], [10, 0, 0, 2]);
const V6: ([u8; 16], [u8; 16]) = ([0xfd; 16], [0xfe; 16]);
const FIN_PSH_CWR_ACK: u8 = 0x01 | 0x08 | 0x80 | 0x10;

/// What a sender hands over: everything that a test may want otherwise.
#[derive(Debug, Clone)]
struct Sender {
    six: bool,
    udp: bool,
    tags: usize,
    /// Words of options, of IPv4 or (two each, as a destination header) IPv6, and of TCP.
    ip_options: usize,
    tcp_options: usize,
    payload: Vec<u8>,
    size: u16,
    ecn: bool,
    /// Into how long segments of memory it is split.
    parts: Vec<usize>,
}

impl Default for Sender {
    fn default() -> Self {
        Sender {
            six: false,
            udp: false,
            tags: 0,
            ip_options: 0,
            tcp_options: 3,
            payload: (0..4000).map(|at| (at % 251) as u8).collect(),
            size: 1448,
            ecn: false,
            parts: vec![usize::MAX],
        }
    }
}

impl Sender {
    fn transport(&self) -> Vec<u8> {
        if self.udp {
            return UdpHeader {
                source_port: 4000,
                destination_port: 5000,
                length: 8 + self.payload.len() as u16,
                checksum: 0,
            }
            .to_bytes()
            .to_vec();
        }
        let mut tcp = TcpHeader::new(4000, 5000, 0xffff_fff0, 65_000);
        let options = vec![TcpOptionElement::Noop; self.tcp_options * 4];
        tcp.set_options(&options).unwrap();
        let mut tcp = tcp.to_bytes().to_vec();
        tcp[13] = if self.ecn { FIN_PSH_CWR_ACK } else { 0x19 };
        tcp
    }

    fn protocol(&self) -> IpNumber {
        if self.udp {
            IpNumber::UDP
        } else {
            IpNumber::TCP
        }
    }

    fn network(&self, datagram: usize) -> Vec<u8> {
        if self.six {
            let extension = self.ip_options.div_ceil(2) * 8;
            let mut ip = Ipv6Header {
                traffic_class: 2,
                flow_label: Ipv6FlowLabel::try_new(0x12345).unwrap(),
                payload_length: (extension + datagram) as u16,
                next_header: if extension > 0 {
                    IpNumber(60)
                } else {
                    self.protocol()
                },
                hop_limit: 9,
                source: V6.0,
                destination: V6.1,
            }
            .to_bytes()
            .to_vec();
            if extension > 0 {
                let padding = [
                    &[self.protocol().0, (extension / 8 - 1) as u8, 1][..],
                    &[extension as u8 - 4],
                ];
                ip.extend(padding.concat());
                ip.resize(40 + extension, 0);
            }
            return ip;
        }
        let mut ip = Ipv4Header::new(datagram as u16, 9, self.protocol(), V4.0, V4.1).unwrap();
        ip.identification = 0xfffe;
        ip.fragment_offset = IpFragOffset::ZERO;
        ip.options = vec![1; self.ip_options * 4].as_slice().try_into().unwrap();
        ip.total_len = (ip.header_len() + datagram) as u16;
        ip.header_checksum = ip.calc_header_checksum();
        ip.to_bytes().to_vec()
    }

    fn frame(&self) -> (VnetHeader, Vec<u8>) {
        let mut transport = self.transport();
        let datagram = transport.len() + self.payload.len();
        let network = self.network(datagram);
        let at = if self.udp { 6 } else { 16 };
        let mut sum = checksum::Sum::default();
        if self.six {
            sum.add(&V6.0);
            sum.add(&V6.1);
        } else {
            sum.add(&V4.0);
            sum.add(&V4.1);
        }
        sum.add(&[0, self.protocol().0]);
        sum.add(&(datagram as u32).to_be_bytes());
        transport[at..at + 2].copy_from_slice(&sum.folded().to_be_bytes());

        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for tag in 0..self.tags {
            let tpid: u16 = if tag + 1 < self.tags { 0x88a8 } else { 0x8100 };
            frame.extend(tpid.to_be_bytes());
            frame.extend([0, tag as u8 + 10]);
        }
        let ethertype = if self.six {
            EtherType::IPV6
        } else {
            EtherType::IPV4
        };
        frame.extend(ethertype.0.to_be_bytes());
        frame.extend(&network);
        let start = frame.len();
        frame.extend(&transport);
        let kind = match (self.udp, self.six) {
            (true, _) => 5,
            (false, true) => 4,
            (false, false) => 1,
        };
        let mut header = [1, kind, 0, 0, 0, 0, 0, 0, at as u8, 0];
        header[1] |= if self.ecn && !self.udp { 0x80 } else { 0 };
        header[2..4].copy_from_slice(&(frame.len() as u16).to_le_bytes());
        header[4..6].copy_from_slice(&self.size.to_le_bytes());
        header[6..8].copy_from_slice(&(start as u16).to_le_bytes());
        frame.extend(&self.payload);
        (VnetHeader(header), frame)
    }

    fn burst(&self) -> Burst {
        let (header, frame) = self.frame();
        scattered(header, &frame, &self.parts)
    }
}

/// Checks lengths and checksums of a wire frame; gives its TCP or UDP header and payload.
fn verified(frame: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let parsed = SlicedPacket::from_ethernet(frame).unwrap();
    assert!(
        LaxSlicedPacket::from_ethernet(frame)
            .unwrap()
            .stop_err
            .is_none()
    );
    let ip = match parsed.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            Ok(header)
        }
        NetSlice::Ipv6(ip) => Err(ip.header().to_header()),
        NetSlice::Arp(_) => panic!("no IP"),
    };
    match parsed.transport.unwrap() {
        TransportSlice::Tcp(tcp) => {
            let header = tcp.to_header();
            let sum = match &ip {
                Ok(ip) => header.calc_checksum_ipv4(ip, tcp.payload()),
                Err(ip) => header.calc_checksum_ipv6(ip, tcp.payload()),
            };
            assert_eq!(sum.unwrap(), tcp.checksum());
            (tcp.header_slice().to_vec(), tcp.payload().to_vec())
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let sum = match &ip {
                Ok(ip) => header.calc_checksum_ipv4(ip, udp.payload()),
                Err(ip) => header.calc_checksum_ipv6(ip, udp.payload()),
            };
            assert_eq!(sum.unwrap(), udp.checksum());
            assert_ne!(udp.checksum(), 0);
            (header.to_bytes().to_vec(), udp.payload().to_vec())
        }
        _ => panic!("neither TCP nor UDP"),
    }
}

fn check_pieces(sender: &Sender) {
    let pieces = cut(&sender.burst(), Offloads::NONE).unwrap();
    let count = sender.payload.len().div_ceil(sender.size as usize).max(1);
    assert_eq!(pieces.len(), count);
    let mut payload = Vec::new();
    for (number, (header, frame)) in pieces.iter().enumerate() {
        assert_eq!(*header, VnetHeader::default());
        let (transport, part) = verified(frame);
        if !sender.udp {
            let sequence = u32::from_be_bytes(transport[4..8].try_into().unwrap());
            assert_eq!(sequence, 0xffff_fff0u32.wrapping_add(payload.len() as u32));
            let flags = transport[13];
            assert_eq!(
                flags & 0x09 != 0,
                number + 1 == count,
                "FIN and PSH: the last"
            );
            assert_eq!(
                flags & 0x80 != 0,
                sender.ecn && number == 0,
                "CWR: the first"
            );
        }
        if !sender.six {
            let at = 14 + 4 * sender.tags + 4;
            let id = u16::from_be_bytes([frame[at], frame[at + 1]]);
            assert_eq!(id, 0xfffeu16.wrapping_add(number as u16));
        }
        payload.extend(part);
    }
    assert!(payload == sender.payload, "the payload is another one");
}

#[test]
fn every_kind_is_cut_into_good_frames() {
    for six in [false, true] {
        for udp in [false, true] {
            for tags in 0..=2 {
                for ecn in [false, true] {
                    check_pieces(&Sender {
                        six,
                        udp,
                        tags,
                        ecn,
                        ip_options: tags * 2,
                        ..Sender::default()
                    });
                }
            }
        }
    }
}

#[test]
fn what_fits_into_one_piece_is_no_super_frame() {
    for len in [0, 1, 1448] {
        let sender = Sender {
            payload: vec![7; len],
            ..Sender::default()
        };
        check_pieces(&sender);
        let pieces = cut(&sender.burst(), Offloads::CSUM).unwrap();
        let (header, frame) = sender.frame();
        assert_eq!(pieces, [(header.without_segmentation(), frame)]);
    }
}

#[test]
fn checksums_are_left_to_who_takes_them() {
    for (six, udp) in [(false, false), (true, false), (false, true), (true, true)] {
        let sender = Sender {
            six,
            udp,
            ..Sender::default()
        };
        let left = cut(&sender.burst(), Offloads::CSUM).unwrap();
        let finished = cut(&sender.burst(), Offloads::NONE).unwrap();
        assert_eq!(left.len(), 3);
        for ((header, frame), (_, expected)) in left.into_iter().zip(finished) {
            assert_eq!(header, sender.frame().0.without_segmentation());
            let again = cut(&scattered(header, &frame, &[99]), Offloads::NONE).unwrap();
            assert_eq!(again, [(VnetHeader::default(), expected)]);
        }
    }
}

#[test]
fn ecn_alone_is_a_reason_to_cut() {
    let sender = Sender {
        ecn: true,
        ..Sender::default()
    };
    let burst = sender.burst();
    let takes = Offloads::ALL.without(Offloads::ECN);
    assert_eq!(cut(&burst, takes).unwrap().len(), 3);
    assert_eq!(cut(&burst, Offloads::ALL).unwrap().len(), 1);
}

#[test]
fn a_checksum_of_zero_is_written_as_its_other_form() {
    for len in [64, 1000] {
        let mut frame = vec![0; len];
        frame[20..22].copy_from_slice(&[0xff, 0xff]);
        let header = VnetHeader([1, 0, 0, 0, 0, 0, 20, 0, 6, 0]);
        let finished = cut(&scattered(header, &frame, &[len]), Offloads::NONE).unwrap();
        assert_eq!(finished[0].1[26..28], [0xff, 0xff]);
    }
}

#[test]
fn a_checksum_far_behind_is_finished_too() {
    let (header, frame) = (
        VnetHeader([1, 0, 0, 0, 0, 0, 3, 2, 100, 1]), // 515, 356
        vec![3; 2000],
    );
    let finished = cut(&scattered(header, &frame, &[701]), Offloads::NONE).unwrap();
    let mut sum = checksum::Sum::default();
    sum.add(&finished[0].1[515..871]);
    sum.add(&[3, 3]);
    sum.add(&finished[0].1[873..]);
    let field = u16::from_be_bytes([finished[0].1[871], finished[0].1[872]]);
    assert_eq!(field, !sum.folded());
}

#[test]
fn what_the_header_does_not_speak_of_is_refused() {
    let sender = Sender::default();
    let (header, frame) = sender.frame();
    let refused = |what: &str, header: VnetHeader, frame: &[u8]| {
        let burst = scattered(header, frame, &[usize::MAX]);
        assert!(cut(&burst, Offloads::NONE).is_none(), "{what}");
    };
    let with = |at: usize, value: u8| {
        let mut changed = header;
        changed.0[at] = value;
        changed
    };
    let changed = |at: usize, value: u8| {
        let mut changed = frame.clone();
        changed[at] = value;
        changed
    };
    refused("another protocol", with(1, 5), &frame);
    refused("another version", with(1, 4), &frame);
    refused("fragmentation of UDP", with(1, 3), &frame);
    refused("ECN without TCP", with(1, 0x80), &frame);
    refused("no checksum to finish", with(0, 0), &frame);
    refused("another checksum", with(6, 42), &frame);
    refused("another field", with(8, 6), &frame);
    refused(
        "a tunnel: the inner header is meant",
        with(6, 34 + 28),
        &frame,
    );
    let mut pieces_of_none = header;
    pieces_of_none.0[4..6].fill(0);
    refused("pieces of no bytes", pieces_of_none, &frame);
    let mut tiny = header;
    tiny.0[4..6].copy_from_slice(&[1, 0]);
    refused("4000 pieces", tiny, &frame);
    refused("neither IPv4 nor IPv6", header, &changed(13, 6));
    refused("a version that is none", header, &changed(14, 0x55));
    refused("a short IP header", header, &changed(14, 0x44));
    refused("a fragment", header, &changed(20, 0x20));
    refused("a later fragment", header, &changed(21, 1));
    refused("neither TCP nor UDP", header, &changed(23, 47));
    refused("a short TCP header", header, &changed(46, 0x40));
    refused("headers longer than the frame", header, &frame[..60]);
    let long = Sender {
        six: true,
        ip_options: 60,
        ..Sender::default()
    };
    refused("headers without end", long.frame().0, &long.frame().1);
    let outside = VnetHeader([1, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
    refused("a checksum outside", outside, &frame);
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    let length = prop_oneof![1usize..8, 8usize..300, 300usize..5000, Just(65_600)];
    prop::collection::vec(length, 1..12)
}

prop_compose! {
    fn senders()(
        (six, udp, ecn) in any::<(bool, bool, bool)>(),
        tags in 0usize..=2,
        ip_options in 0usize..=10,
        tcp_options in 0usize..=10,
        len in prop_oneof![0usize..100, 100usize..65_000],
        size in 40u16..9000,
        seed in any::<u8>(),
        parts in lengths(),
    ) -> Sender {
        let payload = (0..len).map(|at| (at * 7 + at / 255) as u8 ^ seed).collect();
        Sender { six, udp, tags, ip_options, tcp_options, payload, size, ecn, parts }
    }
}

fn cases(many: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(if cfg!(miri) { 3 } else { many })
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn pieces_make_the_payload(sender in senders()) {
        check_pieces(&sender);
    }

    /// What is refused is: nothing that comes in may stop the worker.
    #[test]
    fn a_spoilt_super_frame_is_cut_or_refused(
        sender in senders(),
        header in prop::collection::vec((0usize..10, any::<u8>()), 0..3),
        spoilt in prop::collection::vec((0usize..130, any::<u8>()), 0..4),
        keep in prop_oneof![Just(MAX_FRAME), 14usize..200],
        takes in 0u8..32,
    ) {
        let (mut vnet, mut frame) = sender.frame();
        for (at, value) in header {
            vnet.0[at] = value;
        }
        frame.truncate(keep);
        for (at, value) in spoilt {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        if let Some(frames) = cut(&scattered(vnet, &frame, &sender.parts), Offloads(takes)) {
            prop_assert!(frames.iter().map(|(_, frame)| frame.len()).sum::<usize>() >= frame.len());
        }
    }
}

/// `cargo test --release -p ikv-dataplane -- --ignored --nocapture speed`
#[test]
#[ignore = "a measurement"]
fn speed() {
    let timed = |what: &str, bytes: usize, work: &mut dyn FnMut()| {
        let rounds = 200_000_000 / bytes.max(1);
        let best = (0..5)
            .map(|_| {
                let began = std::time::Instant::now();
                (0..rounds).for_each(|_| work());
                began.elapsed().as_secs_f64() / rounds as f64
            })
            .fold(f64::MAX, f64::min);
        let (ns, rate) = (best * 1e9, bytes as f64 / best / 1e9);
        println!("{what}: {ns:.0} ns, {rate:.1} GB/s");
    };
    for len in [64, 1500, 9000, 65_000] {
        let bytes = vec![0x5a; len];
        timed(&format!("checksum of {len} bytes"), len, &mut || {
            let mut sum = checksum::Sum::default();
            sum.add(std::hint::black_box(&bytes));
            std::hint::black_box(sum.folded());
        });
    }
    let super_frame = Sender {
        payload: vec![1; 64_000],
        ..Sender::default()
    };
    let plain = Sender {
        payload: vec![1; 1448],
        ..Sender::default()
    };
    let mut out = Burst::new();
    for (what, sender, takes) in [
        ("super-frame, finished", &super_frame, Offloads::NONE),
        ("super-frame, checksums left", &super_frame, Offloads::CSUM),
        ("plain frame, finished", &plain, Offloads::NONE),
    ] {
        let burst = sender.burst();
        timed(what, sender.payload.len(), &mut || {
            out.clear();
            let mut cut = Cut::new(&burst, 0, takes).unwrap();
            while cut.len() > 0 {
                cut.add_next(&mut out);
            }
        });
    }
}
