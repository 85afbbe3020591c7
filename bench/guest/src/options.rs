//! The properties of a guest: its rings, its buffers and the features that it asks for.

use crate::{GuestError, MemoryOptions, features};

/// The kind of a queue's ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Ring {
    /// A split ring (virtio 1.2, 2.7), which every device supports.
    #[default]
    Split,
    /// A packed ring (virtio 1.2, 2.8).
    Packed,
}

/// The descriptors of a buffer, which holds a virtio-net header and a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// One descriptor for header and frame.
    #[default]
    Single,
    /// A chain of this many descriptors, at least 2. The first one holds only the header.
    Chained(u16),
    /// An indirect table of this many descriptors, at least 1, divided in the same way.
    Indirect(u16),
}

impl Shape {
    /// Number of descriptors that hold header and frame.
    pub fn pieces(self) -> u16 {
        match self {
            Shape::Single => 1,
            Shape::Chained(count) | Shape::Indirect(count) => count,
        }
    }

    /// Number of ring entries that a buffer takes.
    pub(crate) fn ring_entries(self) -> u16 {
        match self {
            Shape::Single | Shape::Indirect(_) => 1,
            Shape::Chained(count) => count,
        }
    }
}

/// Properties of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestOptions {
    /// Kind of the queues' rings.
    pub ring: Ring,
    /// Entries of each ring: 2 to 32768, for split rings a power of two.
    pub queue_size: u16,
    /// Number of queue pairs, at least 1.
    pub pairs: u16,
    /// Whether a received frame may span several buffers (VIRTIO_NET_F_MRG_RXBUF). Required of the
    /// back end.
    pub mergeable: bool,
    /// Whether to ask that buffers are used in order (VIRTIO_F_IN_ORDER).
    pub in_order: bool,
    /// Whether to ask for notifications by ring position (VIRTIO_F_EVENT_IDX).
    pub event_idx: bool,
    /// Further feature bits to negotiate if the back end offers them: [`features`].
    pub features: u64,
    /// Descriptors of the buffers in transmit queues.
    pub send_shape: Shape,
    /// Descriptors of the buffers in receive queues.
    pub receive_shape: Shape,
    /// Longest frame that fits into a transmit buffer, in bytes.
    pub send_capacity: usize,
    /// Longest frame that fits into one receive buffer, in bytes.
    pub receive_capacity: usize,
    /// Properties of the shared memory.
    pub memory: MemoryOptions,
}

impl Default for GuestOptions {
    fn default() -> Self {
        GuestOptions {
            ring: Ring::Split,
            queue_size: 256,
            pairs: 1,
            mergeable: false,
            in_order: false,
            event_idx: false,
            features: 0,
            send_shape: Shape::Single,
            receive_shape: Shape::Single,
            send_capacity: 1522,
            receive_capacity: 1522,
            memory: MemoryOptions::default(),
        }
    }
}

impl GuestOptions {
    /// The feature bits that the guest asks for.
    pub(crate) fn wanted(&self) -> u64 {
        let mut wanted = self.features | features::VERSION_1;
        for (set, bit) in [
            (self.ring == Ring::Packed, features::RING_PACKED),
            (self.mergeable, features::MRG_RXBUF),
            (self.in_order, features::IN_ORDER),
            (self.event_idx, features::EVENT_IDX),
            (self.pairs > 1, features::MQ),
            (
                matches!(self.send_shape, Shape::Indirect(_))
                    || matches!(self.receive_shape, Shape::Indirect(_)),
                features::INDIRECT_DESC,
            ),
        ] {
            if set {
                wanted |= bit;
            }
        }
        wanted
    }

    /// The feature bits that the back end must offer.
    pub(crate) fn needed(&self) -> u64 {
        self.wanted() & !self.features & !features::IN_ORDER & !features::EVENT_IDX
    }

    /// Refuses options that contradict each other or are out of range.
    pub(crate) fn check(&self) -> Result<(), GuestError> {
        let refused = |why| Err(GuestError::Options(why));
        let size = self.queue_size;
        if !(2..=32768).contains(&size) || self.ring == Ring::Split && !size.is_power_of_two() {
            return refused("queue sizes are 2 to 32768, and powers of two for split rings");
        }
        for shape in [self.send_shape, self.receive_shape] {
            if shape.pieces() == 0 || shape == Shape::Chained(1) || shape.pieces() > size {
                return refused("a chain needs at least 2 descriptors and must fit into the queue");
            }
            if self.in_order && !size.is_multiple_of(shape.ring_entries()) {
                return refused(
                    "in order, the queue size must be a multiple of the chain's length",
                );
            }
        }
        if self.pairs == 0 {
            return refused("at least one pair of queues is needed");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_options_are_refused() {
        let good = GuestOptions::default();
        assert!(good.check().is_ok());
        for bad in [
            GuestOptions {
                queue_size: 100,
                ..good
            },
            GuestOptions {
                send_shape: Shape::Chained(1),
                ..good
            },
            GuestOptions {
                receive_shape: Shape::Indirect(0),
                ..good
            },
            GuestOptions {
                in_order: true,
                send_shape: Shape::Chained(3),
                ..good
            },
            GuestOptions { pairs: 0, ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!(
            GuestOptions {
                queue_size: 100,
                ring: Ring::Packed,
                ..good
            }
            .check()
            .is_ok()
        );
    }
}
