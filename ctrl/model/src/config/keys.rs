//! Every key with what it takes: bounds, units, forms. One table for checking and for messages.

use std::net::Ipv4Addr;

use frr_conf::{BootFile, Domain};
use ipnet::Ipv4Net;
use toml::{Table, Value};

use super::{Accel, Listen, MacPrefix, Memory, Nic, Problem, Snat, cable};
use crate::impairment::{Bytes, Percent};

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A whole number from .0 to .1, and of what.
    Whole(i64, i64, &'static str),
    /// True or false.
    Flag,
    /// Any text, not empty.
    Text,
    /// A DNS domain.
    Domain,
    /// What a machine is told to boot.
    BootFile,
    /// Name of a network interface, or its beginning.
    Name,
    /// An IPv4 address.
    Address,
    /// An IPv4 subnet with a prefix of at most this length.
    Subnet(u8),
    /// An address of a host with its prefix length.
    Interface,
    /// So many octets of a MAC address.
    Octets(usize),
    /// An amount of memory.
    Memory,
    /// A number of bytes, from .0 to .1.
    Size(u64, u64),
    /// A share in percent.
    Share,
    /// What can be made of a cable.
    State,
    /// KVM, TCG or either.
    Accel,
    /// A tap or vhost-user.
    Nic,
    /// Where VNC is offered.
    Listen,
    /// What VNC takes for a password.
    VncPassword,
    /// `masquerade` or an address.
    Snat,
    /// User name or uid.
    User,
    /// A list of these.
    List(&'static Kind),
}

/// Every key, in the order of the example file.
#[rustfmt::skip] // One key a line.
pub(super) const KEYS: &[(&str, Kind)] = &[
    ("owner", Kind::User),
    ("topology.racks", Kind::Whole(1, 255, "racks")),
    ("topology.spines", Kind::Whole(1, 255, "spines")),
    ("topology.num_u", Kind::Whole(3, 255, "as the highest U")),
    ("topology.range", Kind::Subnet(30)),
    ("topology.loopbacks", Kind::Subnet(30)),
    ("names.host_cable", Kind::Name),
    ("names.internet_host", Kind::Name),
    ("names.internet_cable", Kind::Name),
    ("names.internet_spine", Kind::Name),
    ("names.spine_internet", Kind::Name),
    ("names.spine_cable", Kind::Name),
    ("names.spine_leaf", Kind::Name),
    ("names.leaf_spine", Kind::Name),
    ("names.server_cable", Kind::Name),
    ("names.leaf_server", Kind::Name),
    ("names.server", Kind::Name),
    ("mac.switch", Kind::Octets(5)),
    ("mac.host", Kind::Octets(5)),
    ("mac.server", Kind::Octets(3)),
    ("bgp.as_start", Kind::Whole(1, 4_294_967_294, "as AS number")),
    ("bgp.server_vlan", Kind::Whole(1, 4094, "as VLAN")),
    ("bgp.vlan_peers", Kind::List(&Kind::Address)),
    ("dhcp.subnets", Kind::List(&Kind::Subnet(29))),
    ("dhcp.first", Kind::Whole(2, 16_777_213, "as host number")),
    ("dhcp.last", Kind::Whole(2, 16_777_213, "as host number")),
    ("dhcp.lease", Kind::Whole(120, 4_294_967_294, "seconds")),
    ("dhcp.max_lease", Kind::Whole(120, 4_294_967_294, "seconds")),
    ("dhcp.domain", Kind::Domain),
    ("dhcp.dns", Kind::List(&Kind::Address)),
    ("dhcp.next_server", Kind::Address),
    ("dhcp.boot_ipxe", Kind::BootFile),
    ("dhcp.boot_bios", Kind::BootFile),
    ("dhcp.boot_uefi", Kind::BootFile),
    ("dhcp.boot_other", Kind::BootFile),
    ("vlan.first", Kind::Whole(1, 4094, "as VLAN")),
    ("vlan.subnets", Kind::List(&Kind::Subnet(30))),
    ("host.link", Kind::Name),
    ("host.address", Kind::Interface),
    ("host.internet", Kind::Address),
    ("host.snat", Kind::Snat),
    ("host.ipv6_forwarding", Kind::Flag),
    ("vm.memory", Kind::Memory),
    ("vm.cpus", Kind::Whole(1, 255, "virtual CPUs")),
    ("vm.accel", Kind::Accel),
    ("vm.warm", Kind::Flag),
    ("vm.nic", Kind::Nic),
    ("vm.cpu", Kind::Text),
    ("vm.uid", Kind::Whole(1, 4_294_900_000, "as uid")),
    ("vnc.listen", Kind::Listen),
    ("vnc.display", Kind::Whole(0, 58_000, "as first display")),
    ("vnc.password", Kind::VncPassword),
    ("ipmi.enabled", Kind::Flag),
    ("ipmi.port", Kind::Whole(1024, 64_000, "as first UDP port")),
    ("ipmi.link", Kind::Name),
    ("ipmi.address", Kind::Interface),
    ("ipmi.tap", Kind::Name),
    ("ipmi.uid", Kind::Whole(1, 4_294_900_000, "as uid")),
    ("image.dir", Kind::Text),
    ("image.release", Kind::Text),
    ("image.mirror", Kind::Text),
    ("image.security_mirror", Kind::Text),
    ("ssh.authorized_keys", Kind::List(&Kind::Text)),
    ("ssh.root_password", Kind::Text),
    ("ssh.key_dir", Kind::Text),
    ("recorder.enabled", Kind::Flag),
    ("recorder.memory", Kind::Size(1 << 20, 64 << 30)),
    ("recorder.snap", Kind::Whole(64, 65_535, "bytes")),
    ("recorder.cable_down", Kind::Flag),
    ("recorder.bgp_down", Kind::Flag),
    ("recorder.match", Kind::Text),
    ("recorder.drop_rate", Kind::Share),
    ("recorder.dir", Kind::Text),
];

/// Several tables of this name, see [`super::CableKeys`].
const CABLES: &str = "cable";

/// What `key` takes.
pub(super) fn kind(key: &str) -> Option<Kind> {
    KEYS.iter()
        .find(|(known, _)| *known == key)
        .map(|(_, kind)| *kind)
}

/// Where `key` stands in the example file.
pub(crate) fn order(key: &str) -> usize {
    KEYS.iter()
        .position(|(known, _)| *known == key)
        .unwrap_or(KEYS.len())
}

/// Whether `key` is a table that has keys.
fn is_table(key: &str) -> bool {
    KEYS.iter()
        .any(|(known, _)| known.split_once('.').is_some_and(|(table, _)| table == key))
}

/// Everything that is wrong with the keys and values of `table`.
pub(crate) fn problems(table: &Table) -> Vec<Problem> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) if is_table(key) => {
                for (name, value) in inner {
                    check(&format!("{key}.{name}"), value, &mut found);
                }
            }
            _ if key == CABLES => cable::problems(value, &mut found),
            _ if is_table(key) => {
                let what = format!(
                    "{} is not a table; write its keys below [{key}]",
                    shown(value)
                );
                found.push(Problem {
                    key: key.clone(),
                    what,
                });
            }
            _ => check(key, value, &mut found),
        }
    }
    found
}

