//! Frames from a tap straight into a guest's receive buffers: the kernel copies them there,
//! and nobody copies them again.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::copy::{GuestBuffer, write_header};
use super::fault::GuestFault;
use super::{VhostUser, context};
use crate::frame::{Burst, MAX_BURST, MAX_FRAME, MIN_FRAME, VnetHeader};
use crate::stats::{DropReason, Losses};
use crate::sys::pool::Segment;
use crate::sys::tap::{ReadVector, read_frame};

/// What [`VhostUser::fill`] did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Filled {
    /// Frames that the guest has now.
    pub(crate) frames: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// More may wait in the tap.
    pub(crate) more: bool,
}

impl VhostUser {
    /// Reads frames from `tap` into the guest's receive buffers for as long as there is room
    /// for the longest of all. The guest gets them by [`VhostUser::settle`]; until then they are
    /// in `seen`, where somebody wants to see them. A frame that the guest does not take as it is
    /// goes to `burst`. `None`, and nothing is read, when there is not room for even one.
    ///
    /// # Errors
    /// What readv(2) says of the tap, when nothing was read.
    pub(crate) fn fill(
        &mut self,
        tap: BorrowedFd<'_>,
        burst: &mut Burst,
        drops: &mut Losses,
        mut seen: Option<&mut Burst>,
    ) -> Option<io::Result<Filled>> {
        let [queue] = &mut self.receive[..] else {
            return None;
        };
        if self.fault.is_some() {
            return None;
        }
        let context = context(&self.memory, &self.terms);
        let mut buffers = [GuestBuffer::NONE; MAX_BURST];
        let lent = match queue.lend(&context, &mut buffers) {
            Ok(lent) => lent,
            Err(rule) => {
                let queue = queue.spec.index;
                self.stop(GuestFault { queue, rule });
                return None;
            }
        };
        let buffers = &buffers[..lent];
        let longest = context.header_len + MAX_FRAME;
        let lens = &mut self.filled;
        let mut used = 0;
        let mut filled = Filled::default();
        let mut failure = None;
        loop {
            let enough = enough_for(&buffers[used..], longest, context.mergeable);
            let shown = seen.as_ref().is_none_or(|seen| seen.has_room());
            if enough == 0 || !shown {
                filled.more = true;
                break;
            }
            let vectors = buffers[used..used + enough].iter().enumerate();
            let vectors = vectors.map(|(index, buffer)| {
                // The header goes to the front of the first buffer when it was looked at.
                let skip = if index == 0 { context.header_len } else { 0 };
                // SAFETY: mapped for their lengths, the guest's to be written to, and the
                // first is longer than the header.
                unsafe { ReadVector::new(buffer.start.add(skip), buffer.len as usize - skip) }
            });
            let mut header = VnetHeader::default();
            let frame_len = match read_frame(tap, &mut header, vectors) {
                Ok(len) if len >= MIN_FRAME => len,
                Ok(0) => {
                    failure = Some(io::ErrorKind::UnexpectedEof.into());
                    break;
                }
                Ok(_) => {
                    drops.count(DropReason::Malformed, 1);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if Errno::from_io_error(&error) == Some(Errno::FAULT) => {
                    // The guest unmapped its memory under us; the ring will tell.
                    drops.count(DropReason::Unplugged, 1);
                    break;
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            };
            if !self.terms.takes.contains(header.needs()) {
                push_copy(
                    burst,
                    header,
                    &buffers[used..],
                    context.header_len,
                    frame_len,
                );
                filled.more = true;
                break;
            }
            let num_buffers = spread(
                &buffers[used..],
                context.header_len + frame_len,
                &mut lens[used..],
            );
            // SAFETY: buffers that are lent hold a header at least.
            unsafe {
                write_header(
                    buffers[used].start,
                    context.header_len,
                    &header,
                    num_buffers as u16,
                );
            }
            if let Some(seen) = seen.as_deref_mut() {
                show(
                    seen,
                    header,
                    &buffers[used..used + num_buffers],
                    context.header_len,
                    frame_len,
                );
            }
            used += num_buffers;
            filled.frames += 1;
            filled.bytes += frame_len as u64;
        }
        self.filled_len = used;
        if used == 0 && failure.is_none() && filled.more && burst.is_empty() {
            return None;
        }
        match failure {
            Some(error) if used == 0 => Some(Err(error)),
            _ => Some(Ok(filled)),
        }
    }

    /// Gives the guest what [`VhostUser::fill`] read.
    pub(crate) fn settle(&mut self) {
        let filled = std::mem::take(&mut self.filled_len);
        if let (1.., [queue]) = (filled, &mut self.receive[..]) {
            queue.settle(&self.filled[..filled]);
        }
    }
}

/// Appends a frame that lies in buffers to a burst that has room for it, where it lies.
#[cold]
fn show(seen: &mut Burst, header: VnetHeader, buffers: &[GuestBuffer], skip: usize, len: usize) {
    let (mut skip, mut left) = (skip, len);
    for buffer in buffers {
        let part = (buffer.len as usize - skip).min(left);
        // SAFETY: mapped for its length, and the guest's memory stays mapped for as long as its
        // port; the burst is cleared before that is used again.
        seen.add_segment(unsafe { Segment::new(buffer.start.add(skip), part as u32) });
        left -= part;
        skip = 0;
    }
    seen.add_frame(header, len);
}

/// How many of the buffers are enough for a frame of any length; 0 when all are not.
fn enough_for(buffers: &[GuestBuffer], longest: usize, mergeable: bool) -> usize {
    let most = if mergeable { buffers.len() } else { 1 };
    let mut bytes = 0;
    for (index, buffer) in buffers.iter().take(most).enumerate() {
        bytes += buffer.len as usize;
        if bytes >= longest {
            return index + 1;
        }
    }
    0
}

/// How `needed` bytes lie in buffers that are filled one after the other; returns how many buffers.
fn spread(buffers: &[GuestBuffer], needed: usize, lens: &mut [u32]) -> usize {
    let (mut left, mut num_buffers) = (needed as u32, 0);
    for (buffer, len) in buffers.iter().zip(lens) {
        if left == 0 {
            break;
        }
        *len = left.min(buffer.len);
        left -= *len;
        num_buffers += 1;
    }
    num_buffers
}

/// A frame that was read into buffers goes to the burst's own memory after all.
#[cold]
fn push_copy(
    burst: &mut Burst,
    header: VnetHeader,
    buffers: &[GuestBuffer],
    skip: usize,
    len: usize,
) {
    let Some((place, memory)) = burst.vacant(0) else {
        return;
    };
    *place = header;
    let (mut done, mut skip) = (0, skip);
    for buffer in buffers {
        // SAFETY: mapped for its length, of which the first has more than `skip`.
        let segment = unsafe { Segment::new(buffer.start.add(skip), buffer.len - skip as u32) };
        skip = 0;
        done += segment.copy_to(&mut memory[done..len]);
    }
    burst.take_in(0, len, None);
}
