//! DHCP for IPv4 (RFC 2131).

use std::fmt;
use std::net::Ipv4Addr;

use super::Mac;
use super::bytes::Bytes;
use model::printable;

/// UDP ports of the server and the client.
pub const PORTS: [u16; 2] = [67, 68];

const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Most characters of a host's name that are kept.
const LONGEST_NAME: usize = 64;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp {
    /// Option 53; 0 where it is missing (BOOTP).
    pub kind: u8,
    /// The client.
    pub client: Mac,
    /// The address that is given, else asked for, else in use.
    pub address: Option<Ipv4Addr>,
    /// What the client calls itself, safe to print; empty for nothing.
    pub host_name: String,
}

impl Dhcp {
    /// Reads the payload of a datagram to one of [`PORTS`].
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut left = Bytes(payload);
        left.take(12)?;
        let in_use = left.ipv4()?;
        let yours = left.ipv4()?;
        left.take(8)?;
        let client = Mac(left.array()?);
        left.take(10 + 64 + 128)?;
        let mut dhcp = Dhcp {
            kind: 0,
            client,
            address: None,
            host_name: String::new(),
        };
        if left.array()? == COOKIE {
            // Of a frame that is cut, those options that are there.
            dhcp.options(left);
        }
        let told = [yours, in_use].into_iter().find(|ip| !ip.is_unspecified());
        if yours.is_unspecified() {
            dhcp.address = dhcp.address.or(told);
        } else {
            dhcp.address = told;
        }
        Some(dhcp)
    }

    fn options(&mut self, mut left: Bytes<'_>) -> Option<()> {
        loop {
            let code = left.u8()?;
            match code {
                0 => continue,
                255 => return Some(()),
                _ => {}
            }
            let length = left.u8()?;
            let mut value = Bytes(left.take(length.into())?);
            match code {
                12 => self.host_name = printable::head(value.0, LONGEST_NAME),
                50 => self.address = value.ipv4(),
                53 => self.kind = value.u8().unwrap_or(0),
                _ => {}
            }
        }
    }

    /// The message's name.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            0 => "BOOTP",
            1 => "discover",
            2 => "offer",
            3 => "request",
            4 => "decline",
            5 => "ack",
            6 => "nak",
            7 => "release",
            8 => "inform",
            _ => "of unknown type",
        }
    }
}

impl fmt::Display for Dhcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DHCP {} {}", self.kind_name(), self.client)?;
        if let Some(address) = self.address {
            write!(f, " {address}")?;
        }
        if !self.host_name.is_empty() {
            write!(f, " \"{}\"", self.host_name)?;
        }
        Ok(())
    }
}