fn check(key: &str, value: &Value, found: &mut Vec<Problem>) {
    let mut problem = |key: String, what: String| found.push(Problem { key, what });
    match (kind(key), value) {
        (None, _) => problem(key.to_owned(), unknown(key)),
        (Some(Kind::List(kind)), Value::Array(list)) => {
            for (index, value) in list.iter().enumerate() {
                if let Err(what) = kind.check(value) {
                    problem(format!("{key}[{index}]"), what);
                }
            }
        }
        (Some(kind), value) => {
            if let Err(what) = kind.check(value) {
                problem(key.to_owned(), what);
            }
        }
    }
}

impl Kind {
    /// As [`Kind::check`], and every element of a list.
    pub(super) fn check_all(self, value: &Value) -> Result<(), String> {
        self.check(value)?;
        match (self, value) {
            (Self::List(kind), Value::Array(list)) => {
                list.iter().try_for_each(|value| kind.check(value))
            }
            _ => Ok(()),
        }
    }

    fn check(self, value: &Value) -> Result<(), String> {
        match self {
            Self::Whole(least, most, unit) => whole(value, least, most, unit),
            Self::Flag => value.is_bool().then_some(()).ok_or_else(|| {
                format!(
                    "{} is neither true nor false; write one, without quotes",
                    shown(value)
                )
            }),
            Self::List(_) => match value {
                Value::Array(_) => Ok(()),
                _ => Err(format!(
                    "{0} is not a list; write it in brackets: [{0}]",
                    shown(value)
                )),
            },
            Self::User => match value {
                Value::Integer(_) => whole(value, 0, 4_294_967_294, "as uid"),
                Value::String(name) => not_empty(name),
                _ => Err(not_form(
                    value,
                    "a user's name or uid, such as \"anna\" or 1000",
                )),
            },
            Self::Memory if value.is_integer() => {
                let least = i64::from(Memory::LEAST.mib());
                whole(value, least, 16_777_216, "MiB")
            }
            Self::Memory => form::<Memory>(value, "such as \"192M\" or \"1G\""),
            Self::Size(least, most) => size(value, least, most),
            Self::Share => form::<Percent>(value, "such as \"1%\""),
            Self::State => match value.as_str() {
                Some("up" | "down" | "blackhole") => Ok(()),
                _ => Err(not_form(value, "\"up\", \"down\" or \"blackhole\"")),
            },
            Self::Text => not_empty(text(value, "in quotes")?),
            Self::Domain => form::<Domain>(value, "such as \"example.com\""),
            Self::BootFile => form::<BootFile>(value, "such as \"lpxelinux.0\""),
            Self::Name => name(text(value, "such as \"ikvm\"")?),
            Self::Address => text(value, "such as \"192.168.96.2\"")?
                .parse::<Ipv4Addr>()
                .map(drop)
                .map_err(|_| not_form(value, "an IPv4 address such as \"192.168.96.2\"")),
            Self::Subnet(longest) => subnet(value, longest),
            Self::Interface => interface(value),
            Self::Octets(5) => form::<MacPrefix<5>>(value, "such as \"08:00:27:06:ac\""),
            Self::Octets(_) => form::<MacPrefix<3>>(value, "such as \"02:69:6b\""),
            Self::Accel => form::<Accel>(value, "\"auto\", \"kvm\" or \"tcg\""),
            Self::Nic => form::<Nic>(value, "\"vhost-user\" or \"tap\""),
            Self::Listen => form::<Listen>(value, "\"off\", \"unix\" or \"tcp\""),
            Self::VncPassword => vnc_password(text(value, "in quotes")?),
            Self::Snat => form::<Snat>(value, "\"masquerade\" or an address of the host"),
        }
    }

