//! Values with a form of their own: parsed once, typed from then on.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::impairment::mebibytes;

/// Why a text is not such a value; says what would be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

impl ValueError {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }
}

/// The first `N` octets of a MAC address, written `08:00:27:06:ac`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacPrefix<const N: usize>(pub [u8; N]);

impl<const N: usize> FromStr for MacPrefix<N> {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
        let prefix: [u8; N] = octets
            .and_then(|octets| octets.try_into().ok())
            .ok_or_else(|| {
                ValueError(format!(
                    "\"{text}\" is not {N} octets such as \"{}\"",
                    &"02:00:00:00:00"[..3 * N - 1]
                ))
            })?;
        if prefix[0] & 1 == 1 {
            return Err(ValueError(format!(
                "\"{text}\" begins multicast addresses; choose an even first octet, such as 02"
            )));
        }
        Ok(Self(prefix))
    }
}

fn octet(text: &str) -> Option<u8> {
    let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

impl<const N: usize> fmt::Display for MacPrefix<N> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, octet) in self.0.iter().enumerate() {
            write!(out, "{}{octet:02x}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

/// An amount of memory in whole MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(u32);

impl Memory {
    /// The least a switch boots and routes with.
    pub const LEAST: Self = Self(96);

    /// 16 TiB, more than any host has.
    pub const MOST: Self = Self(16 << 20);

    /// From a number of MiB (1024 × 1024 bytes).
    pub const fn from_mib(mib: u32) -> Self {
        Self(mib)
    }

    /// In MiB, as QEMU's `-m` takes it.
    pub const fn mib(self) -> u32 {
        self.0
    }
}

impl FromStr for Memory {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let memory = mebibytes(text).map(Self).ok_or_else(|| {
            ValueError(format!(
                "\"{text}\" is not an amount of memory such as \"192M\" or \"1G\""
            ))
        })?;
        if memory < Self::LEAST {
            return Err(ValueError(format!(
                "{memory} is too little for a switch; give it {} or more",
                Self::LEAST
            )));
        }
        if memory > Self::MOST {
            return Err(ValueError(format!(
                "{memory} is more than any host has; give a switch {} or less",
                Self::MOST
            )));
        }
        Ok(memory)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}M", self.0)
    }
}

/// Source address of traffic that leaves the fabric's range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snat {
    /// The address of whichever link the traffic leaves by.
    Masquerade,
    /// This address of the host.
    Address(Ipv4Addr),
}

impl FromStr for Snat {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "masquerade" => Ok(Self::Masquerade),
            _ => text.parse().map(Self::Address).map_err(|_| {
                ValueError(format!(
                    "\"{text}\" is neither \"masquerade\" nor an IPv4 address"
                ))
            }),
        }
    }
}

impl fmt::Display for Snat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masquerade => out.write_str("masquerade"),
            Self::Address(address) => address.fmt(out),
        }
    }
}

/// Whom leaf2 peers with in a VLAN network: one address, or whoever has one of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanPeer(pub Ipv4Net);

impl VlanPeer {
    /// The address, unless this is a prefix.
    pub fn address(self) -> Option<Ipv4Addr> {
        (self.0.prefix_len() == 32).then(|| self.0.addr())
    }
}

impl From<Ipv4Addr> for VlanPeer {
    fn from(address: Ipv4Addr) -> Self {
        Self(address.into())
    }
}

impl FromStr for VlanPeer {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let prefix = || text.parse::<Ipv4Net>().map(|net| Self(net.trunc()));
        let address = text.parse::<Ipv4Addr>().map(Self::from);
        address.or_else(|_| prefix()).map_err(|_| {
            ValueError(format!(
                "\"{text}\" is neither an IPv4 address such as \"192.168.113.200\" nor a prefix such as \
                 \"192.168.113.8/29\""
            ))
        })
    }
}

impl fmt::Display for VlanPeer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(address) => address.fmt(out),
            None => self.0.fmt(out),
        }
    }
}

/// What executes the switches' instructions.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum AccelChoice {
    /// KVM where it works, otherwise TCG.
    #[default]
    Auto,
    /// The processor itself, through /dev/kvm.
    Kvm,
    /// QEMU's translator: slower, works everywhere.
    Tcg,
}

/// Where the switches' consoles are offered by VNC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Listen {
    /// Nowhere.
    #[default]
    Off,
    /// A socket for each switch beside the API's, for the owner alone.
    Unix,
    /// A display for each switch on 127.0.0.1, for viewers that know the password below.
    Tcp,
}

/// A user or a group of the host, by name or by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Account {
    /// By uid or gid.
    Id(u32),
    /// By name, as in /etc/passwd or /etc/group.
    Name(String),
}

impl fmt::Display for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(out),
            Self::Name(name) => out.write_str(name),
        }
    }
}

/// In TOML these are the texts that `FromStr` takes.
macro_rules! as_text {
    ($type:ty $(, $($generic:tt)*)?) => {
        impl $(<$($generic)*>)? serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
        impl<'de $(, $($generic)*)?> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
as_text!(MacPrefix<N>, const N: usize);
as_text!(Snat);
as_text!(VlanPeer);
pub(super) use as_text;

impl Serialize for Memory {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Memory {
    /// A text with its unit, or a whole number of MiB.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Mib(u32),
            Text(String),
        }
        let text = match Either::deserialize(from)? {
            Either::Mib(mib) => format!("{mib}M"),
            Either::Text(text) => text,
        };
        text.parse().map_err(de::Error::custom)
    }
}

/// A subnet, or an address in it with its prefix, that is written out in the code.
pub(super) const fn net(address: [u8; 4], prefix: u8) -> Ipv4Net {
    let [a, b, c, d] = address;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}
