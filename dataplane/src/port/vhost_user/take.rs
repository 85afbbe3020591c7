//! Makes frames of a burst from the buffers of a transmit queue, without copying them. Only the
//! virtio-net header is copied and checked, and the checked copy is used.
#![allow(unsafe_code)]

use super::Context;
use super::copy::{GuestBuffer, read_header};
use super::descriptor::ScatterList;
use crate::frame::{Burst, MAX_FRAME, MAX_FRAME_SEGMENTS, MIN_FRAME, VnetHeader};
use crate::stats::{DropReason, Losses};
use crate::sys::pool::Segment;

/// Takes a frame that lies with its header in one piece of memory.
///
/// # Safety
/// `len` bytes at `start` must be mapped until the burst is cleared.
#[inline(always)]
pub(super) unsafe fn take_whole(
    start: *const u8,
    len: u32,
    context: &Context<'_>,
    burst: &mut Burst,
    drops: &mut Losses,
) {
    let frame_len = (len as usize).wrapping_sub(context.header_len);
    if !(MIN_FRAME..=MAX_FRAME).contains(&frame_len) {
        drops.count(wrong_length(len as usize, context), 1);
        return;
    }
    // SAFETY: the header's bytes are there: the length is at least its own.
    let header = unsafe { read_header(start) };
    let Some(header) = header.checked(frame_len, context.granted) else {
        drops.count(DropReason::Malformed, 1);
        return;
    };
    // SAFETY: as the caller promises, without the header.
    let segment = unsafe { Segment::new(start.add(context.header_len), frame_len as u32) };
    burst.add_segment(segment);
    burst.add_frame(header, frame_len);
}

/// Takes a frame that lies, with its header, in several pieces.
///
/// # Safety
/// The pieces must be mapped until the burst is cleared.
#[cold]
pub(super) unsafe fn take_scattered(
    scatter: &ScatterList,
    context: &Context<'_>,
    burst: &mut Burst,
    drops: &mut Losses,
) {
    let len = scatter.bytes() as usize;
    let frame_len = len.wrapping_sub(context.header_len);
    if !(MIN_FRAME..=MAX_FRAME).contains(&frame_len) {
        drops.count(wrong_length(len, context), 1);
        return;
    }
    let mut header = [0; 12];
    let mut missing = context.header_len;
    let mut segments = 0;
    for &GuestBuffer { start, len } in scatter.buffers().iter().filter(|buffer| buffer.len > 0) {
        // SAFETY: mapped for its length, as the caller promises.
        let mut rest = unsafe { Segment::new(start, len) };
        if missing > 0 {
            let at = context.header_len - missing;
            let copied = rest.copy_to(&mut header[at..context.header_len]);
            missing -= copied;
            rest = rest.part(copied, rest.len() - copied);
        }
        if rest.len() > 0 && segments < MAX_FRAME_SEGMENTS {
            burst.add_segment(rest);
        }
        segments += usize::from(rest.len() > 0);
    }
    let mut short = VnetHeader::default();
    short.0.copy_from_slice(&header[..VnetHeader::LEN]);
    match short.checked(frame_len, context.granted) {
        Some(header) if segments <= MAX_FRAME_SEGMENTS => burst.add_frame(header, frame_len),
        _ => {
            burst.abandon_frame();
            drops.count(DropReason::Malformed, 1);
        }
    }
}

#[cold]
fn wrong_length(len: usize, context: &Context<'_>) -> DropReason {
    if len > context.header_len + MAX_FRAME {
        DropReason::TooLong
    } else {
        DropReason::Malformed
    }
}
