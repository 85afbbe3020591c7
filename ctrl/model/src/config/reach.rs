//! Who reaches whom between a fabric, its host and the host's neighbours.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms::IpPrefix;
use super::values::{ValueError, as_text};

/// A service of the host, written `tcp/22`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// How it is spoken to.
    pub transport: Transport,
    /// Its port, 1 to 65535.
    pub port: u16,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Transport {
    /// `tcp` or `udp`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl FromStr for Service {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let transport = |name: &str| match name {
            "tcp" => Some(Transport::Tcp),
            "udp" => Some(Transport::Udp),
            _ => None,
        };
        let parsed = text.split_once('/').and_then(|(name, port)| {
            // `parse` also takes a sign.
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|port| digits && *port > 0)?;
            Some(Self {
                transport: transport(name)?,
                port,
            })
        });
        parsed.ok_or_else(|| {
            ValueError::new(format!(
                "\"{text}\" is not a service such as \"tcp/22\" or \"udp/53\", with a port from 1 \
                 to 65535"
            ))
        })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.transport.name(), self.port)
    }
}

as_text!(Service);

/// What the host lets through between the fabric, itself and its neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostReach {
    /// Everything: the rest does not count then.
    pub open: bool,
    /// Services of the host that the fabric reaches, at each of the host's addresses.
    pub allow: Vec<Service>,
    /// Neighbours of the host that reach into the fabric.
    #[schemars(with = "Vec<IpPrefix>")]
    pub reachable_from: Vec<IpNet>,
}

impl fmt::Display for HostReach {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.open {
            return out.write_str(
                "guests reach every service of the host, and its neighbours reach the fabric",
            );
        }
        out.write_str("guests reach ")?;
        match self.allow.as_slice() {
            [] => out.write_str("no service of the host")?,
            some => write!(out, "{} of the host", listed(some))?,
        }
        match self.reachable_from.as_slice() {
            [] => out.write_str(", and none of its neighbours reaches the fabric"),
            some => write!(out, ", and {} reach the fabric", listed(some)),
        }
    }
}

fn listed(items: &[impl fmt::Display]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_and_written() {
        for text in ["tcp/22", "udp/65535"] {
            assert_eq!(text.parse::<Service>().unwrap().to_string(), text);
        }
        for text in [
            "22",
            "tcp/",
            "tcp/0",
            "tcp/65536",
            "tcp/+1",
            "TCP/22",
            "icmp/8",
            "tcp/22/3",
            "",
        ] {
            let error = text.parse::<Service>().unwrap_err().to_string();
            assert!(error.contains("such as \"tcp/22\""), "{text}: {error}");
        }
    }

    #[test]
    fn in_words() {
        let mut reach = HostReach::default();
        insta::assert_snapshot!(reach, @"guests reach no service of the host, and none of its neighbours reaches the fabric");
        reach.allow = vec!["tcp/22".parse().unwrap(), "udp/53".parse().unwrap()];
        reach.reachable_from = vec!["10.0.0.0/8".parse().unwrap()];
        insta::assert_snapshot!(reach, @"guests reach tcp/22, udp/53 of the host, and 10.0.0.0/8 reach the fabric");
        reach.open = true;
        insta::assert_snapshot!(reach, @"guests reach every service of the host, and its neighbours reach the fabric");
    }
}
