//! Guests without a disk, whose iPXE asks for an address by DHCP.

use std::process::{Child, Command};
use std::time::Duration;

use crate::{Nic, have_root, skip};

/// Time for a guest's firmware to boot under TCG while other tests run.
const BOOTED: Duration = Duration::from_secs(60);

/// QEMU's options for a machine without devices; those of `-boot` must follow.
pub const MACHINE: [&str; 9] = [
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-machine",
    "pc,accel=tcg",
    "-m",
    "64",
    "-boot",
];

/// A running QEMU; killed when dropped.
#[derive(Debug)]
pub struct Guest(Child);

impl Guest {
    /// Starts a QEMU.
    ///
    /// # Panics
    /// When QEMU is not installed.
    pub fn start(command: &mut Command) -> Self {
        Guest(command.spawn().expect("QEMU is installed"))
    }

    /// Asserts that it runs.
    ///
    /// # Panics
    /// If it has ended.
    pub fn assert_alive(&mut self) {
        let status = self.0.try_wait().expect("it is our child");
        assert!(status.is_none(), "QEMU ended: {status:?}");
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether QEMU can be started in a namespace; prints SKIP if not.
pub fn have_qemu() -> bool {
    if !have_root() {
        return false;
    }
    let found = Command::new("qemu-system-x86_64").arg("--version").output();
    if found.is_err() {
        skip("needs QEMU (apt-get install qemu-system-x86)");
    }
    found.is_ok()
}

fn octets(mac: &str) -> Vec<u8> {
    mac.split(':')
        .map(|octet| u8::from_str_radix(octet, 16).expect("a MAC address"))
        .collect()
}

/// The DHCP message type (RFC 2132, 9.6) of a guest's broadcast, if it is one.
fn dhcp_kind(frame: &[u8], mac: &str) -> Option<u8> {
    let parsed = etherparse::SlicedPacket::from_ethernet(frame).ok()?;
    let Some(etherparse::TransportSlice::Udp(udp)) = parsed.transport else {
        return None;
    };
    let options = udp.payload().get(240..)?;
    let kind = options.windows(3).find(|option| option[..2] == [53, 1])?[2];
    (frame[6..12] == octets(mac) && udp.destination_port() == 67).then_some(kind)
}

/// A server's DHCPOFFER for a DHCPDISCOVER.
fn offer(discover: &[u8]) -> Vec<u8> {
    let mut message = discover[42..42 + 240].to_vec();
    message[0] = 2;
    message[16..20].copy_from_slice(&[10, 7, 0, 20]);
    message.extend([
        53, 1, 2, 54, 4, 10, 7, 0, 1, 51, 4, 0, 0, 2, 88, 1, 4, 255, 255, 255, 0, 255,
    ]);
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(
        [2, 0, 0, 0, 0, 1],
        discover[6..12].try_into().expect("six octets"),
    )
    .ipv4([10, 7, 0, 1], [255; 4], 64)
    .udp(67, 68)
    .write(&mut frame, &message)
    .expect("a short message");
    frame
}

/// Asserts that frames pass in both directions: the guest asks for an address and requests the one
/// that it is offered.
///
/// # Panics
/// If it does not.
pub fn assert_talks(switch: &Nic, mac: &str) {
    let asks = |kind| move |frame: &[u8]| dhcp_kind(frame, mac) == Some(kind);
    let discover = switch.receive_until("DHCPDISCOVER", BOOTED, asks(1));
    // iPXE may ask twice before it reads the offer.
    switch.send([0; 10], &offer(&discover));
    switch.receive_until("DHCPREQUEST", BOOTED, asks(3));
}
