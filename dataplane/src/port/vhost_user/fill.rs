//! Reads frames from a tap straight into a guest's receive buffers: the kernel's copy is the only one.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::copy::{GuestBuffer, write_header};
use super::fault::GuestFault;
use super::{Terms, VhostUser, context};
use crate::frame::{Burst, MAX_BURST, OFFERED, VnetHeader, check_length};
use crate::stats::{DropReason, Losses};
use crate::sys::pool::Segment;
use crate::sys::tap::{ReadVector, read_frame};
use crate::work::Work;

/// The result of [`VhostUser::fill`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Filled {
    /// Frames in the guest's buffers.
    pub(crate) frames: u64,
    /// The bytes of those frames.
    pub(crate) bytes: u64,
    /// More may wait in the tap.
    pub(crate) more: bool,
}

impl VhostUser {
    /// Reads frames from `tap` into the guest's receive buffers for as long as the free ones are
    /// enough for the longest frame. The guest gets them by [`VhostUser::settle`]; until then they
    /// are in `seen` as well, where a tap or the recorder observes the lane. A frame that the guest
    /// does not take as it is goes to `burst`. `None`, and nothing is read, when the buffers are not
    /// enough for even one.
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
        let mut filling = Filling {
            terms: &self.terms,
            buffers: &buffers[..lent],
            lens: &mut self.filled,
            used: 0,
            filled: Filled::default(),
        };
        let ended = loop {
            match filling.read_one(tap, burst, drops, seen.as_deref_mut()) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let Filling { used, filled, .. } = filling;
        self.filled_len = used;
        match ended {
            // The frames that were read first are not lost for it; the tap fails again.
            Err(error) if used == 0 => Some(Err(error)),
            Ok(()) if used == 0 && filled.more && burst.is_empty() => None,
            _ => Some(Ok(filled)),
        }
    }

    /// Gives the guest the frames that [`VhostUser::fill`] read.
    pub(crate) fn settle(&mut self) {
        let filled = std::mem::take(&mut self.filled_len);
        if let (1.., [queue]) = (filled, &mut self.receive[..]) {
            queue.settle(&self.filled[..filled]);
        }
    }
}

/// Receive buffers that are being filled, one frame after the other.
struct Filling<'a> {
    terms: &'a Terms,
    /// Lent by the queue: mapped for their lengths, the guest's to be written to, and each longer
    /// than a header.
    buffers: &'a [GuestBuffer],
    /// Bytes in each of those that are used.
    lens: &'a mut [u32; MAX_BURST],
    used: usize,
    filled: Filled,
}

impl Filling<'_> {
    /// Reads one frame. `false`: no further one, for now or until there are more buffers.
    #[inline]
    fn read_one(
        &mut self,
        tap: BorrowedFd<'_>,
        burst: &mut Burst,
        drops: &mut Losses,
        seen: Option<&mut Burst>,
    ) -> io::Result<bool> {
        let free = &self.buffers[self.used..];
        if self.filled.bytes >= Work::TURN.0 {
            self.filled.more = true;
            return Ok(false);
        }
        let enough = enough_for(free, self.terms.header_len + OFFERED, self.terms.mergeable);
        if enough == 0 || seen.as_ref().is_some_and(|seen| !seen.has_room()) {
            self.filled.more = true;
            return Ok(false);
        }
        let mut header = VnetHeader::default();
        let len = match read_frame(tap, &mut header.0, self.vectors(&free[..enough])) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::FAULT) => {
                // The guest unmapped its memory under us; its ring shows that next.
                drops.count(DropReason::Unplugged, 1);
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let inside = header.checksum_is_inside(len).then_some(());
        let checked = check_length(len).and_then(|()| inside.ok_or(DropReason::Malformed));
        if checked.is_err() {
            drops.count_refused(checked);
            return Ok(true);
        }
        if !self.terms.takes.contains(header.needs()) {
            let copied = push_copy(burst, header, free, self.terms.header_len, len);
            drops.count_refused(copied);
            self.filled.more = true;
            return Ok(false);
        }
        self.finish(header, len, seen);
        Ok(true)
    }

    /// Where a frame is read to: the header goes in front of it later, when it was checked.
    #[inline]
    fn vectors(&self, free: &[GuestBuffer]) -> impl Iterator<Item = ReadVector> {
        let header_len = self.terms.header_len;
        free.iter().enumerate().map(move |(index, buffer)| {
            let skip = if index == 0 { header_len } else { 0 };
            // SAFETY: mapped for its length, the guest's to be written to, and the first is
            // longer than the header.
            unsafe { ReadVector::new(buffer.start.add(skip), buffer.len as usize - skip) }
        })
    }

    /// Completes the frame that was read into the free buffers.
    #[inline]
    fn finish(&mut self, header: VnetHeader, len: usize, seen: Option<&mut Burst>) {
        let header_len = self.terms.header_len;
        let free = &self.buffers[self.used..];
        let count = spread(free, header_len + len, &mut self.lens[self.used..]);
        // SAFETY: buffers that are lent hold a header at least.
        unsafe { write_header(free[0].start, header_len, &header, count as u16) };
        if let Some(seen) = seen {
            show(seen, header, &free[..count], header_len, len);
        }
        self.used += count;
        self.filled.frames += 1;
        self.filled.bytes += len as u64;
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

/// How many of the buffers are enough for a frame of any length; 0 when all together are not.
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

/// Spreads `needed` bytes over the buffers in order: writes each one's share to `lens` and returns how
/// many buffers are used.
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

/// Moves a frame that was read into buffers to the burst's own memory: the guest does not take it
/// as it is.
#[cold]
fn push_copy(
    burst: &mut Burst,
    header: VnetHeader,
    buffers: &[GuestBuffer],
    skip: usize,
    len: usize,
) -> Result<(), DropReason> {
    let (place, memory) = burst.vacant(0).ok_or(DropReason::PortError)?;
    *place = header;
    let (mut done, mut skip) = (0, skip);
    for buffer in buffers {
        // SAFETY: mapped for its length, of which the first has more than `skip`.
        let segment = unsafe { Segment::new(buffer.start.add(skip), buffer.len - skip as u32) };
        skip = 0;
        done += segment.copy_to(&mut memory[done..len]);
    }
    burst.take_in(0, len, None)
}
