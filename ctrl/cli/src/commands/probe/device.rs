//! The NIC of a host: a virtio driver at the vhost-user socket of a position, as a device of smoltcp.

use std::collections::VecDeque;
use std::path::Path;

use guest::{Guest, GuestError, GuestOptions};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// The longest frame in bytes, without FCS: the default of a VM.
pub(super) const LONGEST: usize = 1514;

/// The most frames that the driver takes from the ring at once.
const BURST: usize = 64;

/// Entries of a ring. Frames wait there while a busy machine does not let this process run; the probe
/// is to measure the fabric and not lose frames itself.
const RING: u16 = 1024;

/// A NIC without offloads: frames look as on the wire, and smoltcp checks every checksum.
/// Dropping it unplugs it.
pub(super) struct Nic {
    /// `None` while it is not plugged in.
    pub(super) guest: Option<Guest>,
    received: VecDeque<Vec<u8>>,
    /// Why the driver gave up: how the fabric violated virtio.
    pub(super) fault: Option<GuestError>,
    moved: bool,
}

impl Nic {
    /// A NIC that is not plugged in.
    pub(super) fn loose() -> Nic {
        Nic {
            guest: None,
            received: VecDeque::new(),
            fault: None,
            moved: false,
        }
    }

    /// Plugs in at the vhost-user socket `path`.
    pub(super) fn plug(socket: &Path) -> Result<Nic, GuestError> {
        let options = GuestOptions {
            queue_size: RING,
            ..GuestOptions::default()
        };
        let guest = Guest::connect(socket, &options)?;
        Ok(Nic {
            guest: Some(guest),
            ..Nic::loose()
        })
    }

    /// Whether the fabric still holds its end of the connection, which it closes when the cable is cut.
    pub(super) fn is_plugged(&mut self) -> bool {
        let guest = self.guest.as_mut();
        guest.is_some_and(|guest| guest.session().is_open())
    }

    /// Whether a frame came or went since the last call.
    pub(super) fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Works with the driver; unplugs it if that fails. Without a driver it returns the default.
    fn with_guest<T: Default>(
        &mut self,
        work: impl FnOnce(&mut Guest, &mut VecDeque<Vec<u8>>) -> Result<T, GuestError>,
    ) -> T {
        let Some(guest) = &mut self.guest else {
            return T::default();
        };
        work(guest, &mut self.received).unwrap_or_else(|error| {
            self.fault = Some(error);
            self.guest = None;
            T::default()
        })
    }

    fn has_room(&mut self) -> bool {
        self.with_guest(|guest, _| {
            let (_, send) = guest.pair();
            if send.free() == 0 {
                send.reclaim()?;
            }
            Ok(send.free() > 0)
        })
    }
}

impl Device for Nic {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sender<'_>)> {
        if self.received.is_empty() {
            self.with_guest(|guest, received| {
                let (receive, _) = guest.pair();
                receive.receive(BURST, |frame| received.push_back(frame.to_vec()))
            });
        }
        let frame = self.received.pop_front()?;
        self.moved = true;
        Some((Received(frame), Sender(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_>> {
        self.has_room().then_some(Sender(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = LONGEST;
        capabilities
    }
}

/// A received frame, for smoltcp.
pub(super) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, work: F) -> R {
        work(&self.0)
    }
}

/// A buffer for the next frame that smoltcp sends.
pub(super) struct Sender<'a>(&'a mut Nic);

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, work: F) -> R {
        let mut frame = vec![0; length];
        let result = work(&mut frame);
        // An answer that finds the ring full is lost, as with any NIC.
        self.0.with_guest(|guest, _| {
            let (_, send) = guest.pair();
            send.send(1, |slot| slot.frame(&frame))
        });
        self.0.moved = true;
        result
    }
}
