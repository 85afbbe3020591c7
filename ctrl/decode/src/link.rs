//! What neighbours on one wire tell each other: LLDP (IEEE 802.1AB), LACP (802.1AX) and
//! spanning tree (802.1D).

use std::fmt;

use super::Mac;
use super::bytes::Bytes;
use model::printable;

/// EtherTypes.
pub(super) const LLDP: u16 = 0x88cc;
pub(super) const SLOW: u16 = 0x8809;

/// Most characters of a name that are kept.
const LONGEST_NAME: usize = 64;

/// Who is at the other end. Texts are safe to print, and empty where nothing was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lldp {
    /// The system's name.
    pub system: String,
    /// The port: its identifier, or its address.
    pub port: String,
    /// Seconds that this is true for; 0: the neighbour leaves.
    pub ttl: u16,
}

impl Lldp {
    pub(super) fn read(payload: &[u8]) -> Self {
        let mut lldp = Lldp::default();
        // Of a frame that is cut, what is there.
        lldp.values(Bytes(payload));
        lldp
    }

    fn values(&mut self, mut left: Bytes<'_>) -> Option<()> {
        loop {
            let head = left.u16()?;
            let mut value = Bytes(left.up_to(usize::from(head & 0x1ff)));
            match head >> 9 {
                0 => return Some(()),
                2 => self.port = port(value)?,
                3 => self.ttl = value.u16()?,
                5 => self.system = printable::head(value.0, LONGEST_NAME),
                _ => {}
            }
        }
    }
}

fn port(mut value: Bytes<'_>) -> Option<String> {
    const BY_MAC: u8 = 3;
    if value.u8()? == BY_MAC {
        return value.array().map(|mac| Mac(mac).to_string());
    }
    Some(printable::head(value.0, LONGEST_NAME))
}

impl fmt::Display for Lldp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lldp { system, port, ttl } = self;
        write!(f, "LLDP system \"{system}\" port \"{port}\" ttl {ttl}")
    }
}

/// An actor's state in a bundle of links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacp {
    /// Its system.
    pub system: Mac,
    /// Its key and port.
    pub key: u16,
    /// Its port.
    pub port: u16,
    /// Its flags, from the lowest bit: active, short timeout, aggregatable, in sync,
    /// collecting, distributing, defaulted, expired.
    pub state: u8,
}

impl Lacp {
    /// Reads a frame of the slow protocols from its subtype on.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let mut left = Bytes(payload);
        let [subtype, _version, tlv, _length] = left.array()?;
        if (subtype, tlv) != (1, 1) {
            return None;
        }
        let _priority = left.u16()?;
        let system = Mac(left.array()?);
        let key = left.u16()?;
        let _priority = left.u16()?;
        Some(Lacp {
            system,
            key,
            port: left.u16()?,
            state: left.u8()?,
        })
    }
}

impl fmt::Display for Lacp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lacp {
            system, key, port, ..
        } = self;
        write!(f, "LACP {system} key {key} port {port}:")?;
        let names = [
            "active",
            "short",
            "aggregatable",
            "in-sync",
            "collecting",
            "distributing",
            "defaulted",
            "expired",
        ];
        let set = |bit: &usize| self.state & 1 << bit != 0;
        (0..names.len())
            .filter(set)
            .try_for_each(|bit| write!(f, " {}", names[bit]))
    }
}

/// A bridge's word on the spanning tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stp {
    /// How the sender sees the tree.
    Configuration {
        /// Rapid (802.1w) or multiple (802.1s), by the version; 0 is the old one.
        version: u8,
        /// The root's priority and address.
        root: (u16, Mac),
        /// What the way to it costs.
        cost: u32,
        /// The sender's priority and address.
        bridge: (u16, Mac),
    },
    /// The topology has changed.
    Change,
}

impl Stp {
    /// Reads a frame without an EtherType, from its LLC header on.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let mut left = Bytes(payload);
        if left.array()? != [0x42, 0x42, 3] || left.u16()? != 0 {
            return None;
        }
        let version = left.u8()?;
        if left.u8()? == 0x80 {
            return Some(Stp::Change);
        }
        let _flags = left.u8()?;
        let root = (left.u16()?, Mac(left.array()?));
        let cost = left.u32()?;
        let bridge = (left.u16()?, Mac(left.array()?));
        Some(Stp::Configuration {
            version,
            root,
            cost,
            bridge,
        })
    }
}

impl fmt::Display for Stp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stp::Change => write!(f, "STP topology change"),
            Stp::Configuration {
                version,
                root,
                cost,
                bridge,
            } => {
                let name = match version {
                    0 => "STP",
                    2 => "RSTP",
                    _ => "MSTP",
                };
                let ((root_priority, root), (priority, bridge)) = (root, bridge);
                write!(
                    f,
                    "{name} root {root_priority}/{root} cost {cost} bridge {priority}/{bridge}"
                )
            }
        }
    }
}
