//! A machine plugged into a rack, as frames that a test sends and receives.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use tun_tap::{Iface, Mode};

use crate::Netns;

/// Pause before an empty tap is read again.
const PAUSE: Duration = Duration::from_millis(1);

/// Bytes of the largest frame: a jumbo frame with a VLAN tag.
const LONGEST: usize = 9018;

/// A tap of the fabric, opened as by a QEMU without offloads. Unplugged when dropped.
pub struct Station {
    tap: Iface,
    /// The machine's MAC address.
    pub mac: [u8; 6],
    received: VecDeque<Vec<u8>>,
}

impl Station {
    /// Plugs into the tap `name` of the host.
    ///
    /// # Panics
    /// When the tap is missing, or another program holds it.
    pub fn plug(host: &Netns, name: &str, mac: [u8; 6]) -> Self {
        let tap = host.enter(|| {
            let tap = Iface::without_packet_info(name, Mode::Tap)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            tap.set_non_blocking().expect("a descriptor of ours");
            tap
        });
        assert_eq!(tap.name(), name, "the kernel made another tap");
        Station {
            tap,
            mac,
            received: VecDeque::new(),
        }
    }

    /// Sends a frame.
    ///
    /// # Panics
    /// When the tap is gone.
    pub fn send(&self, frame: &[u8]) {
        let sent = self.tap.send(frame).expect("the tap takes frames");
        assert_eq!(sent, frame.len());
    }

    /// Receives frames until `wanted` returns a result for one, and returns that; `None` at the
    /// `deadline`. Other frames are dropped.
    pub fn receive<T>(
        &mut self,
        deadline: Instant,
        mut wanted: impl FnMut(&[u8]) -> Option<T>,
    ) -> Option<T> {
        while Instant::now() < deadline {
            self.take_in();
            match self.received.pop_front() {
                Some(frame) => {
                    if let Some(found) = wanted(&frame) {
                        return Some(found);
                    }
                }
                None => std::thread::sleep(PAUSE),
            }
        }
        None
    }

    fn take_in(&mut self) {
        let mut buffer = [0; LONGEST];
        loop {
            match self.tap.recv(&mut buffer) {
                Ok(length) => self.received.push_back(buffer[..length].into()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{}: {error}", self.tap.name()),
            }
        }
    }
}

/// smoltcp's view of the station.
impl Device for Station {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received, Sender<'_>)> {
        self.take_in();
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sender(self)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Sender<'_>> {
        Some(Sender(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// A received frame for smoltcp.
#[derive(Debug)]
pub struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, work: F) -> R {
        work(&self.0)
    }
}

/// Sends smoltcp's next frame.
pub struct Sender<'a>(&'a Station);

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, work: F) -> R {
        let mut frame = vec![0; length];
        let result = work(&mut frame);
        self.0.send(&frame);
        result
    }
}
