//! The content of test frames: a number, a time, a check value over both, and known bytes.
//!
//! Short frames have EtherType 0x88b5 (IEEE 802, local experiments), which no host answers. A frame
//! of more than 9018 bytes is a TCP super-frame, without checksum and to be segmented: a wire
//! carries no frame of that length.

/// Longest frame in bytes that is sent in one piece. Longer ones are super-frames.
const LONGEST_PLAIN: usize = 9018;

/// Longest super-frame in bytes: the kernel segments those of 64 KiB and more
/// (GSO_LEGACY_MAX_SIZE).
pub const LONGEST: usize = 65_535;

/// Shortest test frame in bytes: it must contain the stamp.
pub const SHORTEST: usize = 44;

/// EtherType for local experiments (IEEE 802).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

/// Payload bytes of a super-frame's segments, the usual with an MTU of 1500 and TCP timestamps.
const SEGMENT: u16 = 1448;

/// Bytes of the headers of Ethernet, IPv4 and TCP without options.
const SUPER_HEADERS: usize = 54;

/// A virtio-net header, `num_buffers` included.
pub type Header = [u8; 12];

/// The frames of one size of one run, which differ only in their stamps.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// The virtio-net header of each frame.
    pub header: Header,
    /// A whole frame with an empty stamp.
    pub frame: Vec<u8>,
    /// Offset of the stamp's three words, a multiple of 8.
    words: usize,
    /// Part of the check value, so that a frame of another size, run or direction does not match.
    salt: u64,
}

/// The part of a frame that distinguishes it from the other frames of its pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The frame's number in its lane, from 0.
    pub number: u64,
    /// When the frame was due, in nanoseconds since the run began.
    pub time: u64,
}

/// Read access to a frame, in a guest's buffers or in a slice.
pub trait FrameBytes {
    /// Length in bytes.
    fn length(&self) -> usize;
    /// Eight bytes at a multiple of 8 as a number, in this machine's byte order. `None` if they
    /// are not contiguous or beyond the frame.
    fn word(&self, at: usize) -> Option<u64>;
    /// Whether the frame contains `bytes` at offset `at`.
    fn contains(&self, at: usize, bytes: &[u8]) -> bool;
}

impl FrameBytes for &[u8] {
    fn length(&self) -> usize {
        self.len()
    }

    fn word(&self, at: usize) -> Option<u64> {
        let bytes = self.get(at..at + 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().expect("eight bytes")))
    }

    fn contains(&self, at: usize, bytes: &[u8]) -> bool {
        self.get(at..at + bytes.len()) == Some(bytes)
    }
}

impl Pattern {
    /// The pattern of frames of `size` bytes without FCS, from [`SHORTEST`] to [`LONGEST`], that
    /// enter the cable at end 0 or 1. Frames of another `run` do not match it.
    ///
    /// # Panics
    /// When `size` is out of range.
    pub fn new(size: usize, from: u8, run: u16) -> Pattern {
        assert!(
            (SHORTEST..=LONGEST).contains(&size),
            "test frames have 44 to 65535 bytes"
        );
        let mut frame: Vec<u8> = (0..size).map(|at| (at * 167 + at / 251) as u8).collect();
        frame[..6].copy_from_slice(&[2, 0x1b, 0xe0, 0, 0, 1 - from]);
        frame[6..12].copy_from_slice(&[2, 0x1b, 0xe0, 0, 0, from]);
        let (mut header, words) = ([0; 12], if size > LONGEST_PLAIN { 56 } else { 16 });
        if size > LONGEST_PLAIN {
            header = super_header();
            headers_of_super_frame(&mut frame, from);
        } else {
            frame[12..14].copy_from_slice(&EXPERIMENTAL);
            frame[14..16].copy_from_slice(&run.to_be_bytes());
        }
        frame[words..words + 24].fill(0);
        let salt = (size as u64) << 32 | u64::from(run) << 8 | u64::from(from);
        Pattern {
            header,
            frame,
            words,
            salt,
        }
    }

    /// The words of a stamp, and their offset in the frame: number, time, check value.
    #[inline]
    pub(crate) fn words(&self, stamp: Stamp) -> (usize, [u64; 3]) {
        (self.words, [stamp.number, stamp.time, self.check(stamp)])
    }

    /// The stamp of a frame of this pattern. With `whole`, every byte is compared; otherwise only the
    /// stamp and the last eight bytes.
    #[inline]
    pub(crate) fn stamp(&self, frame: &impl FrameBytes, whole: bool) -> Result<Stamp, Mismatch> {
        let len = self.frame.len();
        let words = [0, 8, 16].map(|word| frame.word(self.words + word));
        let [Some(number), Some(time), Some(check)] = words else {
            return Err(self.foreign_or(frame, Mismatch::Length));
        };
        let stamp = Stamp { number, time };
        if check != self.check(stamp) {
            return Err(self.foreign_or(frame, Mismatch::Bytes));
        }
        if frame.length() != len {
            return Err(Mismatch::Length);
        }
        let after = self.words + 24;
        let good = if whole {
            frame.contains(0, &self.frame[..self.words])
                && frame.contains(after, &self.frame[after..])
        } else {
            let tail = (len - 8).max(after);
            frame.contains(tail, &self.frame[tail..])
        };
        if good {
            Ok(stamp)
        } else {
            Err(Mismatch::Bytes)
        }
    }

