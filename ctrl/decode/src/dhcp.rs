//! DHCP for IPv4 (RFC 2131), its options as in RFC 2132.

use std::fmt;
use std::net::Ipv4Addr;

use super::bytes::Cursor;
use model::mac::Mac;
use model::printable;

/// UDP ports of the server and the client (RFC 2131 section 4.1).
pub(crate) const PORTS: [u16; 2] = [67, 68];

/// Marks that options follow (RFC 2131 section 3).
const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];
/// A host's name is truncated to this many characters.
const LONGEST_NAME: usize = 64;

/// A message of a client or a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp {
    /// The message type, option 53; 0 where the option is missing (BOOTP).
    pub kind: u8,
    /// The MAC address of the client.
    pub client: Mac,
    /// The address that the server assigns; if there is none, the address that the client requests;
    /// if there is none either, the address that the client uses already.
    pub address: Option<Ipv4Addr>,
    /// The client's name for itself, escaped; empty if it gives none.
    pub host_name: String,
}

impl Dhcp {
    /// Decodes the payload of a datagram to port 67 or 68; `None` if it ends before the options.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut left = Cursor(payload);
        left.take(12)?;
        let in_use = left.ipv4()?;
        let assigned = left.ipv4()?;
        left.take(8)?;
        let client = Mac(left.array()?);
        left.take(10 + 64 + 128)?;
        let mut dhcp = Dhcp {
            kind: 0,
            client,
            address: None,
            host_name: String::new(),
        };
        if left.array()? == MAGIC_COOKIE {
            // A truncated frame still has its first options, so a missing end is not an error.
            dhcp.options(left);
        }
        let given = |ip: &Ipv4Addr| !ip.is_unspecified();
        let assigned = Some(assigned).filter(given);
        dhcp.address = assigned.or(dhcp.address).or(Some(in_use).filter(given));
        Some(dhcp)
    }

    fn options(&mut self, mut left: Cursor<'_>) -> Option<()> {
        loop {
            let code = left.u8()?;
            match code {
                0 => continue,
                255 => return Some(()),
                _ => {}
            }
            let length = left.u8()?;
            let mut value = Cursor(left.take(length.into())?);
            match code {
                12 => self.host_name = printable::head(value.0, LONGEST_NAME),
                50 => self.address = value.ipv4(),
                53 => self.kind = value.u8().unwrap_or(0),
                _ => {}
            }
        }
    }

    /// The name of the message type.
    pub(crate) fn kind_name(&self) -> &'static str {
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
