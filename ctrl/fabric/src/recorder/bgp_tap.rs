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
const LOAD_HALF_BEHIND: u16 = 0x48;
const LOAD_HEADER_LENGTH: u16 = 0xb1;
const EQUAL: u16 = 0x15;
const ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

// Protocol constants: EtherType, IP protocol, TCP port.
const IPV6: u32 = 0x86dd;
const IPV4: u32 = 0x0800;
const TCP: u32 = 6;
const BGP: u32 = 179;
// Indices of the last two instructions.
const MATCH: u8 = 18;
const NONE: u8 = 19;
/// Instruction code, the indices of the next instructions if the test succeeds and if it fails,
/// constant.
const PROGRAM: [(u16, u8, u8, u32); 20] = [
    (LOAD_HALF, 1, 1, 12),
    (EQUAL, 2, 8, IPV6),
    (LOAD_BYTE, 3, 3, 20),
    (EQUAL, 4, NONE, TCP),
    (LOAD_HALF, 5, 5, 54),
    (EQUAL, MATCH, 6, BGP),
    (LOAD_HALF, 7, 7, 56),
    (EQUAL, MATCH, NONE, BGP),
    (EQUAL, 9, NONE, IPV4),
    (LOAD_BYTE, 10, 10, 23),
    (EQUAL, 11, NONE, TCP),
    (LOAD_HALF, 12, 12, 20),
    // Only the first fragment of a packet has ports.
    (ANY_BIT, NONE, 13, 0x1fff),
    (LOAD_HEADER_LENGTH, 14, 14, 14),
    (LOAD_HALF_BEHIND, 15, 15, 14),
    (EQUAL, MATCH, 16, BGP),
    (LOAD_HALF_BEHIND, 17, 17, 16),
    (EQUAL, MATCH, NONE, BGP),
    (RETURN, 0, 0, u32::MAX),
    (RETURN, 0, 0, 0),
];
/// Selects untagged `tcp port 179` over IPv6 and IPv4.
pub(super) fn bgp_tap() -> TapSpec {
    let instruction = |(at, (code, yes, no, k)): (usize, (u16, u8, u8, u32))| {
        let jump = |to: u8| match code {
            EQUAL | ANY_BIT => to - 1 - at as u8,
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

    fn tcp(from: u16, to: u16, v6: bool) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([1; 6], [2; 6]);
        let ip = if v6 {
            ethernet.ipv6([1; 16], [2; 16], 1)
        } else {
            ethernet.ipv4([1; 4], [2; 4], 1)
        };
        let mut frame = Vec::new();
        ip.tcp(from, to, 1, 1).write(&mut frame, &[]).unwrap();
        frame
    }

    #[test]
    fn the_constant_takes_bgp_and_nothing_else() {
        let filter = bgp_tap().filter.unwrap();
        for v6 in [false, true] {
            assert!(filter.matches(&tcp(179, 4000, v6)));
            assert!(filter.matches(&tcp(4000, 179, v6)));
            assert!(!filter.matches(&tcp(4000, 80, v6)));
        }
        let mut fragment = tcp(179, 4000, false);
        fragment[21] = 5;
        assert!(!filter.matches(&fragment));
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([1; 4], [2; 4], 1);
        builder.udp(179, 179).write(&mut frame, &[]).unwrap();
        assert!(!filter.matches(&frame));
        assert!(!filter.matches(&[]));
    }
}
