//! A tap that selects the segments of BGP sessions: [`bgp_tap`]. Its BPF program is written by
//! hand, so that the fabric does not need libpcap.

use dataplane::bpf::{Instruction, Program};
use dataplane::capture::TapSpec;

/// How many bytes of a segment are captured.
const SNAP: u32 = 512;

/// Memory for the segments of one lane that arrive between two looks, in bytes.
const RING: usize = 64 << 10;

// Instruction codes of classic BPF.
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

// Protocol constants: EtherType, the first half word of a link-local address, IP protocol, TCP port.
const IPV6: u32 = 0x86dd;
const LINK_LOCAL: u32 = 0xfe80;
const TCP: u32 = 6;
const BGP: u32 = 179;
// Indices of the last two instructions.
const MATCH: u8 = 12;
const NONE: u8 = 13;
/// Instruction code, the indices of the next instructions if the test succeeds and if it fails,
/// constant.
const PROGRAM: [(u16, u8, u8, u32); 14] = [
    (LOAD_HALF, 1, 1, 12),
    (EQUAL, 2, NONE, IPV6),
    (LOAD_HALF, 3, 3, 22),
    (EQUAL, 4, NONE, LINK_LOCAL),
    (LOAD_HALF, 5, 5, 38),
    (EQUAL, 6, NONE, LINK_LOCAL),
    (LOAD_BYTE, 7, 7, 20),
    (EQUAL, 8, NONE, TCP),
    (LOAD_HALF, 9, 9, 54),
    (EQUAL, MATCH, 10, BGP),
    (LOAD_HALF, 11, 11, 56),
    (EQUAL, MATCH, NONE, BGP),
    (RETURN, 0, 0, u32::MAX),
    (RETURN, 0, 0, 0),
];
/// Selects untagged `tcp port 179` between two link-local addresses, as switches use between each
/// other. No router forwards such a packet (RFC 4291 section 2.5.6): on a cable between switches it
/// comes from one of the two, and no server can forge a session from afar, nor fill the ring with
/// frames that look like one.
pub(super) fn bgp_tap() -> TapSpec {
    let instruction = |(at, (code, yes, no, k)): (usize, (u16, u8, u8, u32))| {
        let jump = |to: u8| match code {
            EQUAL => to - 1 - at as u8,
            _ => 0,
        };
        Instruction {
            code,
            jt: jump(yes),
            jf: jump(no),
            k,
        }
    };
    let program = PROGRAM.into_iter().enumerate().map(instruction);
    let program = Program::new(program.collect()).expect("a constant that is tested");
    TapSpec {
        filter: Some(program),
        snap: SNAP,
        wire: false,
        bytes: RING,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn tcp(from: u16, to: u16, source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv6(source, destination, 1)
            .tcp(from, to, 1, 1)
            .write(&mut frame, &[])
            .unwrap();
        frame
    }

    fn address(first: [u8; 2], last: u8) -> [u8; 16] {
        let mut address = [0; 16];
        (address[0], address[1], address[15]) = (first[0], first[1], last);
        address
    }

    #[test]
    fn the_constant_takes_bgp_and_nothing_else() {
        let filter = bgp_tap().filter.unwrap();
        let (one, other) = (address([0xfe, 0x80], 1), address([0xfe, 0x80], 2));
        assert!(filter.matches(&tcp(179, 4000, one, other)));
        assert!(filter.matches(&tcp(4000, 179, one, other)));
        assert!(!filter.matches(&tcp(4000, 80, one, other)));
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv6(one, other, 1);
        builder.udp(179, 179).write(&mut frame, &[]).unwrap();
        assert!(!filter.matches(&frame));
        assert!(!filter.matches(&[]));
    }

    /// A server may send anything that a leaf forwards: these look like both ends of a session on a
    /// cable between switches.
    #[test]
    fn the_constant_takes_nothing_that_a_router_forwards() {
        let filter = bgp_tap().filter.unwrap();
        let (near, far) = (address([0xfe, 0x80], 1), address([0x20, 0x01], 2));
        for (source, destination) in [(near, far), (far, near), (far, far)] {
            assert!(!filter.matches(&tcp(179, 4000, source, destination)));
            assert!(!filter.matches(&tcp(4000, 179, source, destination)));
        }
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([192, 168, 98, 2], [203, 0, 113, 9], 1)
            .tcp(179, 4000, 1, 1)
            .write(&mut frame, &[])
            .unwrap();
        assert!(!filter.matches(&frame));
    }
}
