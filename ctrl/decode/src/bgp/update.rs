//! Routes that come and go (RFC 4271 section 4.3, RFC 4760, RFC 8950).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::bytes::Bytes;

/// Routes of unicast that come and go. Of a cut message, what was there of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// Prefixes that can no longer be reached by the sender.
    pub withdrawn: Vec<IpNet>,
    /// Prefixes that can be, or by another path than before.
    pub announced: Vec<IpNet>,
    /// The autonomous systems on the path of those announced; sets are written flat.
    pub as_path: Vec<u32>,
    /// It tells nothing: all of the first routes were told (RFC 4724).
    pub end_of_rib: bool,
}

/// Families of addresses.
const IPV4: u16 = 1;
const IPV6: u16 = 2;
/// The one sub-family that is read.
const UNICAST: u8 = 1;

/// Attributes by their type.
const AS_PATH: u8 = 2;
const MP_REACH: u8 = 14;
const MP_UNREACH: u8 = 15;

/// Both lengths, and an MP_UNREACH with nothing but its family.
const END_OF_RIB: usize = 4 + 4 + 3;

/// Of an attribute's flags: its length has two octets.
const EXTENDED_LENGTH: u8 = 0x10;

impl Update {
    pub(super) fn read(body: &[u8]) -> Self {
        let mut update = Update::default();
        let whole = update.parts(Bytes(body)).is_some();
        let empty = update.withdrawn.is_empty() && update.announced.is_empty();
        update.end_of_rib = whole && empty && body.len() <= END_OF_RIB;
        update
    }

    fn parts(&mut self, mut left: Bytes<'_>) -> Option<()> {
        let length = left.u16()?;
        let withdrawn = left.up_to(length.into());
        prefixes(IPV4, withdrawn, &mut self.withdrawn);
        let length = left.u16()?;
        let mut attributes = Bytes(left.up_to(length.into()));
        while !attributes.0.is_empty() {
            self.attribute(&mut attributes)?;
        }
        prefixes(IPV4, left.0, &mut self.announced);
        Some(())
    }

    fn attribute(&mut self, left: &mut Bytes<'_>) -> Option<()> {
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
            MP_REACH => self.reach(Bytes(value))?,
            MP_UNREACH => self.unreach(Bytes(value))?,
            _ => {}
        }
        Some(())
    }

    fn reach(&mut self, mut value: Bytes<'_>) -> Option<()> {
        let (family, unicast) = (value.u16()?, value.u8()? == UNICAST);
        // The next hop of IPv4 prefixes may well be one of IPv6 (RFC 8950): only its length counts.
        let next_hop = value.u8()?;
        value.take(next_hop.into())?;
        value.u8()?;
        if unicast {
            prefixes(family, value.0, &mut self.announced);
        }
        Some(())
    }

    fn unreach(&mut self, mut value: Bytes<'_>) -> Option<()> {
        let (family, unicast) = (value.u16()?, value.u8()? == UNICAST);
        if unicast {
            prefixes(family, value.0, &mut self.withdrawn);
        }
        Some(())
    }
}

fn prefixes(family: u16, bytes: &[u8], to: &mut Vec<IpNet>) {
    let mut left = Bytes(bytes);
    while let Some(prefix) = prefix(family, &mut left) {
        to.push(prefix);
    }
}

fn prefix(family: u16, left: &mut Bytes<'_>) -> Option<IpNet> {
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
    let mut whole = [0; N];
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(whole)
}

/// With four octets for each system, as all speakers of this century have it; with two where
/// only that adds up.
fn as_path(value: &[u8]) -> Vec<u32> {
    path(value, 4)
        .or_else(|| path(value, 2))
        .unwrap_or_default()
}

fn path(value: &[u8], width: usize) -> Option<Vec<u32>> {
    let mut left = Bytes(value);
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
