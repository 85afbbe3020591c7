//! The forms that texts have: `format` in the schema, and the function that checks it.
//!
//! A field of the type `String` names its form by one of the types here, in `#[schemars(with)]`.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::fixed::FixedAddress;
use super::reach::Service;
use super::values::{Account, MacPrefix, Memory, Snat, VlanPeer};
use crate::impairment::{Bytes, Percent};

/// A form of texts.
pub(super) struct Form {
    /// `format` in the schema.
    name: &'static str,
    /// A text of this form, as TOML has it.
    pub(super) example: &'static str,
    /// Says what is wrong with a text; the schema may hold bounds.
    pub(super) check: fn(&Value, &str) -> Result<(), String>,
}

const FORMS: &[Form] = &[
    Form {
        name: "interface-name",
        example: "\"ikvm\"",
        check: |_, text| interface_name(text),
    },
    Form {
        name: "domain",
        example: "\"example.com\"",
        check: |_, text| parses::<frr_conf::Domain>(text),
    },
    Form {
        name: "boot-file",
        example: "\"lpxelinux.0\"",
        check: |_, text| parses::<frr_conf::BootFile>(text),
    },
    Form {
        name: "dhcp-option",
        example: "\"42,192.168.96.1\"",
        check: |_, text| parses::<frr_conf::DhcpOption>(text),
    },
    Form {
        name: "fixed-address",
        example: "\"rack1:u3=192.168.110.10\"",
        check: |_, text| parses::<FixedAddress>(text),
    },
    Form {
        name: "ipv4",
        example: "\"192.168.96.2\"",
        check: |_, text| ipv4(text),
    },
    Form {
        name: "ipv4-subnet",
        example: "\"192.168.98.0/24\"",
        check: subnet,
    },
    Form {
        name: "ipv4-interface",
        example: "\"192.168.96.1/24\"",
        check: |_, text| host_interface(text),
    },
    Form {
        name: "ip-prefix",
        example: "\"10.0.0.0/8\"",
        check: |_, text| ip_prefix(text),
    },
    Form {
        name: "service",
        example: "\"tcp/22\"",
        check: |_, text| parses::<Service>(text),
    },
    Form {
        name: "mac-prefix-5",
        example: "\"08:00:27:06:ac\"",
        check: |_, text| parses::<MacPrefix<5>>(text),
    },
    Form {
        name: "mac-prefix-3",
        example: "\"02:69:6b\"",
        check: |_, text| parses::<MacPrefix<3>>(text),
    },
    Form {
        name: "mebibytes",
        example: "\"192M\" or \"1G\"",
        check: |_, text| parses::<Memory>(text),
    },
    Form {
        name: "bytes",
        example: "\"64MiB\"",
        check: byte_size,
    },
    Form {
        name: "percent",
        example: "\"1%\"",
        check: |_, text| parses::<Percent>(text),
    },
    Form {
        name: "vnc-password",
        example: "\"another\"",
        check: |_, text| vnc_password(text),
    },
    Form {
        name: "source-address",
        example: "\"masquerade\"",
        check: |_, text| parses::<Snat>(text),
    },
    Form {
        name: "vlan-peer",
        example: "\"192.168.113.200\"",
        check: |_, text| parses::<VlanPeer>(text),
    },
    Form {
        name: "account",
        example: "\"anna\"",
        check: |_, text| not_empty(text),
    },
];

/// The form of this `format`.
pub(super) fn form(name: &str) -> Option<&'static Form> {
    FORMS.iter().find(|form| form.name == name)
}

/// What a type looks like in the schema.
macro_rules! described {
    ([$($generic:tt)*] $type:ty, $schema:tt) => {
        impl<$($generic)*> JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

/// Name of a network interface, or its beginning.
pub(super) struct InterfaceName;
described!([] InterfaceName, {
    "type": "string", "format": "interface-name", "pattern": "^[A-Za-z][A-Za-z0-9_-]*$",
    "maxLength": 15, "not": { "enum": ["lo", "all", "default"] },
});

/// A DNS domain.
pub(super) struct Domain;
described!([] Domain, { "type": "string", "format": "domain" });

/// The file that a booting machine asks a boot server for.
pub(super) struct BootFile;
described!([] BootFile, { "type": "string", "format": "boot-file", "maxLength": 127 });

/// A DHCP option: number, comma, values.
pub(super) struct DhcpOption;
described!([] DhcpOption, {
    "type": "string", "format": "dhcp-option", "pattern": "^[0-9]{1,3},",
});

described!([] FixedAddress, {
    "type": "string", "format": "fixed-address", "pattern": "^[^=]+=[0-9.]+$",
});

/// An IPv4 subnet with a prefix from /8 to `LONGEST`.
pub(super) struct Subnet<const LONGEST: u8>;
described!([const LONGEST: u8] Subnet<LONGEST>, {
    "type": "string", "format": "ipv4-subnet", "pattern": "^[0-9.]+/[0-9]+$",
    "x-longest-prefix": LONGEST,
});

/// The address of a host in its subnet, /8 to /30.
pub(super) struct HostInterface;
described!([] HostInterface, {
    "type": "string", "format": "ipv4-interface", "pattern": "^[0-9.]+/[0-9]+$",
});

/// A prefix of IPv4 or IPv6 addresses, of any length.
pub(super) struct IpPrefix;
described!([] IpPrefix, {
    "type": "string", "format": "ip-prefix", "pattern": "^[0-9A-Fa-f.:]+/[0-9]+$",
});

/// A number of bytes with its unit, from `x-minimum` to `x-maximum`.
pub(super) struct ByteSize;
described!([] ByteSize, { "type": "string", "format": "bytes", "pattern": "^[0-9]" });

/// A share in percent.
pub(super) struct Share;
described!([] Share, { "type": "string", "format": "percent", "pattern": "^[0-9.]+%$" });

/// The eight bytes are a DES key's (RFC 6143, section 7.2.2).
pub(super) struct VncPassword;
described!([] VncPassword, {
    "type": "string", "format": "vnc-password", "pattern": "^[!-~]{1,8}$",
});

described!([const N: usize] MacPrefix<N>, {
    "type": "string", "format": format!("mac-prefix-{N}"),
    "pattern": format!("^[0-9A-Fa-f]{{2}}(:[0-9A-Fa-f]{{2}}){{{}}}$", N - 1),
});
described!([] Memory, {
    "type": ["integer", "string"], "format": "mebibytes", "pattern": "^[0-9]",
    "minimum": Memory::LEAST.mib(), "maximum": Memory::MOST.mib(), "x-unit": "MiB",
});
described!([] Snat, {
    "type": "string", "format": "source-address", "pattern": "^(masquerade|[0-9.]+)$",
});
described!([] VlanPeer, {
    "type": "string", "format": "vlan-peer", "pattern": "^[0-9.]+(/[0-9]+)?$",
});
described!([] Service, {
    "type": "string", "format": "service", "pattern": "^(tcp|udp)/[0-9]+$",
});
described!([] Account, {
    "type": ["integer", "string"], "format": "account", "minLength": 1,
    "minimum": 0, "maximum": 4_294_967_294_u32, "x-unit": "as number",
});

fn parses<T>(text: &str) -> Result<(), String>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse::<T>()
        .map(drop)
        .map_err(|error| error.to_string())
}

pub(super) fn not_empty(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("the text is empty; give a value or remove the key".into());
    }
    Ok(())
}