    /// Whether the value is a text even where it looks like a number.
    pub(super) fn is_text(self) -> bool {
        !matches!(
            self,
            Self::Whole(..) | Self::Flag | Self::List(_) | Self::User | Self::Memory
        )
    }
}

pub(super) fn shown(value: &Value) -> String {
    value.to_string()
}

fn not_form(value: &Value, form: &str) -> String {
    format!("{} is not {form}", shown(value))
}

fn text<'v>(value: &'v Value, example: &str) -> Result<&'v str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("{} is not a text; write one {example}", shown(value)))
}

fn not_empty(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("the text is empty; give a value or remove the key".into());
    }
    Ok(())
}

/// The eight bytes are a DES key's; a longer password would be cut without a word.
fn vnc_password(text: &str) -> Result<(), String> {
    not_empty(text)?;
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.len() > 8 || !plain {
        return Err("VNC takes at most 8 letters, digits and signs; choose others".into());
    }
    Ok(())
}

fn form<T>(value: &Value, example: &str) -> Result<(), String>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text(value, example)?
        .parse::<T>()
        .map(drop)
        .map_err(|error| error.to_string())
}

fn whole(value: &Value, least: i64, most: i64, unit: &str) -> Result<(), String> {
    let takes = format!("it takes {least} to {most} {unit}");
    match value {
        Value::Integer(number) if (least..=most).contains(number) => Ok(()),
        Value::Integer(number) => Err(format!("{number} is out of bounds; {takes}")),
        _ => Err(format!("{} is not a whole number; {takes}", shown(value))),
    }
}

