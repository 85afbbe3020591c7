//! A capture as pcapng (draft-ietf-opsawg-pcapng): [`Pcapng`].
//!
//! This is our own writer because the crate pcap-file 2 writes the two halves of a time stamp in
//! statistics blocks in the wrong order, and allocates a vector for every frame's options.

use dataplane::capture::Record;
use dataplane::offload::{finish_checksum, pieces};

use super::{CaptureCount, CaptureStart, verdict};

/// Block types.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// Options of every block.
const END: u16 = 0;
const COMMENT: u16 = 1;

/// Bytes of a statistics block: its frame, its head, and five options.
const STATISTICS_LENGTH: usize = 12 + 12 + 5 * 12 + 4;

const MAGIC: u32 = 0x1a2b_3c4d;
const ETHERNET: u16 = 1;
/// Powers of ten: nanoseconds.
const RESOLUTION: u8 = 9;

/// `epb_flags`.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
const CHECKSUM_NOT_READY: u32 = 1 << 9;
const SEGMENTATION_OFFLOADED: u32 = 1 << 11;

const FLAGS_EXPLAINED: &str = "Packet flags, bit 9: the sender left this checksum to the receiver. \
It is finished in this copy, if the frame is here whole. Bit 11: a super-frame, as the receiver \
took it or before it was cut; its checksum is that of one long segment.";

/// Writes blocks to a buffer; its user takes them out with [`Pcapng::take`].
#[derive(Debug)]
pub struct Pcapng {
    start: CaptureStart,
    /// The most bytes of each frame; 0 means all.
    snap: u32,
    filter: Option<String>,
    delivered: Vec<u64>,
    buffer: Vec<u8>,
}

impl Pcapng {
    /// A writer for a capture that has just begun. `filter` is its tcpdump expression.
    pub fn new(start: &CaptureStart, snap: u32, filter: Option<&str>) -> Self {
        Pcapng {
            start: start.clone(),
            snap,
            filter: filter.map(str::to_owned),
            delivered: vec![0; start.interfaces.len()],
            buffer: Vec::new(),
        }
    }