/// A dot would be a directory in sysctl's names and a VLAN in ifupdown's, so it is left out.
fn interface_name(text: &str) -> Result<(), String> {
    not_empty(text)?;
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    if let Some(letter) = text.chars().find(|letter| !allowed(*letter)) {
        return Err(format!(
            "\"{text}\" has {letter:?} in it; names are made of letters, digits, \"_\" and \"-\""
        ));
    }
    if !text.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return Err(format!(
            "\"{text}\" does not begin with a letter; put one in front"
        ));
    }
    if ["lo", "all", "default"].contains(&text) {
        return Err(format!(
            "\"{text}\" is a name of Linux's own; choose another"
        ));
    }
    Ok(())
}

fn ipv4(text: &str) -> Result<(), String> {
    text.parse::<Ipv4Addr>()
        .map(drop)
        .map_err(|_| format!("\"{text}\" is not an IPv4 address such as \"192.168.96.2\""))
}

fn parsed_net(text: &str, example: &str) -> Result<Ipv4Net, String> {
    text.parse().map_err(|_| {
        format!("\"{text}\" is not an IPv4 address with its prefix, such as \"{example}\"")
    })
}

fn prefix_within(net: Ipv4Net, longest: u8) -> Result<(), String> {
    let length = net.prefix_len();
    if (8..=longest).contains(&length) {
        return Ok(());
    }
    Err(format!(
        "/{length} is out of bounds; it takes /8 to /{longest}"
    ))
}

fn subnet(schema: &Value, text: &str) -> Result<(), String> {
    let net = parsed_net(text, "192.168.98.0/24")?;
    no_bits_behind_prefix(net.into())?;
    let longest = schema["x-longest-prefix"].as_u64();
    prefix_within(net, longest.map_or(32, |longest| longest as u8))
}

fn ip_prefix(text: &str) -> Result<(), String> {
    let net = text.parse().map_err(|_| {
        format!("\"{text}\" is not a prefix such as \"10.0.0.0/8\" or \"2001:db8::/32\"")
    })?;
    no_bits_behind_prefix(net)
}

fn no_bits_behind_prefix(net: IpNet) -> Result<(), String> {
    let cut = net.trunc();
    if cut == net {
        return Ok(());
    }
    Err(format!(
        "{net} has bits set behind its prefix; write \"{cut}\""
    ))
}

fn host_interface(text: &str) -> Result<(), String> {
    let net = parsed_net(text, "192.168.96.1/24")?;
    prefix_within(net, 30)?;
    if net.addr() == net.network() || net.addr() == net.broadcast() {
        let net = net.trunc();
        return Err(format!(
            "\"{text}\" is not the address of a host in {net}; choose another"
        ));
    }
    Ok(())
}

fn byte_size(schema: &Value, text: &str) -> Result<(), String> {
    let parsed = |text: &str| text.parse::<Bytes>().map_err(|error| error.to_string());
    let bound = |keyword: &str| schema[keyword].as_str().map(parsed).transpose();
    let bytes = parsed(text)?.0;
    let (Some(least), Some(most)) = (bound("x-minimum")?, bound("x-maximum")?) else {
        return Ok(());
    };
    if (least.0..=most.0).contains(&bytes) {
        return Ok(());
    }
    Err(format!(
        "\"{text}\" is out of bounds; it takes {least} to {most}"
    ))
}

/// VNC cuts a longer password to eight bytes without a word.
fn vnc_password(text: &str) -> Result<(), String> {
    not_empty(text)?;
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.len() > 8 || !plain {
        return Err("VNC takes at most 8 letters, digits and signs; choose others".into());
    }
    Ok(())
}
