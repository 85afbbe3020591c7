//! The rules of a ring that a guest may break: [`Rule`] and [`GuestFault`].

/// A rule of the virtio specification that the driver broke. Its port is stopped, because the rest of
/// its rings cannot be trusted either. Section numbers are those of virtio 1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// 2.7.6: the available index runs at most a queue size ahead of what was taken.
    #[error("the available index jumped by {ahead}, over a queue of {size}")]
    IndexJump {
        /// How far ahead of what was taken.
        ahead: u16,
        /// Entries of the queue.
        size: u16,
    },
    /// 2.7.5: descriptors are named by numbers below the queue size.
    #[error("descriptor {number} does not exist in a queue of {size}")]
    NoSuchDescriptor {
        /// The number that the driver gave.
        number: u16,
        /// Entries of the queue.
        size: u16,
    },
    /// 2.7.5.2: a chain is no longer than the queue, so it has no loop.
    #[error("a chain of descriptors is a loop or longer than {limit}")]
    EndlessChain {
        /// Descriptors that are followed.
        limit: usize,
    },
    /// 2.7.4: buffers lie in the memory that the front end shared.
    #[error(
        "{len} bytes at guest address {address:#x} are outside the memory that the front end shared"
    )]
    OutsideMemory {
        /// Guest physical address.
        address: u64,
        /// Bytes.
        len: u32,
    },
    /// 2.7.5.3: a table of indirect descriptors is whole and not inside another.
    #[error("a table of {len} bytes of indirect descriptors is empty, cut off, nested or chained")]
    BadIndirectTable {
        /// Bytes, according to the descriptor that names the table.
        len: u32,
    },
    /// 2.7.5.1: a device writes to no buffer that is not marked for it.
    #[error("a buffer has the wrong direction: it may only be read")]
    WrongDirection,
    /// The front end cut its own memory off while it was in use.
    #[error("the front end truncated the memory that it shares")]
    MemoryLost,
    /// Not the guest's doing: its cable was closed after a fault of this program.
    #[error("its cable was closed after a fault of this program")]
    CableClosed,
}

/// Which queue's driver broke which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest's {} queue {}: {rule}", if queue.is_multiple_of(2) { "receive" } else { "transmit" }, queue / 2)]
pub struct GuestFault {
    /// The vring's index: even ones receive, odd ones transmit.
    pub queue: u16,
    /// The rule that was broken.
    pub rule: Rule,
}
