//! Names and numbers that end up in configuration files, checked once, when they are made.
//!
//! Every file that this crate writes consists of lines and words, and none has quotes. A name
//! therefore contains neither white space nor control characters nor characters with a special
//! meaning.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name or number was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a valid {what}: {rule}")]
pub struct NameError {
    what: &'static str,
    value: String,
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $valid:path, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if $valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NameError { what: $what, value: text.to_owned(), rule: $rule })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The host name of a switch: one label of RFC 1123.
    HostName,
    "host name",
    is_label,
    "use 1 to 63 letters, digits and inner dashes"
);
name!(
    /// A DNS domain: labels of RFC 1123 joined by dots, at most 253 characters.
    Domain,
    "domain",
    is_domain,
    "use labels of letters, digits and inner dashes, joined by dots"
);
name!(
    /// The name of a network interface (IFNAMSIZ: at most 15 bytes).
    ///
    /// A dot would read as a VLAN sub-interface. The kernel uses `lo`, `all` and `default` itself,
    /// and `spine` and `leaf` are the names of the peer groups.
    IfName,
    "interface name",
    is_interface,
    "use a letter, then up to 14 letters, digits, dashes or underscores; \
     not lo, all, default, spine or leaf"
);
name!(
    /// What a DHCP client boots: a path on the TFTP server, or a URL.
    ///
    /// At most 127 bytes: the BOOTP field `file` has 128, with a final zero (RFC 2131 section 2).
    /// In dnsmasq.conf a comma separates fields, and `tag:` and `net:` begin a condition.
    BootFile,
    "boot file",
    is_boot_file,
    "use 1 to 127 printable ASCII characters without blanks, commas, quotes, # or \\, \
     not beginning with tag: or net:"
);

name!(
    /// A DHCP option as dnsmasq's `dhcp-option` takes it: number, comma, value or values.
    ///
    /// Not those that dnsmasq.conf sets already. dnsmasq does not start with a value that the option
    /// cannot have, so the values of the options whose kind it knows are checked here.
    DhcpOption,
    "DHCP option",
    is_dhcp_option,
    "write the option's number, a comma and its values, such as 42,192.168.96.1; without blanks, \
     quotes, # or \\, addresses and numbers where RFC 2132 has them; options 1, 3, 6, 12, 15, 43, 50 to \
     61, 66, 67, 77 to 82, 93, 97, 118 and 119 are not free"
);

/// Options that dnsmasq or other keys set, and those that belong to clients and relays.
fn is_free_option(code: u8) -> bool {
    !matches!(code, 0 | 1 | 3 | 6 | 12 | 15 | 43 | 50..=61 | 66 | 67 | 77..=82 | 93 | 97 | 118 | 119 | 255)
}

fn is_dhcp_option(text: &str) -> bool {
    let Some((code, values)) = text.split_once(',') else {
        return false;
    };
    let Some(code) = number(code, 255) else {
        return false;
    };
    let every = |check: fn(&str) -> bool| values.split(',').all(check);
    let values_fit = match code {
        // dnsmasq's table `opttab`: lists of addresses, then numbers.
        4 | 5 | 7..=11 | 16 | 21 | 32 | 33 | 41 | 42 | 44 | 45 | 48 | 49 | 65 | 68..=76 | 150 => {
            every(|value| value.parse::<std::net::Ipv4Addr>().is_ok())
        }
        2 | 13 | 19 | 20 | 22..=27 | 29..=31 | 34..=39 | 46 => {
            every(|value| number(value, u32::MAX).is_some())
        }
        _ => true,
    };
    let is_value = |b: u8| b.is_ascii_graphic() && !b"\"'#\\".contains(&b);
    u8::try_from(code).is_ok_and(is_free_option)
        && (1..=255).contains(&values.len())
        && values.bytes().all(is_value)
        && values_fit
}

/// A number without sign, at most `most`.
fn number(text: &str, most: u32) -> Option<u32> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|value| digits && *value <= most)
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_domain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_interface(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !["lo", "all", "default", "spine", "leaf"].contains(&text)
}

fn is_boot_file(text: &str) -> bool {
    (1..=127).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !br##",'"#\"##.contains(&b))
        && !text.starts_with("tag:")
        && !text.starts_with("net:")
}

/// A VLAN number, 1 to 4094 (IEEE 802.1Q; 0 and 4095 are reserved).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct VlanId(u16);

impl TryFrom<u16> for VlanId {
    type Error = NameError;

    fn try_from(number: u16) -> Result<Self, NameError> {
        if (1..=4094).contains(&number) {
            Ok(Self(number))
        } else {
            Err(NameError {
                what: "VLAN number",
                value: number.to_string(),
                rule: "use 1 to 4094",
            })
        }
    }
}

