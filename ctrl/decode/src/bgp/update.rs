//! UPDATE messages (RFC 4271 section 4.3, RFC 4760, RFC 8950).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::bytes::Cursor;

/// The unicast routes that a speaker announces and withdraws; of a truncated message, those that
/// are still in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// Prefixes that the speaker can no longer reach.
    pub withdrawn: Vec<IpNet>,
    /// Prefixes that the speaker can reach now, or by another path than before.
    pub announced: Vec<IpNet>,
    /// The autonomous systems on the path to the announced prefixes; the members of a set stand
    /// one after the other.
    pub as_path: Vec<u32>,
    /// Whether the message is empty, which marks the end of the initial routes (RFC 4724).
    pub end_of_rib: bool,
}

/// Address families, by their IANA numbers.
const IPV4: u16 = 1;
const IPV6: u16 = 2;
/// The only subsequent address family that is decoded.
const UNICAST: u8 = 1;

/// Path attributes, by their type codes.
const AS_PATH: u8 = 2;
const MP_REACH: u8 = 14;
const MP_UNREACH: u8 = 15;

/// The longest body that marks the end of the routes, in bytes: both lengths, and an MP_UNREACH
/// that has nothing but its family.
const END_OF_RIB: usize = 4 + 4 + 3;

/// The flag of an attribute whose length has two octets.
const EXTENDED_LENGTH: u8 = 0x10;

impl Update {
    pub(super) fn read(body: &[u8]) -> Self {
        let mut update = Update::default();
        let complete = update.parts(Cursor(body)).is_some();
        let empty = update.withdrawn.is_empty() && update.announced.is_empty();
        update.end_of_rib = complete && empty && body.len() <= END_OF_RIB;
        update
    }

    fn parts(&mut self, mut left: Cursor<'_>) -> Option<()> {
        let length = left.u16()?;
        let withdrawn = left.up_to(length.into());
        prefixes(IPV4, withdrawn, &mut self.withdrawn);
        let length = left.u16()?;
        let mut attributes = Cursor(left.up_to(length.into()));
        while !attributes.0.is_empty() {
            self.attribute(&mut attributes)?;
        }
        prefixes(IPV4, left.0, &mut self.announced);
        Some(())
    }

    fn attribute(&mut self, left: &mut Cursor<'_>) -> Option<()> {
        let flags = left.u8()?;
        let kind = left.u8()?;
        let length = if flags & EXTENDED_LENGTH == 0 {
            left.u8()?.into()
        } else {
            left.u16()?
        };
        let value = left.up_to(length.into());
        match kind {
            AS_PATH => self.as_path = as_path(value),
            MP_REACH => self.reach(Cursor(value))?,
            MP_UNREACH => self.unreach(Cursor(value))?,
            _ => {}
        }
        Some(())
    }

    fn reach(&mut self, mut value: Cursor<'_>) -> Option<()> {
        let (family, unicast) = (value.u16()?, value.u8()? == UNICAST);
        // The next hop is skipped: IPv4 prefixes may have an IPv6 one (RFC 8950), so its length
        // does not follow from the family.
        let next_hop = value.u8()?;
        value.take(next_hop.into())?;
        value.u8()?;
        if unicast {
            prefixes(family, value.0, &mut self.announced);
        }
        Some(())
    }

    fn unreach(&mut self, mut value: Cursor<'_>) -> Option<()> {
        let (family, unicast) = (value.u16()?, value.u8()? == UNICAST);
        if unicast {
            prefixes(family, value.0, &mut self.withdrawn);
        }
        Some(())
    }
}

fn prefixes(family: u16, bytes: &[u8], to: &mut Vec<IpNet>) {
    let mut left = Cursor(bytes);
    while let Some(prefix) = prefix(family, &mut left) {
        to.push(prefix);
    }
}

fn prefix(family: u16, left: &mut Cursor<'_>) -> Option<IpNet> {
    let length = left.u8()?;
    let bytes = left.take(usize::from(length).div_ceil(8))?;
    match family {
        IPV4 => {
            let address = Ipv4Addr::from(padded::<4>(bytes)?);
            Some(Ipv4Net::new(address, length).ok()?.trunc().into())
        }
        IPV6 => {
            let address = Ipv6Addr::from(padded::<16>(bytes)?);
            Some(Ipv6Net::new(address, length).ok()?.trunc().into())
        }
        _ => None,
    }
}

fn padded<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let mut padded = [0; N];
    padded.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(padded)
}

/// Decodes the path with four octets for each system, and with two if four do not add up: the
/// width was negotiated in OPEN, which this segment does not show.
fn as_path(value: &[u8]) -> Vec<u32> {
    path(value, 4)
        .or_else(|| path(value, 2))
        .unwrap_or_default()
}

fn path(value: &[u8], width: usize) -> Option<Vec<u32>> {
    let mut left = Cursor(value);
    let mut systems = Vec::new();
    while !left.0.is_empty() {
        let _kind = left.u8()?;
        let count = usize::from(left.u8()?);
        let segment = left.take(count * width)?;
        let number = |octets: &[u8]| {
            octets
                .iter()
                .fold(0, |sum, octet| sum << 8 | u32::from(*octet))
        };
        systems.extend(segment.chunks(width).map(number));
    }
    Some(systems)
}
