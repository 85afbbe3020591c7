//! What frames cost a worker: [`Work`].

use std::ops::AddAssign;

/// An estimate of a worker's time, in units of the time that it takes to copy one byte: bytes are
/// known when a frame is, the clock would have to be asked. It shares a worker among lanes, where a
/// factor of two does not matter and one of a thousand does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Work(pub(crate) u64);

impl Work {
    /// A frame besides its bytes, from one ring to another: some 30 ns.
    const FRAME: u64 = 256;
    /// Making one piece of a super-frame, and sending it: headers and a checksum.
    pub(crate) const PIECE: u64 = 512;
    /// A frame from or to a port where each costs a system call, or a share of one.
    const SYSCALL: u64 = 4096;

    /// Most work of one burst, not counting its last frame: 256 KiB in long frames, or 512 pieces of
    /// super-frames if the receiver takes none. It bounds how long other lanes wait for one turn.
    pub(crate) const TURN: Work = Work(256 << 10);

    /// Of frames that were passed on, and of the pieces that were made of some.
    #[inline]
    pub(crate) fn of(frames: u64, bytes: u64, pieces: u64, syscalls: bool) -> Self {
        let each = if syscalls { Self::SYSCALL } else { Self::FRAME };
        let each_piece = Self::PIECE + each;
        Work(bytes + frames * each + pieces * each_piece)
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, more: Work) {
        self.0 = self.0.saturating_add(more.0);
    }
}