    /// Takes the blocks that were written since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        let capacity = self.buffer.capacity();
        if self.buffer.is_empty() {
            return Vec::new();
        }
        std::mem::replace(&mut self.buffer, Vec::with_capacity(capacity))
    }

    /// Length in bytes of the blocks that end a file.
    pub fn length_of_end(&self) -> usize {
        STATISTICS_LENGTH * self.start.interfaces.len()
    }

    /// Writes the blocks that begin a file.
    pub fn begin(&mut self) {
        block(&mut self.buffer, SECTION, |block| {
            block.extend(MAGIC.to_le_bytes());
            block.extend(1u16.to_le_bytes());
            block.extend(0u16.to_le_bytes());
            block.extend(u64::MAX.to_le_bytes());
            option(block, 3, std::env::consts::OS.as_bytes());
            let program = concat!("ikv-fabric ", env!("CARGO_PKG_VERSION"));
            option(block, 4, program.as_bytes());
            option(block, COMMENT, FLAGS_EXPLAINED.as_bytes());
            option(block, END, &[]);
        });
        for interface in &self.start.interfaces {
            block(&mut self.buffer, INTERFACE, |block| {
                block.extend(ETHERNET.to_le_bytes());
                block.extend(0u16.to_le_bytes());
                block.extend(self.snap.to_le_bytes());
                option(block, 2, interface.name.as_bytes());
                let way = if self.start.wire { "from" } else { "to" };
                let described = format!(
                    "{}, cable {} {way} {}",
                    interface.alias, interface.cable, interface.peer
                );
                option(block, 3, described.as_bytes());
                option(block, 9, &[RESOLUTION]);
                if let Some(filter) = &self.filter {
                    // The first byte says that it is a tcpdump expression.
                    option(block, 11, &[&[0], filter.as_bytes()].concat());
                }
                option(block, END, &[]);
            });
        }
    }

    /// Writes a frame. `bytes` are what was captured of it, perhaps not all.
    pub fn frame(&mut self, interface: u32, record: &Record, bytes: &[u8]) {
        let Some(delivered) = self.delivered.get_mut(interface as usize) else {
            return;
        };
        *delivered += 1;
        let mut flags = if self.start.wire { OUTBOUND } else { INBOUND };
        let mut super_frame = None;
        if !record.header.is_plain() {
            flags |= CHECKSUM_NOT_READY;
            super_frame = pieces(&record.header, bytes, record.len as usize);
            if record.header.gso_type() != 0 {
                flags |= SEGMENTATION_OFFLOADED;
            }
        }
        let time = record.time + self.start.wall_offset;
        block(&mut self.buffer, PACKET, |block| {
            block.extend(interface.to_le_bytes());
            block.extend(halves(time));
            block.extend((bytes.len() as u32).to_le_bytes());
            block.extend(record.len.to_le_bytes());
            let at = block.len();
            block.extend_from_slice(bytes);
            if flags & CHECKSUM_NOT_READY != 0 && bytes.len() == record.len as usize {
                finish_checksum(&record.header, &mut block[at..]);
            }
            pad(block, bytes.len());
            option(block, 2, &flags.to_le_bytes());
            let comment = verdict::comment(&record.verdict, super_frame);
            if !comment.is_empty() {
                option(block, COMMENT, comment.as_bytes());
            }
            option(block, END, &[]);
        });
    }

    /// Writes the blocks that end a file; `now` is in ns of the records' clock.
    pub fn end(&mut self, counts: &[CaptureCount], now: u64) {
        let offset = self.start.wall_offset;
        for (interface, count) in counts.iter().enumerate() {
            let delivered = self.delivered.get(interface).copied().unwrap_or(0);
            block(&mut self.buffer, STATISTICS, |block| {
                block.extend((interface as u32).to_le_bytes());
                block.extend(halves(now + offset));
                option(block, 2, &halves(self.start.began + offset));
                option(block, 3, &halves(now + offset));
                option(block, 4, &count.received.to_le_bytes());
                option(block, 5, &count.lost.to_le_bytes());
                option(block, 8, &delivered.to_le_bytes());
                option(block, END, &[]);
            });
        }
    }
}

/// Writes a block: its type and length, what `body` appends, and its length again.
fn block(to: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let at = to.len();
    to.extend(kind.to_le_bytes());
    to.extend([0; 4]);
    body(to);
    let length = ((to.len() - at + 4) as u32).to_le_bytes();
    to[at + 4..at + 8].copy_from_slice(&length);
    to.extend(length);
}

/// Writes an option; a value that is too long for one is cut off.
fn option(to: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = value.len().min(usize::from(u16::MAX));
    to.extend(code.to_le_bytes());
    to.extend((length as u16).to_le_bytes());
    to.extend_from_slice(&value[..length]);
    pad(to, length);
}

fn pad(to: &mut Vec<u8>, length: usize) {
    to.extend_from_slice(&[0; 3][..length.wrapping_neg() % 4]);
}

