//! The DHCP address of a server position: [`FixedAddress`].

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::values::{ValueError, as_text};

/// The DHCP address of a server position, written `rack1:u3=192.168.110.10`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedAddress {
    /// The position, such as `rack1:u3`.
    pub position: String,
    /// The address that its first NIC gets.
    pub address: Ipv4Addr,
}

impl FromStr for FixedAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parsed = text.split_once('=').and_then(|(position, address)| {
            Some(Self {
                position: position.to_owned(),
                address: address.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| {
            ValueError::new(format!(
                "\"{text}\" is not a position and its address, such as \"rack1:u3=192.168.110.10\""
            ))
        })
    }
}

impl fmt::Display for FixedAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}={}", self.position, self.address)
    }
}

as_text!(FixedAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_addresses_are_read_and_written() {
        let text = "rack1:u3=192.168.110.10";
        let parsed: FixedAddress = text.parse().unwrap();
        assert_eq!(parsed.position, "rack1:u3");
        assert_eq!(parsed.to_string(), text);
        for bad in ["", "rack1:u3", "192.168.110.10", "rack1:u3=10", "rack1:u3="] {
            assert!(bad.parse::<FixedAddress>().is_err(), "{bad}");
        }
    }
}
