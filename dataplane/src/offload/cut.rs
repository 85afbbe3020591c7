//! Turns a frame that its receiver does not take into frames that it takes: [`Cut`].

use super::checksum::Sum;
use super::headers::{Piece, Template};
use super::layout::{self, MAX_HEADERS};
use crate::frame::Offloads;
use crate::frame::{Burst, MAX_FRAME, VnetHeader};
use crate::sys::pool::Segment;

/// Most frames that one super-frame is cut into: 64 KiB at 32 bytes each, which is less than any TCP
/// chooses. It bounds the time that one frame of a guest takes from other cables.
const MAX_PIECES: usize = 2048;

/// Frames up to this length, in bytes, are copied whole: that is as cheap as pointing to their parts.
const COPIED_WHOLE: usize = 256;

/// Frames in more pieces of memory than this are copied, too. So a guest cannot make a receiver
/// walk long lists, and a piece with its new headers never lies in more segments than are allowed.
const MAX_PARTS: usize = 32;

/// One frame of a burst, as the frames that a certain receiver takes: with its checksum finished, or
/// a super-frame cut into wire frames. Both are done exactly as the Linux kernel does them.
///
/// Headers are copied; payloads stay where they are, and the pieces point to them. A sender
/// that changes the payload meanwhile spoils only its own checksums.
///
/// It refuses
/// - a frame longer than any may be ([`MAX_FRAME`]);
/// - offsets that point outside the frame;
/// - a super-frame whose headers are not (VLAN tags,) IPv4 or IPv6, TCP or UDP as its
///   virtio-net header says, all within 256 bytes: so also one in MPLS. These may be in one tunnel: VXLAN,
///   Geneve or another in UDP, GRE without checksum and numbers, IP in IP;
/// - more than 2048 pieces, or pieces longer than an IP packet can be.
#[derive(Debug)]
pub(crate) struct Cut<'a> {
    burst: &'a Burst,
    index: usize,
    work: Work,
    /// The virtio-net header of every resulting frame.
    header: VnetHeader,
    template: Option<Template>,
    /// The bytes that are in no resulting frame yet.
    rest: Rest<'a>,
    /// Resulting frames done, and left.
    done: usize,
    left: usize,
}

#[derive(Debug, Clone, Copy)]
enum Work {
    /// The receiver takes it as it is.
    None,
    /// Its one checksum is to be finished.
    Finish,
    /// It is cut into pieces of `size` bytes of payload, their checksums finished or left unfinished.
    Pieces { size: usize, finish: bool },
}

/// A checksum that is to be finished.
#[derive(Debug, Clone, Copy)]
struct Unfinished {
    start: usize,
    field: usize,
    /// A checksum of 0 would mean that there is none: 0xffff, which is equal to it, is written.
    never_zero: bool,
}

impl<'a> Cut<'a> {
    /// Prepares the frame at `index` for a receiver that takes the offloads in `takes`. `None`
    /// when the frame is malformed.
    pub(crate) fn new(burst: &'a Burst, index: usize, takes: Offloads) -> Option<Self> {
        let header = *burst.header(index);
        let mut cut = Cut {
            burst,
            index,
            work: Work::None,
            header,
            template: None,
            rest: Rest {
                segments: burst.segments(index),
                at: 0,
            },
            done: 0,
            left: 1,
        };
        if takes.contains(burst.frame_needs(index)) {
            return Some(cut);
        }
        // What is finished or copied whole must fit into the memory of one frame.
        if burst.frame_len(index) > MAX_FRAME {
            return None;
        }
        let template = match header.gso_type() {
            0 => None,
            _ => Some(cut.template()?),
        };
        let size = usize::from(header.segment_size());
        let finish = !takes.contains(Offloads::CSUM);
        cut.header = header.without_segmentation();
        match template {
            // A super-frame that fits into one piece is sent as it is, as the kernel does.
            Some(template) if template.payload() > size || template.finishes_outer() => {
                cut.left = template.payload().div_ceil(size).max(1);
                if cut.left > MAX_PIECES {
                    return None;
                }
                cut.rest.skip(template.len());
                cut.template = Some(template);
                cut.work = Work::Pieces { size, finish };
                if finish {
                    cut.header = VnetHeader::default();
                }
            }
            _ if finish => {
                if header.checksum_end() > burst.frame_len(index) {
                    return None;
                }
                cut.header = VnetHeader::default();
                cut.work = Work::Finish;
            }
            _ => {}
        }
        Some(cut)
    }

    /// How many frames are left.
    pub(crate) fn len(&self) -> usize {
        self.left
    }