/// A time stamp: its upper half comes first in either byte order.
fn halves(time: u64) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&((time >> 32) as u32).to_le_bytes());
    bytes[4..].copy_from_slice(&(time as u32).to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use dataplane::VnetHeader;
    use dataplane::capture::Verdict;

    use super::*;
    use crate::CaptureInterface;

    fn start(wire: bool) -> CaptureStart {
        let port = |name: &str, peer: &str| CaptureInterface {
            name: name.into(),
            alias: format!("{name}'s alias"),
            peer: peer.into(),
            cable: "wire".into(),
        };
        CaptureStart {
            interfaces: vec![port("pa", "pb"), port("pb", "pa")],
            wall_offset: 5 << 32,
            began: 1,
            wire,
        }
    }

    /// Type and body of each block, whose lengths must agree.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let length = word(file, 4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(file, length - 4) as usize, length);
            blocks.push((word(file, 0), file[8..length - 4].to_vec()));
            file = &file[length..];
        }
        blocks
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Code and value of each option, to the end of the block.
    fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let mut options = Vec::new();
        loop {
            let [code, length] = [word(bytes, 0) as u16, (word(bytes, 0) >> 16) as u16];
            let length = usize::from(length);
            let value = bytes[4..4 + length].to_vec();
            bytes = &bytes[4 + length.next_multiple_of(4)..];
            if code == END {
                assert!(bytes.is_empty() && length == 0);
                return options;
            }
            options.push((code, value));
        }
    }

    #[test]
    fn a_file_begins_with_its_ports_and_ends_with_their_statistics() {
        let mut pcapng = Pcapng::new(&start(false), 60, Some("arp"));
        pcapng.begin();
        let begin = blocks(&pcapng.take());
        let kinds: Vec<u32> = begin.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION, INTERFACE, INTERFACE]);
        let (_, port) = &begin[1];
        assert_eq!(
            (word(port, 0), word(port, 4)),
            (1, 60),
            "Ethernet, and the snap length"
        );
        let found = options(&port[8..]);
        assert_eq!(found[0], (2, b"pa".to_vec()));
        assert_eq!(found[1], (3, b"pa's alias, cable wire to pb".to_vec()));
        assert_eq!(found[2..], [(9, vec![9]), (11, b"\0arp".to_vec())]);

        pcapng.frame(1, &Record::default(), &[]);
        pcapng.take();
        let count = CaptureCount {
            received: 9,
            lost: 8,
        };
        pcapng.end(&[CaptureCount::default(), count], 2);
        let end = pcapng.take();
        assert_eq!(end.len(), pcapng.length_of_end());
        let (kind, statistics) = &blocks(&end)[1];
        assert_eq!((*kind, word(statistics, 0)), (STATISTICS, 1));
        assert_eq!(
            (word(statistics, 4), word(statistics, 8)),
            (5, 2),
            "upper half first"
        );
        let number = |number: u64| number.to_le_bytes().to_vec();
        let found = options(&statistics[12..]);
        assert_eq!(found[2..], [(4, number(9)), (5, number(8)), (8, number(1))]);
    }

    #[test]
    fn a_frame_has_its_direction_and_its_verdict() {
        let record = Record {
            time: 7,
            len: 61,
            verdict: Verdict {
                duplicated: true,
                ..Verdict::default()
            },
            ..Record::default()
        };
        for (wire, direction) in [(false, INBOUND), (true, OUTBOUND)] {
            let mut pcapng = Pcapng::new(&start(wire), 0, None);
            pcapng.frame(0, &record, &[3; 61]);
            let (kind, packet) = &blocks(&pcapng.take())[0];
            let head: Vec<u32> = (0..5).map(|at| word(packet, at * 4)).collect();
            assert_eq!((*kind, head), (PACKET, vec![0, 5, 7, 61, 61]));
            assert_eq!(packet[20..81], [3; 61]);
            let found = options(&packet[84..]);
            let flags = direction.to_le_bytes().to_vec();
            assert_eq!(found, [(2, flags), (COMMENT, b"duplicated".to_vec())]);
        }
    }

    #[test]
    fn an_unfinished_checksum_is_finished_only_in_a_whole_frame() {
        let record = Record {
            len: 60,
            header: VnetHeader([1, 0, 0, 0, 0, 0, 34, 0, 16, 0]),
            ..Record::default()
        };
        for (kept, finished) in [(60, true), (59, false)] {
            let mut pcapng = Pcapng::new(&start(false), 0, None);
            pcapng.frame(0, &record, &vec![1; kept]);
            let (_, packet) = &blocks(&pcapng.take())[0];
            assert_eq!(packet[20 + 50..20 + 52] != [1, 1], finished);
            let found = options(&packet[20 + 60..]);
            let flags = INBOUND | CHECKSUM_NOT_READY;
            assert_eq!(found, [(2, flags.to_le_bytes().to_vec())]);
        }
    }
}
