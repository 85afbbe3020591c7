//! Neighbour discovery (RFC 4861) in ICMPv6.

use std::fmt;
use std::net::Ipv6Addr;

use super::Mac;
use super::bytes::Bytes;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// Is a router there?
    RouterSolicitation,
    /// A router is here.
    RouterAdvertisement {
        /// It is a default router for so many seconds; 0 is not.
        lifetime: u16,
        /// Its address of the link layer.
        mac: Option<Mac>,
    },
    /// Who has this address?
    NeighbourSolicitation {
        /// The address.
        target: Ipv6Addr,
    },
    /// I have this address.
    NeighbourAdvertisement {
        /// The address.
        target: Ipv6Addr,
        /// Its address of the link layer.
        mac: Option<Mac>,
    },
}

impl Discovery {
    /// Reads an ICMPv6 message from its type on.
    pub fn read(message: &[u8]) -> Option<Self> {
        let mut left = Bytes(message);
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

/// The address in an option of this type.
fn link_layer(mut options: Bytes<'_>, wanted: u8) -> Option<Mac> {
    loop {
        let kind = options.u8()?;
        // In units of 8 octets, these two included; 0 is an error.
        let length = usize::from(options.u8()?) * 8;
        let mut value = Bytes(options.take(length.checked_sub(2)?)?);
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
