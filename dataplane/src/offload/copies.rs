//! Finishes and cuts frames in ordinary memory, such as those of a capture.

use super::checksum::Sum;
use super::cut::Cut;
use super::headers::Template;
use super::layout::MAX_HEADERS;
use crate::frame::Offloads;
use crate::frame::{Burst, VnetHeader};

/// Finishes the checksum that the frame's sender left to others, in place; a super-frame is treated as
/// one long frame. `false` when no checksum is unfinished, or when it is not inside the frame.
pub fn finish_checksum(header: &VnetHeader, frame: &mut [u8]) -> bool {
    if !header.needs().contains(Offloads::CSUM) {
        return false;
    }
    let (start, end) = (usize::from(header.checksum_start()), header.checksum_end());
    if end > frame.len() {
        return false;
    }
    let mut sum = Sum::default();
    sum.add(&frame[start..]);
    // As in the lanes: 0 would mean that the sender computed no checksum.
    let value = match !sum.folded() {
        0 => 0xffff,
        value => value,
    };
    frame[end - 2..end].copy_from_slice(&value.to_be_bytes());
    true
}

/// Into how many wire frames a super-frame of `len` bytes is to be cut, and how many bytes of payload
/// each but the last has. `head` are as many of its first bytes as were captured. `None` when it is
/// not a super-frame, or its headers contradict `header`.
pub fn pieces(header: &VnetHeader, head: &[u8], len: usize) -> Option<(usize, usize)> {
    let size = usize::from(header.segment_size());
    if header.gso_type() == 0 || size == 0 {
        return None;
    }
    let mut bytes = [0; MAX_HEADERS];
    let known = head.len().min(MAX_HEADERS);
    bytes[..known].copy_from_slice(&head[..known]);
    let template = Template::new(bytes, len, header)?;
    (template.len() <= known).then(|| (template.payload().div_ceil(size).max(1), size))
}

/// Turns frames into those that a wire would carry, with the code that the lanes use.
#[derive(Debug, Default)]
pub struct Segmenter {
    whole: Burst,
    pieces: Burst,
    copy: Vec<u8>,
}

impl Segmenter {
    /// Hands each wire frame of `frame` to `each`: the pieces of a super-frame, or the frame
    /// itself, with checksums finished. `false`, and `each` is not called, when the frame
    /// contradicts its virtio-net header.
    pub fn cut(&mut self, header: VnetHeader, frame: &[u8], mut each: impl FnMut(&[u8])) -> bool {
        if header.is_plain() {
            each(frame);
            return true;
        }
        self.whole.clear();
        if !self.whole.push(header, frame) {
            return false;
        }
        let Some(mut cut) = Cut::new(&self.whole, 0, Offloads::NONE) else {
            return false;
        };
        while cut.len() > 0 {
            self.pieces.clear();
            while cut.len() > 0 && self.pieces.has_room() {
                cut.add_next(&mut self.pieces);
            }
            for index in 0..self.pieces.len() {
                self.copy.resize(self.pieces.frame_len(index), 0);
                self.pieces.copy_out(index, &mut self.copy);
                each(&self.copy);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

    use super::*;

    /// TCP over IPv4 behind an Ethernet header, as its sender leaves it.
    fn unfinished(payload: usize, size: u16) -> (VnetHeader, Vec<u8>) {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(4000, 179, 1, 1000);
        let mut frame = Vec::new();
        let payload: Vec<u8> = (0..payload).map(|at| at as u8).collect();
        builder.write(&mut frame, &payload).unwrap();
        let mut pseudo = Sum::default();
        pseudo.add(&frame[26..34]);
        pseudo.add(&[0, 6]);
        pseudo.add(&(20 + payload.len() as u16).to_be_bytes());
        frame[50..52].copy_from_slice(&pseudo.folded().to_be_bytes());
        let mut header = VnetHeader([1, 0, 54, 0, 0, 0, 34, 0, 16, 0]);
        if size > 0 {
            header.0[1] = 1;
            header.0[4..6].copy_from_slice(&size.to_le_bytes());
        }
        (header, frame)
    }

    fn checksum_is_good(frame: &[u8]) -> bool {
        let parsed = SlicedPacket::from_ethernet(frame).unwrap();
        let (Some(etherparse::NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) =
            (parsed.net, parsed.transport)
        else {
            panic!("TCP over IPv4");
        };
        let good = tcp
            .to_header()
            .calc_checksum_ipv4(&ip.header().to_header(), tcp.payload());
        good == Ok(tcp.checksum())
    }

    #[test]
    fn a_checksum_is_finished_in_place_of_whole_frames_and_super_frames() {
        for (payload, size) in [(0, 0), (5, 0), (1400, 0), (60_000, 1448)] {
            let (header, mut frame) = unfinished(payload, size);
            assert!(!checksum_is_good(&frame));
            assert!(finish_checksum(&header, &mut frame));
            assert!(checksum_is_good(&frame), "{payload} bytes");
        }
        let (_, mut frame) = unfinished(5, 0);
        assert!(!finish_checksum(&VnetHeader::default(), &mut frame));
        let outside = VnetHeader([1, 0, 0, 0, 0, 0, 255, 0, 16, 0]);
        assert!(!finish_checksum(&outside, &mut frame));
    }

    #[test]
    fn a_super_frame_becomes_as_many_wire_frames_as_is_said() {
        let (header, frame) = unfinished(60_000, 1448);
        let said = pieces(&header, &frame[..54], frame.len());
        assert_eq!(said, Some((42, 1448)));
        let mut lengths = Vec::new();
        let cut = Segmenter::default().cut(header, &frame, |piece| {
            assert!(checksum_is_good(piece));
            lengths.push(piece.len() - 54);
        });
        assert!(cut);
        assert_eq!(lengths.len(), 42);
        assert_eq!(lengths.iter().sum::<usize>(), 60_000);
        assert_eq!(pieces(&header, &frame[..30], frame.len()), None);
        let (whole, frame) = unfinished(60, 0);
        assert_eq!(pieces(&whole, &frame, frame.len()), None);
    }

    #[test]
    fn what_contradicts_itself_is_left_alone() {
        let (mut header, frame) = unfinished(4000, 1448);
        header.0[6] = 200;
        assert!(!Segmenter::default().cut(header, &frame, |_| panic!("no piece")));
        assert_eq!(pieces(&header, &frame, frame.len()), None);
    }
}