impl From<VlanId> for u16 {
    fn from(vlan: VlanId) -> Self {
        vlan.0
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The address of a network card: unicast, not all zero. Written in lower case with colons,
/// as the kernel does in /sys/class/net.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    fn refused(value: String) -> NameError {
        NameError {
            what: "MAC address",
            value,
            rule: "use six octets in hexadecimal joined by colons, the first one even, not all zero",
        }
    }
}

impl TryFrom<[u8; 6]> for Mac {
    type Error = NameError;

    fn try_from(octets: [u8; 6]) -> Result<Self, NameError> {
        let mac = Self(octets);
        if octets[0] & 1 == 0 && octets != [0; 6] {
            Ok(mac)
        } else {
            Err(Self::refused(mac.to_string()))
        }
    }
}

impl FromStr for Mac {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refused = || Self::refused(text.to_owned());
        let mut octets = [0; 6];
        let mut words = text.split(':');
        for octet in &mut octets {
            let word = words
                .next()
                .filter(|word| word.len() == 2)
                .ok_or_else(refused)?;
            if !word.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(refused());
            }
            *octet = u8::from_str_radix(word, 16).map_err(|_| refused())?;
        }
        if words.next().is_some() {
            return Err(refused());
        }
        Self::try_from(octets)
    }
}

impl TryFrom<String> for Mac {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, octet) in self.0.iter().enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            write!(f, "{colon}{octet:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_nothing_that_could_end_a_line_or_a_word() {
        for bad in [
            "", "a b", "a\nb", "a\tb", "a\0", "leaf1\n", " leaf1", "léaf", "a;b", "a!",
        ] {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?}");
            assert!(bad.parse::<Domain>().is_err(), "{bad:?}");
            assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        }
        for bad in [
            "", "a b", "a\nb", "a,b", "a#b", "a\\b", "a\"b", "tag:x", "net:x", "ü",
        ] {
            assert!(bad.parse::<BootFile>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_dhcp_option_has_a_free_number_and_values_that_fit() {
        for good in [
            "42,192.168.96.1",
            "42,192.168.96.1,192.168.96.2",
            "26,9000",
            "100,EST5EDT",
            "209,pxelinux.cfg/default",
            "224,0a:1b:2c",
        ] {
            assert!(good.parse::<DhcpOption>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "42",
            "42,",
            ",1",
            "3,1.1.1.1",
            "60,HTTPClient",
            "0,1",
            "255,1",
            "256,1",
            "+42,1.1.1.1",
            "42,ntp.org",
            "42,1.1.1.1,x",
            "26,big",
            "100,a b",
            "100,a\nb",
            "100,a#b",
            "100,\"a\"",
            "option:ntp-server,1.1.1.1",
            "tag:x,42,1.1.1.1",
        ] {
            assert!(bad.parse::<DhcpOption>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn interface_names_leave_out_reserved_words() {
        for bad in [
            "ens6.10", "-ens4", "4", "lo", "all", "default", "leaf", "spine", "a/b",
        ] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        }
        assert!("abcdefghijklmno".parse::<IfName>().is_ok());
        assert!("abcdefghijklmnop".parse::<IfName>().is_err());
    }

    #[test]
    fn usual_names_are_valid() {
        assert!("leaf1".parse::<HostName>().is_ok());
        assert!("example.com".parse::<Domain>().is_ok());
        assert!("brvlan11".parse::<IfName>().is_ok());
        assert!(
            "http://192.168.100.2/oci/ipxe.php?mac=1"
                .parse::<BootFile>()
                .is_ok()
        );
        assert!("a".repeat(127).parse::<BootFile>().is_ok());
        assert!("a".repeat(128).parse::<BootFile>().is_err());
    }

    #[test]
    fn a_mac_is_six_octets_and_unicast() {
        let mac: Mac = "08:00:27:06:AC:72".parse().unwrap();
        assert_eq!(mac.to_string(), "08:00:27:06:ac:72");
        assert_eq!(Mac::try_from([8, 0, 0x27, 6, 0xac, 0x72]), Ok(mac));
        for bad in [
            "",
            "08:00:27:06:ac",
            "08:00:27:06:ac:72:01",
            "08:00:27:06:ac:+7",
            "8:0:27:6:ac:72",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "08:00:27:06:ac:72\n",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_vlan_is_1_to_4094() {
        for (number, valid) in [(0, false), (1, true), (4094, true), (4095, false)] {
            assert_eq!(VlanId::try_from(number).is_ok(), valid, "{number}");
        }
    }

    #[test]
    fn a_refusal_names_the_value_and_the_rule() {
        let error = "a b".parse::<HostName>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"a b\" is not a valid host name: use 1 to 63 letters, digits and inner dashes"
        );
    }
}
