//! A tap whose descriptor the fabric holds; its network device is the endpoint: the host
//! link, or a device in a namespace or container.

use std::io::{self, ErrorKind, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::{Errno, readv};

use crate::frame::{Burst, Offloads, VnetHeader};
use crate::port::PortError;
use crate::stats::{DropReason, Losses};
use crate::sys::tap::{
    TapFlags, TapOffloads, open_tap, set_offload, set_vnet_little_endian, write_frame,
};

/// A tap that the fabric reads from and writes to, one frame a system call.
#[derive(Debug)]
pub struct Tap {
    tap: OwnedFd,
    /// The kernel refused a super-frame, which is to be cut next.
    refused: bool,
}

impl Tap {
    /// Opens the tap `name`, or creates it if it does not exist: a device that was created
    /// goes away with the port.
    ///
    /// # Errors
    /// When no device can have the name, another process holds the tap, or CAP_NET_ADMIN is missing.
    pub fn open(name: &str) -> Result<Self, PortError> {
        let flags = TapFlags {
            vnet_hdr: true,
            exclusive: false,
            nonblocking: true,
            multi_queue: false,
        };
        let refused = |action| {
            move |source| PortError::Refused {
                name: name.into(),
                action,
                source,
            }
        };
        let tap = open_tap(name, flags).map_err(|source| match source.raw_os_error() {
            // No node, or no driver behind it.
            Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => PortError::NoTun {
                name: name.into(),
                source,
            },
            _ => refused("open")(source),
        })?;
        Self::from_fd(tap).map_err(refused("set its offloads"))
    }

    /// Takes over a tap that was opened with virtio-net headers of 10 bytes, non-blocking.
    ///
    /// # Errors
    /// When the descriptor does not belong to such a tap.
    pub fn from_fd(tap: OwnedFd) -> io::Result<Self> {
        set_vnet_little_endian(&tap)?;
        // All offloads: what the other end of the cable cannot take is completed there, by
        // the kernel or by the lane. Kernels before 6.2 refuse UDP super-frames.
        set_offload(
            &tap,
            TapOffloads {
                uso: true,
                ..TapOffloads::TCP
            },
        )
        .or_else(|_| set_offload(&tap, TapOffloads::TCP))?;
        Ok(Tap {
            tap,
            refused: false,
        })
    }

    pub(super) fn receive(&mut self, burst: &mut Burst, drops: &mut Losses) -> io::Result<bool> {
        while burst.has_room() {
            let Some((header, memory)) = burst.vacant(0) else {
                break;
            };
            let mut parts = [IoSliceMut::new(&mut header.0), IoSliceMut::new(memory)];
            match readv(&self.tap, &mut parts) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => {
                    let len = bytes.saturating_sub(VnetHeader::LEN);
                    drops.count_refused(burst.take_in(0, len, None));
                }
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(true)
    }

    /// What it takes as it is: everything, but not the super-frame that it has just refused. Kernels before
    /// 6.2 refuse those of UDP, and later ones those of more than 128 datagrams (UDP_MAX_SEGMENTS).
    pub(super) fn takes(&mut self) -> Offloads {
        if std::mem::take(&mut self.refused) {
            Offloads::CSUM
        } else {
            Offloads::ALL
        }
    }

    /// Returns the first frame that was not handled: the end of the burst, or a super-frame
    /// that has to be cut first.
    pub(super) fn send(&mut self, burst: &Burst, from: usize, drops: &mut Losses) -> usize {
        for index in from..burst.len() {
            if let Err(error) = write_frame(
                self.tap.as_fd(),
                &burst.header(index).0,
                burst.segments(index),
            ) {
                let reason = why_refused(&error);
                if reason == DropReason::Malformed && burst.header(index).gso_type() != 0 {
                    self.refused = true;
                    return index;
                }
                drops.lose(index, reason);
            }
        }
        burst.len()
    }
}

fn why_refused(error: &io::Error) -> DropReason {
    match Errno::from_io_error(error) {
        Some(Errno::IO) => DropReason::Unplugged, // the device is down
        Some(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => DropReason::ReceiverFull,
        Some(Errno::INVAL | Errno::FAULT) => DropReason::Malformed,
        _ => DropReason::PortError,
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.tap.as_raw_fd()
    }
}
