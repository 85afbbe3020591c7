//! A machine plugged into a rack, as far as its cable can tell: frames in, frames out.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use tun_tap::{Iface, Mode};

use crate::Netns;

/// Between two looks at a tap on which nothing has come.
const PAUSE: Duration = Duration::from_millis(1);

/// Largest frame taken: a jumbo one with a VLAN tag.
const LONGEST: usize = 9018;

/// A tap of the fabric, held like a QEMU without offloads holds it. Dropped, it is unplugged.
pub struct Station {
    tap: Iface,
    /// Its MAC address.
    pub mac: [u8; 6],
    received: VecDeque<Vec<u8>>,
}

impl Station {
    /// Plugs in at the tap `name` of the host.
    ///
    /// # Panics
    /// When there is no such tap, or somebody else holds it.
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

    /// The first frame before `deadline` of which `wanted` makes something. Others are lost.
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

/// So that smoltcp can live in it.
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

/// A frame on its way to smoltcp.
#[derive(Debug)]
pub struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, work: F) -> R {
        work(&self.0)
    }
}

/// The way out for smoltcp's next frame.
pub struct Sender<'a>(&'a Station);

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, work: F) -> R {
        let mut frame = vec![0; length];
        let result = work(&mut frame);
        self.0.send(&frame);
        result
    }
}
