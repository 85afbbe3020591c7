//! What test frames contain: a number, a time, a check over both, and bytes that are known.
//!
//! Short frames are of EtherType 0x88b5 (IEEE 802, for experiments), which nothing answers.
//! Above [`LONGEST_PLAIN`] bytes a frame is a TCP super-frame that is still to be cut and
//! checksummed: longer ones do not exist on a wire.

/// Longest frame that is sent as it is; what is longer is a super-frame.
pub const LONGEST_PLAIN: usize = 9018;

/// Longest super-frame: the kernel cuts those of 64 KiB and more (GSO_LEGACY_MAX_SIZE).
pub const LONGEST: usize = 65_535;

/// Shortest test frame: the words must fit.
pub const SHORTEST: usize = 44;

/// EtherType for local experiments.
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

/// Bytes of a segment that a super-frame is to be cut into, the usual for an MTU of 1500.
const SEGMENT: u16 = 1448;

/// Ethernet, IPv4 and TCP without options.
const SUPER_HEADERS: usize = 54;

/// A virtio-net header with `num_buffers`.
pub type Header = [u8; 12];

/// Frames of one size, of one trial.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// The virtio-net header in front of each.
    pub header: Header,
    /// A whole frame, its words still 0.
    pub frame: Vec<u8>,
    /// Where its words stand, a multiple of 8.
    words: usize,
    salt: u64,
}

/// What tells frames apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Its number in the lane, from 0.
    pub number: u64,
    /// When it was due, in nanoseconds since the trial began.
    pub time: u64,
}

/// Bytes of a frame at hand, wherever they lie.
pub trait Bytes {
    /// Length in bytes.
    fn length(&self) -> usize;
    /// Eight bytes at a multiple of 8, in this machine's order, if they are at hand.
    fn word(&self, at: usize) -> Option<u64>;
    /// Whether these bytes stand there.
    fn holds(&self, at: usize, bytes: &[u8]) -> bool;
}

impl Bytes for &[u8] {
    fn length(&self) -> usize {
        self.len()
    }

    fn word(&self, at: usize) -> Option<u64> {
        let bytes = self.get(at..at + 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().expect("eight bytes")))
    }

    fn holds(&self, at: usize, bytes: &[u8]) -> bool {
        self.get(at..at + bytes.len()) == Some(bytes)
    }
}

impl Pattern {
    /// For frames of `size` bytes without FCS, from [`SHORTEST`] to [`LONGEST`], that enter at
    /// end 0 or 1. Frames of another `trial` are not taken for its own.
    ///
    /// # Panics
    /// When there are no frames of that size.
    pub fn new(size: usize, from: u8, trial: u16) -> Pattern {
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
            frame[14..16].copy_from_slice(&trial.to_be_bytes());
        }
        frame[words..words + 24].fill(0);
        let salt = (size as u64) << 32 | u64::from(trial) << 8 | u64::from(from);
        Pattern {
            header,
            frame,
            words,
            salt,
        }
    }

    /// Where the three words of a frame stand, and what they are.
    #[inline]
    pub fn words(&self, stamp: Stamp) -> (usize, [u64; 3]) {
        (self.words, [stamp.number, stamp.time, self.check(stamp)])
    }

    /// The stamp of a frame that is ours. `whole` looks at every byte; otherwise only the stamp
    /// and the last bytes are looked at.
    ///
    /// # Errors
    /// Why it is not one of ours.
    #[inline]
    pub fn stamp(&self, frame: &impl Bytes, whole: bool) -> Result<Stamp, Damage> {
        let len = self.frame.len();
        let words = [0, 8, 16].map(|word| frame.word(self.words + word));
        let [Some(number), Some(time), Some(check)] = words else {
            return Err(self.foreign_or(frame, Damage::Length));
        };
        let stamp = Stamp { number, time };
        if check != self.check(stamp) {
            return Err(self.foreign_or(frame, Damage::Bytes));
        }
        if frame.length() != len {
            return Err(Damage::Length);
        }
        let behind = self.words + 24;
        let good = if whole {
            frame.holds(0, &self.frame[..self.words]) && frame.holds(behind, &self.frame[behind..])
        } else {
            let tail = (len - 8).max(behind);
            frame.holds(tail, &self.frame[tail..])
        };
        if good { Ok(stamp) } else { Err(Damage::Bytes) }
    }

    #[cold]
    fn foreign_or(&self, frame: &impl Bytes, damage: Damage) -> Damage {
        if frame.holds(0, &self.frame[..self.words]) {
            damage
        } else {
            Damage::Foreign
        }
    }

    #[inline]
    fn check(&self, stamp: Stamp) -> u64 {
        let mixed = (stamp.number ^ self.salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29 ^ stamp.time).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }
}

/// Why a frame that was received is not one that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// It is none of ours: somebody else uses the cable.
    Foreign,
    /// It is longer or shorter.
    Length,
    /// Bytes differ.
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

/// IPv4 and TCP between two addresses of documentation (RFC 5737), the IP checksum complete and
/// in TCP's place the sum over the pseudo header, as the virtio-net header promises.
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

/// The Internet checksum before it is inverted (RFC 1071).
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
            assert_eq!(other_way.stamp(&&frame[..], false), Err(Damage::Foreign));
        }
    }

    #[test]
    fn every_damage_is_found() {
        let pattern = Pattern::new(64, 0, 5);
        let frame = sent(&pattern, Stamp { number: 3, time: 4 });
        for at in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[at] ^= 0x10;
            assert!(pattern.stamp(&&damaged[..], true).is_err(), "byte {at}");
        }
        let longer = [frame.clone(), vec![0]].concat();
        assert_eq!(pattern.stamp(&&longer[..], false), Err(Damage::Length));
        assert_eq!(pattern.stamp(&&frame[..30], false), Err(Damage::Length));
        assert_eq!(pattern.stamp(&&[0_u8; 64][..], false), Err(Damage::Foreign));
    }

    #[test]
    fn super_frames_have_true_headers() {
        let pattern = Pattern::new(LONGEST, 0, 0);
        assert_eq!(folded(&pattern.frame[14..34]), 0xffff);
        assert_eq!(
            u16::from_be_bytes([pattern.frame[16], pattern.frame[17]]),
            65_521
        );
    }
}
