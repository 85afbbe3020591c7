//! A VM's end of a tap: frames with virtio-net headers.

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use dataplane::sys::tap::{self, TapFlags, TapOffloads};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{readv, writev};

use crate::patience::{SOON, deadline, wait_for};

/// Bytes of the virtio-net header that a tap puts before each frame.
const HEADER: usize = 10;

/// Makes a persistent tap in this thread's network namespace, as `run` makes them for VMs. The tap
/// has carrier while the returned descriptor is open. A device that is set up without carrier drops
/// frames for a moment after it gets one, so keep the descriptor until the device is up.
///
/// # Panics
/// When the name is taken.
pub fn make_tap(name: &str) -> OwnedFd {
    let flags = TapFlags {
        vnet_hdr: true,
        exclusive: true,
        nonblocking: false,
        multi_queue: false,
    };
    let fd = tap::open_tap(name, flags).unwrap_or_else(|error| panic!("{name}: {error}"));
    tap::set_persistent(&fd, true).expect("an open tap");
    fd
}

/// A tap, opened as QEMU opens it. Unplugged when dropped.
#[derive(Debug)]
pub struct Nic(OwnedFd);

impl Nic {
    /// Plugs into the tap `name` of this thread's network namespace.
    ///
    /// # Panics
    /// When the tap is missing, or another program holds it.
    pub fn plug(name: &str, offloads: TapOffloads) -> Self {
        let flags = TapFlags {
            vnet_hdr: true,
            exclusive: false,
            nonblocking: true,
            multi_queue: false,
        };
        // A child that another test starts has copies of all our descriptors until it executes its
        // program, so that a tap that was just closed may still be held.
        let tap = wait_for(
            &format!("{name} to be free"),
            SOON,
            || match tap::open_tap(name, flags) {
                Err(error) if error.kind() == ErrorKind::ResourceBusy => None,
                result => Some(result.unwrap_or_else(|error| panic!("{name}: {error}"))),
            },
        );
        tap::set_offload(&tap, offloads).expect("an open tap");
        Nic(tap)
    }

    /// Plugs in without offloads, so that frames are as on the wire.
    ///
    /// # Panics
    /// As [`Nic::plug`].
    pub fn plain(name: &str) -> Self {
        Self::plug(name, TapOffloads::default())
    }

    /// Changes the offloads that it takes, as a guest does that boots with another driver.
    ///
    /// # Panics
    /// When the kernel does not support one of them.
    pub fn agree(&self, offloads: TapOffloads) {
        tap::set_offload(&self.0, offloads).expect("offloads that the kernel knows");
    }

    /// Sends a frame with its virtio-net header.
    ///
    /// # Panics
    /// When the tap does not take it.
    pub fn send(&self, header: [u8; HEADER], frame: &[u8]) {
        let sent = writev(&self.0, &[IoSlice::new(&header), IoSlice::new(frame)]);
        assert_eq!(sent, Ok(HEADER + frame.len()));
    }

    /// The next frame and its header.
    ///
    /// # Panics
    /// When none arrives soon.
    pub fn receive(&self) -> ([u8; HEADER], Vec<u8>) {
        self.receive_within(SOON).expect("a frame")
    }

    /// The next frame and its header, if one arrives within `limit`.
    pub fn receive_within(&self, limit: Duration) -> Option<([u8; HEADER], Vec<u8>)> {
        let (mut header, mut frame) = ([0; HEADER], vec![0; 70_000]);
        let patience = Timespec::try_from(limit).expect("a short time");
        let ready = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&patience));
        if ready.expect("an open tap") == 0 {
            return None;
        }
        let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(&mut frame)];
        let read = readv(&self.0, &mut parts).expect("a frame waits");
        frame.truncate(read - HEADER);
        Some((header, frame))
    }

    /// The next frame that `wanted` accepts; others are skipped.
    ///
    /// # Panics
    /// With `what`, when none arrives within `limit`.
    pub fn receive_until(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Vec<u8> {
        let deadline = deadline(limit);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (_, frame) = self
                .receive_within(left)
                .unwrap_or_else(|| panic!("waited {limit:?} in vain for {what}"));
            if wanted(&frame) {
                return frame;
            }
        }
    }
}