    /// Adds the next frame, if one is left, to a burst that has room for it. The frame is valid until
    /// that burst, or the original frame's, is cleared.
    pub(crate) fn add_next(&mut self, out: &mut Burst) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        match self.work {
            Work::None => self.add_as_it_is(out),
            Work::Finish => self.add_finished(out),
            Work::Pieces { size, finish } => self.add_piece(size, finish, out),
        }
        self.done += 1;
    }

    fn template(&self) -> Option<Template> {
        let needs = self.header.needs();
        let kinds = [Offloads::TSO4, Offloads::TSO6, Offloads::USO];
        let possible = Offloads::ALL.contains(needs)
            && needs.contains(Offloads::CSUM)
            && kinds.iter().any(|kind| needs.contains(*kind))
            && !needs.contains(Offloads::USO | Offloads::ECN)
            && self.header.segment_size() > 0;
        if !possible {
            return None;
        }
        let mut bytes = [0; MAX_HEADERS];
        self.burst.copy_out(self.index, &mut bytes);
        Template::new(bytes, self.burst.frame_len(self.index), &self.header)
    }

    fn add_as_it_is(&self, out: &mut Burst) {
        for segment in self.burst.segments(self.index) {
            out.add_segment(*segment);
        }
        out.add_frame(self.header, self.burst.frame_len(self.index));
    }

    fn add_finished(&mut self, out: &mut Burst) {
        let old = self.burst.header(self.index);
        let checksum = Unfinished {
            start: usize::from(old.checksum_start()),
            field: old.checksum_end() - 2,
            // On this path the kernel does not write 0 for TCP either (`skb_checksum_help`).
            never_zero: true,
        };
        let own = checksum.field + 2;
        let copied = self
            .burst
            .copy_out(self.index, &mut out.own_memory()[..own]);
        debug_assert_eq!(copied, own, "the field is inside the frame");
        self.rest.skip(own);
        let payload = self.burst.frame_len(self.index) - own;
        self.add_behind(own, payload, Some(checksum), out);
    }

    fn add_piece(&mut self, size: usize, finish: bool, out: &mut Burst) {
        let Some(template) = &self.template else {
            return;
        };
        let at = self.done * size;
        let len = (template.payload() - at).min(size);
        let piece = Piece {
            number: self.done,
            at,
            len,
            last: self.left == 0,
        };
        template.write(piece, out.own_memory());
        let (start, field) = template.checksum();
        let checksum = finish.then_some(Unfinished {
            start,
            field,
            never_zero: template.is_udp(),
        });
        self.add_behind(template.len(), len, checksum, out);
    }

    /// Adds a frame: its first `own` bytes are in the burst's memory already, and the next `payload`
    /// bytes are taken from the rest.
    fn add_behind(
        &mut self,
        own: usize,
        payload: usize,
        checksum: Option<Unfinished>,
        out: &mut Burst,
    ) {
        let whole = own + payload;
        let mut sum = Sum::default();
        if whole <= COPIED_WHOLE || self.rest.parts(payload) > MAX_PARTS {
            let memory = &mut out.own_memory()[..whole];
            let mut at = own;
            self.rest
                .take(payload, |part| at += part.copy_to(&mut memory[at..]));
            if let Some(checksum) = checksum {
                sum.add(&memory[checksum.start..]);
            }
            out.add_segment(out.own_segment(0, whole));
        } else {
            if let Some(checksum) = checksum {
                sum.add(&out.own_memory()[checksum.start..own]);
            }
            out.add_segment(out.own_segment(0, own));
            self.rest.take(payload, |part| {
                if checksum.is_some() {
                    sum.add_segment(&part);
                }
                out.add_segment(part);
            });
        }
        if let Some(Unfinished {
            field, never_zero, ..
        }) = checksum
        {
            let value = match !sum.folded() {
                0 if never_zero => 0xffff,
                value => value,
            };
            out.own_memory()[field..field + 2].copy_from_slice(&value.to_be_bytes());
        }
        out.add_frame(self.header, whole);
    }
}

/// Whether no receiver takes this super-frame whole ([`Offloads::NESTED`]).
pub(crate) fn is_nested(segments: &[Segment], header: &VnetHeader) -> bool {
    let (mut bytes, mut len) = ([0; MAX_HEADERS], 0);
    for segment in segments {
        len += segment.copy_to(&mut bytes[len..]);
    }
    layout::is_nested(&bytes[..len], header)
}

/// The part of a frame that is not handed out yet.
#[derive(Debug, Clone, Copy)]
struct Rest<'a> {
    segments: &'a [Segment],
    /// How many bytes of the first segment are handed out.
    at: usize,
}

impl Rest<'_> {
    fn skip(&mut self, len: usize) {
        self.take(len, |_| {});
    }

    /// In how many segments the next `len` bytes lie; stops counting above [`MAX_PARTS`].
    fn parts(&self, len: usize) -> usize {
        let mut parts = 0;
        let mut bytes = 0;
        let mut at = self.at;
        for segment in self.segments {
            if bytes >= len || parts > MAX_PARTS {
                break;
            }
            bytes += segment.len() - at;
            at = 0;
            parts += 1;
        }
        parts
    }

    /// Hands out the next `len` bytes, or as many as are left.
    fn take(&mut self, mut len: usize, mut each: impl FnMut(Segment)) {
        while len > 0 {
            let Some((first, others)) = self.segments.split_first() else {
                return;
            };
            let part = (first.len() - self.at).min(len);
            if part > 0 {
                each(first.part(self.at, part));
            }
            self.at += part;
            len -= part;
            if self.at == first.len() {
                self.segments = others;
                self.at = 0;
            }
        }
    }
}
