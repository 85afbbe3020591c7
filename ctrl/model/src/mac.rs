//! MAC addresses of the plan, of guests and of any frame, and the link-local addresses made of them.
//! `frr_conf::Mac` is narrower: the unicast address of a NIC that a switch's files name.

use std::fmt;
use std::net::Ipv6Addr;

/// A MAC address, shown as `08:00:27:06:ac:10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Five octets and a counter that continues into the octets before it. None if it would
    /// reach the first three, which name the vendor.
    pub(crate) fn counted(prefix: [u8; 5], counter: u32) -> Option<Self> {
        let low = u32::from_be_bytes([0, prefix[3], prefix[4], 0]).checked_add(counter)?;
        let [vendor, fourth, fifth, sixth] = low.to_be_bytes();
        let [first, second, third, ..] = prefix;
        (vendor == 0).then_some(Self([first, second, third, fourth, fifth, sixth]))
    }

    /// The link-local address that an interface with this MAC gives itself: fe80::/64 with the
    /// modified EUI-64 (RFC 4291, appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let octets = self.0;
        let mut address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0];
        address[8..11].copy_from_slice(&octets[..3]);
        address[8] ^= 2;
        address[13..].copy_from_slice(&octets[3..]);
        address.into()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, octet) in self.0.iter().enumerate() {
            write!(out, "{}{octet:02x}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: [u8; 5] = [0x08, 0x00, 0x27, 0x06, 0xac];

    #[test]
    fn the_link_local_that_ikvswitch_documents() {
        let leaf3_port2 = Mac::counted(PREFIX, 0x72).unwrap();
        assert_eq!(
            leaf3_port2.link_local().to_string(),
            "fe80::a00:27ff:fe06:ac72"
        );
    }

    #[test]
    fn the_counter_continues_into_the_next_octets_but_not_the_vendors() {
        let shown = |prefix, counter| Mac::counted(prefix, counter).map(|mac| mac.to_string());
        assert_eq!(shown(PREFIX, 0xff).as_deref(), Some("08:00:27:06:ac:ff"));
        assert_eq!(shown(PREFIX, 0x100).as_deref(), Some("08:00:27:06:ad:00"));
        assert_eq!(shown(PREFIX, 0x5400).as_deref(), Some("08:00:27:07:00:00"));
        assert_eq!(shown([2, 0, 0, 0xff, 0xff], 0x100), None);
    }
}
