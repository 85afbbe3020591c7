//! What neighbours on one wire announce to each other: LLDP (IEEE 802.1AB), LACP (802.1AX) and
//! spanning tree (802.1D).

use std::fmt;

use super::bytes::Cursor;
use model::mac::Mac;
use model::printable;

/// The EtherType of LLDP.
pub(super) const LLDP: u16 = 0x88cc;
/// The EtherType of the slow protocols, of which LACP is one (IEEE 802.3 annex 57A).
pub(super) const SLOW: u16 = 0x8809;

/// A name is truncated to this many characters.
const LONGEST_NAME: usize = 64;

/// The neighbour at the other end of the wire. Texts are escaped; those that it does not send are
/// empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lldp {
    /// The system's name (TLV 5).
    pub system: String,
    /// The port's identifier (TLV 2), which may be a MAC address.
    pub port: String,
    /// For how many seconds this is valid; 0: the neighbour leaves.
    pub ttl: u16,
}

impl Lldp {
    pub(super) fn read(payload: &[u8]) -> Self {
        let mut lldp = Lldp::default();
        // A truncated frame still has its first values, so a missing end is not an error.
        lldp.values(Cursor(payload));
        lldp
    }

    fn values(&mut self, mut left: Cursor<'_>) -> Option<()> {
        loop {
            let head = left.u16()?;
            let mut value = Cursor(left.up_to(usize::from(head & 0x1ff)));
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

fn port(mut value: Cursor<'_>) -> Option<String> {
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

/// The sender's side ("actor") of a link in a link aggregation group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacp {
    /// The sender's system identifier.
    pub system: Mac,
    /// Ports of a system that may aggregate have the same key.
    pub key: u16,
    /// The number of the sender's port.
    pub port: u16,
    /// Flags, from the lowest bit: active, short timeout, aggregatable, in sync,
    /// collecting, distributing, defaulted, expired.
    pub state: u8,
}

impl Lacp {
    /// Decodes a frame of the slow protocols from its subtype on; `None` if it is not LACP or lacks
    /// a part of the actor's information.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let mut left = Cursor(payload);
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

/// A bridge protocol data unit of the spanning tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stp {
    /// The tree as the sender knows it.
    Configuration {
        /// 0 is STP, 2 rapid STP (802.1w), 3 and up multiple STP (802.1s).
        version: u8,
        /// The root's priority and address.
        root: (u16, Mac),
        /// The cost of the sender's path to the root.
        cost: u32,
        /// The sender's priority and address.
        bridge: (u16, Mac),
    },
    /// The sender reports that the topology has changed.
    Change,
}

impl Stp {
    /// Decodes a frame without an EtherType from its LLC header on.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let mut left = Cursor(payload);
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
