//! Example packets, and whether a rule applies to one.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::{Ruleset, text};

/// An example packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packet {
    /// The first of a connection, from the link.
    Out,
    /// An answer, from elsewhere.
    Back,
    /// An answer, from the link.
    Answer,
    /// An echo request, from the link.
    Ping,
}

/// An example packet on a host.
pub(super) struct Probe<'a> {
    pub(super) packet: Packet,
    pub(super) link: &'a str,
    pub(super) range: Ipv4Net,
}

/// Whether a rule applies, and its verdict.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Applied<'v> {
    Certainly(&'v Value),
    Perhaps(&'v Value),
    No,
}

/// Whether all conditions of a rule hold for this packet.
pub(super) fn applies<'v>(rules: &Ruleset<'v>, rule: &'v Value, probe: &Probe<'_>) -> Applied<'v> {
    let mut certain = true;
    for part in rule["expr"].as_array().into_iter().flatten() {
        let Some((kind, content)) = part.as_object().and_then(|it| it.iter().next()) else {
            return Applied::No;
        };
        let verdict = match kind.as_str() {
            "match" => {
                let right = rules.resolved(rule, &content["right"]);
                match right.and_then(|right| holds(content, right, probe)) {
                    Some(true) => {}
                    Some(false) => return Applied::No,
                    None => certain = false,
                }
                continue;
            }
            // Statements without a condition.
            "counter" | "log" | "comment" | "notrack" | "mangle" => continue,
            "vmap" => match vmap(rules, rule, content, probe) {
                Some(verdict) => verdict,
                None => return Applied::No,
            },
            "accept" | "drop" | "reject" | "return" | "jump" | "goto" => part,
            // Conditions that may hold or not: limits, iptables matches.
            _ => {
                certain = false;
                continue;
            }
        };
        return if certain {
            Applied::Certainly(verdict)
        } else {
            Applied::Perhaps(verdict)
        };
    }
    Applied::No
}

/// Whether a condition holds. `None` if that cannot be decided for the example packet.
fn holds(content: &Value, right: &Value, probe: &Probe<'_>) -> Option<bool> {
    let left = &content["left"];
    let equal = if let Some(key) = left["meta"]["key"].as_str() {
        meta_is(key, right, probe)
    } else if left["ct"]["key"] == "state" {
        Some(contains(right, probe.state()))
    } else {
        let (protocol, field) = (
            &left["payload"]["protocol"],
            text(&left["payload"], "field"),
        );
        match (protocol.as_str()?, field) {
            ("ip", "protocol") => probe.protocol().map(|it| contains(right, it)),
            ("ip", _) => address_is(field, right, probe),
            ("icmp", "type") if probe.packet == Packet::Ping => {
                Some(contains(right, "echo-request"))
            }
            _ => None,
        }
    }?;
    Some(equal != (content["op"] == "!="))
}

fn meta_is(key: &str, right: &Value, probe: &Probe<'_>) -> Option<bool> {
    let from_link = probe.packet != Packet::Back;
    let ours = match key {
        "nfproto" => return Some(contains(right, "ipv4")),
        "protocol" => return Some(contains(right, "ip")),
        "l4proto" => return probe.protocol().map(|it| contains(right, it)),
        "iifname" | "iif" => from_link,
        "oifname" | "oif" => !from_link,
        _ => return None,
    };
    let is_ours = contains(right, probe.link);
    // The other device may have any name but ours, so only a rule about ours can be decided.
    if ours {
        Some(is_ours)
    } else if only(right, probe.link) {
        Some(false)
    } else {
        None
    }
}

fn address_is(field: &str, right: &Value, probe: &Probe<'_>) -> Option<bool> {
    let from_range = probe.packet != Packet::Back;
    let ours = matches!((field, from_range), ("saddr", true) | ("daddr", false));
    let networks = networks_of(right)?;
    let is_in = |network: &(Ipv4Addr, Ipv4Addr)| {
        let (first, last) = (probe.range.network(), probe.range.broadcast());
        if network.0 <= first && last <= network.1 {
            // The far side's address is unknown; only a network of all addresses certainly contains it.
            let all = *network == (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
            return (ours || all).then_some(true);
        }
        let apart = network.1 < first || last < network.0;
        (ours && apart).then_some(false)
    };
    let within: Vec<_> = networks.iter().map(is_in).collect();
    if within.contains(&Some(true)) {
        Some(true)
    } else {
        within.iter().all(|it| *it == Some(false)).then_some(false)
    }
}

/// The first and last address of each network: an address, a prefix, a range, or a set of these.
fn networks_of(right: &Value) -> Option<Vec<(Ipv4Addr, Ipv4Addr)>> {
    if let Some(elements) = elements(right) {
        let networks: Option<Vec<_>> = elements.iter().map(networks_of).collect();
        return Some(networks?.concat());
    }
    if let Some(address) = right.as_str() {
        let address = address.parse().ok()?;
        return Some(vec![(address, address)]);
    }
    if let Some(range) = right["range"].as_array() {
        let end = |at: usize| range.get(at)?.as_str()?.parse().ok();
        return Some(vec![(end(0)?, end(1)?)]);
    }
    if let Some(value) = right["elem"].get("val") {
        return networks_of(value);
    }
    let prefix = right.get("prefix")?;
    let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
    let network = Ipv4Net::new(prefix["addr"].as_str()?.parse().ok()?, length).ok()?;
    Some(vec![(network.network(), network.broadcast())])
}

/// The verdict of a verdict map whose key can be decided.
fn vmap<'v>(
    rules: &Ruleset<'v>,
    rule: &'v Value,
    content: &'v Value,
    probe: &Probe<'_>,
) -> Option<&'v Value> {
    let map = elements(rules.resolved(rule, &content["data"])?)?;
    let is_key = json!({"op": "==", "left": content["key"]});
    let key_is = |entry: &&Value| holds(&is_key, &entry[0], probe) == Some(true);
    // What stands for everything else comes after everything else.
    let (rest, named): (Vec<_>, Vec<_>) = map.iter().partition(|entry| entry[0] == "*");
    let found = named.into_iter().find(key_is);
    found
        .or_else(|| rest.into_iter().find(key_is))
        .map(|entry| &entry[1])
}

impl Probe<'_> {
    fn state(&self) -> &'static str {
        match self.packet {
            Packet::Out | Packet::Ping => "new",
            Packet::Back | Packet::Answer => "established",
        }
    }

    fn protocol(&self) -> Option<&'static str> {
        (self.packet == Packet::Ping).then_some("icmp")
    }
}

/// The elements of a set, in its two forms.
fn elements(right: &Value) -> Option<&Vec<Value>> {
    right.as_array().or_else(|| right["set"].as_array())
}

fn contains(right: &Value, wanted: &str) -> bool {
    match right {
        Value::String(pattern) => pattern
            .strip_suffix('*')
            .map_or(pattern == wanted, |prefix| wanted.starts_with(prefix)),
        Value::Array(values) => values.iter().any(|value| contains(value, wanted)),
        Value::Object(object) => {
            let inner = object.get("set").or_else(|| object.get("elem")?.get("val"));
            inner.is_some_and(|inner| contains(inner, wanted))
        }
        _ => false,
    }
}

fn only(right: &Value, wanted: &str) -> bool {
    match right {
        Value::String(name) => name == wanted,
        Value::Array(values) => values.iter().all(|value| only(value, wanted)),
        Value::Object(object) => {
            let inner = object.get("set").or_else(|| object.get("elem")?.get("val"));
            inner.is_some_and(|inner| only(inner, wanted))
        }
        _ => false,
    }
}
