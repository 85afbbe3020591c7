//! How two sides of a ring wake each other without a lock: [`publish_then_look`].

use crate::sync::{Ordering, fence};

/// Publishes a value to the other side, and only then reads the value that the other side published.
/// Both sides do so. One publishes an index, then reads whether it is to wake the other; the other
/// publishes its wish to be woken, then reads the index once more. So at least one of them sees what
/// the other wrote, and both are never asleep while a frame waits (virtio 1.2, 2.7.7.2 and 2.7.10).
#[inline(always)]
pub(super) fn publish_then_look<T>(publish: impl FnOnce(), look: impl FnOnce() -> T) -> T {
    publish();
    // Neither a store's release nor a load's acquire keeps a load behind an earlier store.
    fence(Ordering::SeqCst);
    look()
}

#[cfg(all(test, loom))]
mod loom {
    use ::loom::sync::Arc;
    use ::loom::sync::atomic::{AtomicU16, Ordering::*, fence};
    use ::loom::thread;

    use super::super::packed_ring::{
        EVENT_DESCRIPTOR, EVENT_DISABLE, EVENT_ENABLE, RingPosition, was_passed,
    };
    use super::super::split_ring::needs_event;
    use super::*;

    /// What both sides of a ring see of the handshake.
    struct Shared {
        /// An index of a split ring, or the flags of a packed ring's descriptor.
        progress: AtomicU16,
        /// At which position the other side wants to be notified.
        position: AtomicU16,
        /// Whether it does.
        flags: AtomicU16,
    }

    /// One side makes progress from 0 to 1 and asks whether to wake the other, which falls
    /// asleep: one of them must notice.
    fn never_both_asleep(
        (position, flags): (u16, u16),
        publisher: impl Fn(&Shared) -> bool + Copy + Send + Sync + 'static,
        sleeper: impl Fn(&Shared) -> bool + Copy + Send + Sync + 'static,
    ) {
        ::loom::model(move || {
            let shared = Arc::new(Shared {
                progress: AtomicU16::new(0),
                position: AtomicU16::new(position),
                flags: AtomicU16::new(flags),
            });
            let other = {
                let shared = shared.clone();
                thread::spawn(move || publisher(&shared))
            };
            let stays_awake = sleeper(&shared);
            let woken = other.join().expect("the publisher ends");
            assert!(stays_awake || woken, "both asleep, and a frame waits");
        });
    }

    /// The driver's side as virtio 1.2 requires it: a driver does not run our code.
    fn driver<T>(publish: impl FnOnce(), look: impl FnOnce() -> T) -> T {
        publish();
        fence(SeqCst);
        look()
    }

    #[test]
    fn split_kick_by_event_index() {
        never_both_asleep(
            (u16::MAX, 0),
            |ring| {
                let publish = || ring.progress.store(1, Release);
                driver(publish, || needs_event(ring.position.load(Relaxed), 1, 0))
            },
            |ring| {
                let arm = || ring.position.store(0, Relaxed);
                publish_then_look(arm, || ring.progress.load(Acquire) != 0)
            },
        );
    }

    #[test]
    fn split_call_by_event_index() {
        never_both_asleep(
            (u16::MAX, 0),
            |ring| {
                let publish = || ring.progress.store(1, Release);
                publish_then_look(publish, || needs_event(ring.position.load(Relaxed), 1, 0))
            },
            |ring| {
                let arm = || ring.position.store(0, Relaxed);
                driver(arm, || ring.progress.load(Acquire) != 0)
            },
        );
    }

    /// Split rings without event index have a flag of the same meaning and value.
    #[test]
    fn kick_by_flag() {
        never_both_asleep(
            (0, EVENT_DISABLE),
            |ring| {
                let publish = || ring.progress.store(1, Release);
                driver(publish, || ring.flags.load(Relaxed) == EVENT_ENABLE)
            },
            |ring| {
                let arm = || ring.flags.store(EVENT_ENABLE, Relaxed);
                publish_then_look(arm, || ring.progress.load(Acquire) != 0)
            },
        );
    }

    /// The driver writes position and flags in two stores, and we may see one without the other.
    #[test]
    fn packed_call_by_position() {
        let size = 8;
        let at = |index| RingPosition { index, wrap: true };
        never_both_asleep(
            (at(5).bits(), EVENT_DISABLE),
            move |ring| {
                let publish = || ring.progress.store(1, Release);
                publish_then_look(publish, || {
                    let flags = ring.flags.load(Relaxed);
                    let event = RingPosition::from_bits(ring.position.load(Relaxed));
                    flags == EVENT_DESCRIPTOR && was_passed(event, at(1), 1, size)
                })
            },
            move |ring| {
                let arm = || {
                    ring.position.store(at(0).bits(), Relaxed);
                    ring.flags.store(EVENT_DESCRIPTOR, Release);
                };
                driver(arm, || ring.progress.load(Acquire) != 0)
            },
        );
    }
}
