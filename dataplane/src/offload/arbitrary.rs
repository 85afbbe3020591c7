//! Frames that are cut or refused, whatever they are.

use super::Cut;
use crate::arbitrary::Bytes;
use crate::frame::Offloads;
use crate::frame::{Burst, MAX_FRAME, MAX_FRAME_SEGMENTS, MIN_FRAME, VnetHeader};

/// Bytes: what the receiver takes, the frame's kind, its virtio-net header, where it is split,
/// and what is changed in it.
pub(crate) fn drive(mut bytes: Bytes<'_>) {
    let takes = Offloads(bytes.u8() & 0x1f);
    let how = bytes.u8();
    let (mut header, mut frame) = if how & 1 == 0 {
        super_frame(&mut bytes)
    } else {
        (VnetHeader(bytes.array()), Vec::new())
    };
    let parts: Vec<usize> = (0..=bytes.u8() % 8)
        .map(|_| match bytes.u8() {
            len @ 0..128 => usize::from(len),
            len => usize::from(len - 127) * 512,
        })
        .collect();
    if how & 2 != 0 {
        header.0[usize::from(bytes.u8()) % VnetHeader::LEN] = bytes.u8();
    }
    if how & 4 != 0 {
        let len = usize::from(bytes.u16());
        frame.truncate(len);
    }
    // To the longest of each kind: one IP packet, and that with one tag and two.
    if how & 0x60 == 0x60 {
        let longest = [65_535 + 14, 65_535 + 14 + 4, 65_535 + 14 + 8, MAX_FRAME];
        frame.resize(bytes.pick(&longest), 0x5a);
    }
    // A checksum that ends where the frame does, or a little before or behind.
    if how & 0x80 != 0 {
        let field = (frame.len() + 2).saturating_sub(usize::from(bytes.u8() % 8));
        let start = field.min(40_000);
        let offset = (field - start).min(65_535);
        header.0[6..8].copy_from_slice(&(start as u16).to_le_bytes());
        header.0[8..10].copy_from_slice(&(offset as u16).to_le_bytes());
    }
    if how & 8 != 0 {
        for _ in 0..bytes.u8() % 4 {
            let (at, value) = (usize::from(bytes.u8()), bytes.u8());
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
    }
    frame.extend(bytes.take(MAX_FRAME - frame.len()));
    frame.resize(frame.len().max(MIN_FRAME), 0);
    // What comes from a guest was checked; what comes from the kernel was not.
    if how & 0x10 != 0
        && let Some(checked) = header.checked(frame.len(), Offloads::ALL)
    {
        header = checked;
    }
    let burst = scattered(header, &frame, &parts);
    if let Some(frames) = cut(&burst, takes) {
        check(&header, &frame, &frames);
    }
}

/// The payload is that of the frame, in pieces of the right size behind headers of one length.
fn check(header: &VnetHeader, frame: &[u8], pieces: &[(VnetHeader, Vec<u8>)]) {
    let whole: usize = pieces.iter().map(|(_, piece)| piece.len()).sum();
    let Some(more) = pieces.len().checked_sub(1).filter(|more| *more > 0) else {
        let [(_, piece)] = pieces else {
            panic!("a frame became none");
        };
        let differ = piece.iter().zip(frame).filter(|(new, old)| new != old);
        assert_eq!(piece.len(), frame.len());
        assert!(differ.count() <= 2, "more than its checksum has changed");
        return;
    };
    let added = whole - frame.len();
    assert_eq!(added % more, 0, "headers of one length");
    let headers = added / more;
    let payload: Vec<&[u8]> = pieces.iter().map(|(_, piece)| &piece[headers..]).collect();
    assert!(payload.concat() == frame[headers..], "the payload");
    let size = usize::from(header.segment_size());
    let (last, full) = payload.split_last().expect("more than one");
    assert!(full.iter().all(|piece| piece.len() == size));
    assert!((1..=size).contains(&last.len()));
}

/// A good one of some kind.
fn super_frame(bytes: &mut Bytes<'_>) -> (VnetHeader, Vec<u8>) {
    let kind = bytes.u8();
    let (six, udp, ecn) = (kind & 1 != 0, kind & 2 != 0, kind & 4 != 0);
    let size = bytes.u16();
    let payload = usize::from(bytes.u16()) % 65_400;
    let mut frame = vec![2; 12];
    for _ in 0..(kind >> 3) % 3 {
        frame.extend([0x81, 0, 0, 7]);
    }
    let transport = if udp { 8 } else { 20 };
    let datagram = transport + payload;
    let protocol = if udp { 17 } else { 6 };
    let total = |len: usize| (len.min(65_535) as u16).to_be_bytes();
    if six {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(total(datagram));
        frame.extend([protocol, 64]);
        frame.extend([0xfd; 32]);
    } else {
        frame.extend([0x08, 0, 0x45, 0]);
        frame.extend(total(20 + datagram));
        frame.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    }
    let start = frame.len();
    frame.extend([0, 7, 0, 9]);
    if udp {
        frame.extend(total(datagram));
        frame.extend([0, 0]);
    } else {
        frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x99, 1, 0, 0, 0, 0, 0]);
    }
    let headers = frame.len();
    frame.extend((0..payload).map(|at| (at * 7 + at / 255) as u8));
    let gso = match (udp, six) {
        (true, _) => 5,
        (false, true) => 4,
        (false, false) => 1,
    };
    let mut header = [0; VnetHeader::LEN];
    header[0] = 1;
    header[1] = gso | if ecn { 0x80 } else { 0 };
    let offset = if udp { 6 } else { 16 };
    for (at, value) in [(2, headers), (4, size.into()), (6, start), (8, offset)] {
        header[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
    }
    (VnetHeader(header), frame)
}

/// A burst of one frame that lies in segments of these lengths, used again and again.
pub(super) fn scattered(header: VnetHeader, frame: &[u8], parts: &[usize]) -> Burst {
    let mut burst = Burst::new();
    burst.own_memory()[..frame.len()].copy_from_slice(frame);
    let mut lengths = parts.iter().cycle();
    let (mut at, mut count) = (0, 1);
    while at < frame.len() {
        let left = frame.len() - at;
        let len = if count == MAX_FRAME_SEGMENTS {
            left
        } else {
            *lengths.next().expect("at least one length")
        };
        let len = len.clamp(1, left);
        burst.add_segment(burst.own_segment(at, len));
        at += len;
        count += 1;
    }
    burst.add_frame(header, frame.len());
    burst
}

/// All frames that come out, `None` when refused.
pub(super) fn cut(burst: &Burst, takes: Offloads) -> Option<Vec<(VnetHeader, Vec<u8>)>> {
    let mut cut = Cut::new(burst, 0, takes)?;
    let (mut out, mut frames) = (Burst::new(), Vec::new());
    let expected = cut.len();
    while cut.len() > 0 {
        if !out.has_room() {
            out.clear();
        }
        cut.add_next(&mut out);
        let last = out.len() - 1;
        assert!(out.segments(last).len() <= MAX_FRAME_SEGMENTS);
        assert!(takes.contains(out.header(last).needs()));
        frames.push((*out.header(last), out.to_vec(last)));
    }
    assert_eq!(frames.len(), expected);
    Some(frames)
}
