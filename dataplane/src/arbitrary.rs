//! Makes what guests, front ends and clients may send from arbitrary bytes: the entry points of the
//! fuzz targets in `fuzz/` and, with random bytes, of tests. Each drives the code that hostile bytes
//! reach, and checks what has to hold for all of them.

/// Rings in memory that changes all the time, received from and sent to.
pub fn rings(bytes: &[u8]) {
    crate::port::vhost_user::arbitrary::drive(Bytes(bytes));
}

/// Messages and descriptors from a front end to a session, in any pieces.
pub fn messages(bytes: &[u8]) {
    crate::vhost_sockets::arbitrary::drive(Bytes(bytes));
}

/// One frame, in any segments, for a receiver that takes any offloads.
pub fn offloads(bytes: &[u8]) {
    crate::offload::arbitrary::drive(Bytes(bytes));
}

/// A filter program, which is refused or run on a frame.
pub fn bpf(bytes: &[u8]) {
    crate::bpf::arbitrary::drive(Bytes(bytes));
}

/// The bytes that are not used yet. Zeros follow them.
#[derive(Debug)]
pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `len` bytes, or all that are left.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// One of `among`, chosen by the next byte.
    pub(crate) fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[usize::from(self.u8()) % among.len()]
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Each for about two seconds.
    fn cases(many: u32) -> ProptestConfig {
        ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(many)
        }
    }

    proptest! {
        #![proptest_config(cases(400))]

        #[test]
        #[cfg_attr(miri, ignore)]
        fn any_ring_is_survived(bytes in vec(any::<u8>(), 0..1000)) {
            super::rings(&bytes);
        }

        #[test]
        #[cfg_attr(miri, ignore)]
        fn any_front_end_is_survived(bytes in vec(any::<u8>(), 0..600)) {
            super::messages(&bytes);
        }
    }

    proptest! {
        #![proptest_config(cases(if cfg!(miri) { 3 } else { 400 }))]

        #[test]
        fn any_frame_is_cut_or_refused(bytes in vec(any::<u8>(), 0..300)) {
            super::offloads(&bytes);
        }

        #[test]
        fn any_program_is_refused_or_ends(bytes in vec(any::<u8>(), 0..400)) {
            super::bpf(&bytes);
        }
    }
}
