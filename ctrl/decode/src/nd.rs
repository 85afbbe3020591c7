//! IPv6 neighbour discovery (RFC 4861), which is part of ICMPv6.

use std::fmt;
use std::net::Ipv6Addr;

use super::bytes::Cursor;
use model::mac::Mac;

/// A message of neighbour discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// A host asks for routers.
    RouterSolicitation,
    /// A router announces itself.
    RouterAdvertisement {
        /// For how many seconds it is a default router; 0: it is not one.
        lifetime: u16,
        /// The sender's MAC address, if it sends one.
        mac: Option<Mac>,
    },
    /// The sender asks which neighbour has an address.
    NeighbourSolicitation {
        /// The address that it looks for.
        target: Ipv6Addr,
    },
    /// The sender has an address.
    NeighbourAdvertisement {
        /// The address that it has.
        target: Ipv6Addr,
        /// The sender's MAC address, if it sends one.
        mac: Option<Mac>,
    },
}

impl Discovery {
    /// Decodes an ICMPv6 message from its type on; `None` if it is not one of these or too short.
    pub fn read(message: &[u8]) -> Option<Self> {
        let mut left = Cursor(message);
        let [kind, code, _, _] = left.array()?;
        if code != 0 {
            return None;
        }
        Some(match kind {
            133 => Discovery::RouterSolicitation,
            134 => {
                left.take(2)?;
                let lifetime = left.u16()?;
                left.take(8)?;
                let mac = link_layer(left, 1);
                Discovery::RouterAdvertisement { lifetime, mac }
            }
            135 => {
                left.take(4)?;
                let target = left.ipv6()?;
                Discovery::NeighbourSolicitation { target }
            }
            136 => {
                left.take(4)?;
                let target = left.ipv6()?;
                let mac = link_layer(left, 2);
                Discovery::NeighbourAdvertisement { target, mac }
            }
            _ => return None,
        })
    }
}

/// The MAC address in the option of type `wanted`: 1 is the source's, 2 the target's.
fn link_layer(mut options: Cursor<'_>, wanted: u8) -> Option<Mac> {
    loop {
        let kind = options.u8()?;
        // In units of 8 octets, and including the two octets just read; 0 is an error.
        let length = usize::from(options.u8()?) * 8;
        let mut value = Cursor(options.take(length.checked_sub(2)?)?);
        if kind == wanted {
            return value.array().map(Mac);
        }
    }
}

impl fmt::Display for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Discovery::RouterSolicitation => write!(f, "ND router solicitation"),
            Discovery::RouterAdvertisement { lifetime, mac } => {
                write!(f, "ND router advertisement, for {lifetime} s")?;
                mac.map_or(Ok(()), |mac| write!(f, ", {mac}"))
            }
            Discovery::NeighbourSolicitation { target } => write!(f, "ND who has {target}?"),
            Discovery::NeighbourAdvertisement { target, mac } => {
                write!(f, "ND {target} is here")?;
                mac.map_or(Ok(()), |mac| write!(f, ": {mac}"))
            }
        }
    }
}