fn size(value: &Value, least: u64, most: u64) -> Result<(), String> {
    form::<Bytes>(value, "such as \"64MiB\"")?;
    let bytes = value.as_str().and_then(|text| text.parse::<Bytes>().ok());
    match bytes {
        Some(Bytes(bytes)) if !(least..=most).contains(&bytes) => Err(format!(
            "{} is out of bounds; it takes {} to {}",
            shown(value),
            Bytes(least),
            Bytes(most)
        )),
        _ => Ok(()),
    }
}

/// A dot would be a directory in sysctl's names and a VLAN in ifupdown's, so it is left out.
fn name(text: &str) -> Result<(), String> {
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

fn parsed_net(value: &Value, example: &str) -> Result<Ipv4Net, String> {
    text(value, &format!("such as {example}"))?
        .parse()
        .map_err(|_| {
            not_form(
                value,
                &format!("an IPv4 address with its prefix, such as {example}"),
            )
        })
}

fn subnet(value: &Value, longest: u8) -> Result<(), String> {
    let net = parsed_net(value, "\"192.168.98.0/24\"")?;
    if net.trunc() != net {
        let cut = net.trunc();
        return Err(format!(
            "{net} has bits set behind its prefix; write \"{cut}\""
        ));
    }
    if !(8..=longest).contains(&net.prefix_len()) {
        return Err(format!(
            "/{} is out of bounds; it takes /8 to /{longest}",
            net.prefix_len()
        ));
    }
    Ok(())
}

fn interface(value: &Value) -> Result<(), String> {
    let net = parsed_net(value, "\"192.168.96.1/24\"")?;
    if !(8..=30).contains(&net.prefix_len()) {
        return Err(format!(
            "/{} is out of bounds; it takes /8 to /30",
            net.prefix_len()
        ));
    }
    if net.addr() == net.network() || net.addr() == net.broadcast() {
        let net = net.trunc();
        return Err(format!(
            "{} is no host's address in {net}; choose another",
            shown(value)
        ));
    }
    Ok(())
}

/// Says that there is no such key, and what is.
pub(super) fn unknown(key: &str) -> String {
    if key.split(['.', '[']).next() == Some(CABLES) {
        return "cables are written in the file alone, below [[cable]]".into();
    }
    if is_table(key) {
        return format!("this is a table; name one of its keys: {}", names_in(key));
    }
    let near = KEYS
        .iter()
        .map(|(known, _)| *known)
        .min_by_key(|known| distance(key, known));
    if let Some(known) = near.filter(|known| is_near(key, known)) {
        return format!("unknown key; did you mean {known}?");
    }
    let (table, name) = key.split_once('.').unwrap_or(("", key));
    if let Some((known, _)) = KEYS.iter().find(|(known, _)| last(known) == name) {
        return format!("unknown key; did you mean {known}?");
    }
    if is_table(table) {
        return format!("unknown key; [{table}] has {}", names_in(table));
    }
    let tables = KEYS.iter().filter_map(|(known, _)| known.split_once('.'));
    let near = tables
        .map(|(table, _)| table)
        .min_by_key(|table| distance(key, table));
    match near.filter(|table| is_near(key, table)) {
        Some(table) => format!("unknown key; did you mean [{table}]?"),
        None => format!("unknown key; the file has {}", top()),
    }
}

/// At most two letters apart, and less than half of the name.
pub(super) fn is_near(key: &str, known: &str) -> bool {
    let far = distance(key, known);
    far <= 2 && far * 2 <= last(key).len()
}

fn last(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

fn names_in(table: &str) -> String {
    let inside = |(key, _): &(&'static str, Kind)| {
        key.split_once('.')
            .filter(|(head, _)| *head == table)
            .map(|(_, name)| name)
    };
    KEYS.iter()
        .filter_map(inside)
        .collect::<Vec<_>>()
        .join(", ")
}

fn top() -> String {
    let mut names: Vec<String> = Vec::new();
    for (key, _) in KEYS {
        let name = key
            .split_once('.')
            .map_or((*key).to_owned(), |(table, _)| format!("[{table}]"));
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    names.push(format!("[[{CABLES}]]"));
    names.join(", ")
}

/// Levenshtein's distance: how many letters to insert, remove or change.
pub(crate) fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, known) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *known);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}