    /// `damage`, unless the frame's header shows that another sender sent it.
    #[cold]
    fn foreign_or(&self, frame: &impl FrameBytes, damage: Mismatch) -> Mismatch {
        if frame.contains(0, &self.frame[..self.words]) {
            damage
        } else {
            Mismatch::Foreign
        }
    }

    /// A hash of stamp and pattern (multiply and shift, as in splitmix64).
    #[inline]
    fn check(&self, stamp: Stamp) -> u64 {
        let mixed = (stamp.number ^ self.salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29 ^ stamp.time).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }
}

/// Why a received frame does not match the pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// Another sender on the cable sent it, or another run.
    Foreign,
    /// It is longer or shorter than it was sent.
    Length,
    /// It has other bytes than it was sent with.
    Bytes,
}

fn super_header() -> Header {
    let mut header = [0; 12];
    header[0] = 1; // VIRTIO_NET_HDR_F_NEEDS_CSUM
    header[1] = 1; // VIRTIO_NET_HDR_GSO_TCPV4
    header[2..4].copy_from_slice(&(SUPER_HEADERS as u16).to_le_bytes());
    header[4..6].copy_from_slice(&SEGMENT.to_le_bytes());
    header[6..8].copy_from_slice(&34_u16.to_le_bytes()); // csum_start: TCP
    header[8..10].copy_from_slice(&16_u16.to_le_bytes()); // csum_offset
    header
}

/// Writes IPv4 and TCP headers with addresses for documentation (RFC 5737). The IP checksum is
/// complete; TCP's is the sum over the pseudo header, as VIRTIO_NET_HDR_F_NEEDS_CSUM requires.
fn headers_of_super_frame(frame: &mut [u8], from: u8) {
    let ip_len = (frame.len() - 14) as u16;
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let address = |end: u8| [192, 0, 2, 1 + end];
    let ip = &mut frame[14..34];
    ip.copy_from_slice(&[
        0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
    ip[12..16].copy_from_slice(&address(from));
    ip[16..20].copy_from_slice(&address(1 - from));
    let sum = !folded(ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let addresses = folded(&ip[12..20]);
    let tcp = &mut frame[34..SUPER_HEADERS];
    // Port 9 (discard) to itself; an ACK.
    tcp.copy_from_slice(&[
        0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    let pseudo = [addresses.to_be_bytes(), [0, 6], (ip_len - 20).to_be_bytes()].concat();
    tcp[16..18].copy_from_slice(&folded(&pseudo).to_be_bytes());
}

/// The Internet checksum before its final inversion (RFC 1071).
fn folded(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(pattern: &Pattern, stamp: Stamp) -> Vec<u8> {
        let mut frame = pattern.frame.clone();
        let (at, words) = pattern.words(stamp);
        for (index, word) in words.iter().enumerate() {
            frame[at + index * 8..][..8].copy_from_slice(&word.to_ne_bytes());
        }
        frame
    }

    #[test]
    fn what_was_sent_is_recognised() {
        let stamp = Stamp {
            number: 77,
            time: 123_456_789,
        };
        for size in [SHORTEST, 64, 1518, 9000, LONGEST] {
            let pattern = Pattern::new(size, 0, 5);
            let frame = sent(&pattern, stamp);
            assert_eq!(pattern.stamp(&&frame[..], true), Ok(stamp), "{size}");
            let other_way = Pattern::new(size, 1, 5);
            assert_eq!(other_way.stamp(&&frame[..], false), Err(Mismatch::Foreign));
        }
    }

    #[test]
    fn any_changed_byte_or_length_is_found() {
        let pattern = Pattern::new(64, 0, 5);
        let frame = sent(&pattern, Stamp { number: 3, time: 4 });
        for at in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[at] ^= 0x10;
            assert!(pattern.stamp(&&damaged[..], true).is_err(), "byte {at}");
        }
        let longer = [frame.clone(), vec![0]].concat();
        assert_eq!(pattern.stamp(&&longer[..], false), Err(Mismatch::Length));
        assert_eq!(pattern.stamp(&&frame[..30], false), Err(Mismatch::Length));
        assert_eq!(
            pattern.stamp(&&[0_u8; 64][..], false),
            Err(Mismatch::Foreign)
        );
    }

    #[test]
    fn super_frames_have_valid_headers() {
        let pattern = Pattern::new(LONGEST, 0, 0);
        assert_eq!(folded(&pattern.frame[14..34]), 0xffff);
        assert_eq!(
            u16::from_be_bytes([pattern.frame[16], pattern.frame[17]]),
            65_521
        );
    }
}
