//! The rules of `inet ikv-fabric` that let through or drop, for the host link and for the segment of
//! the BMCs.
//!
//! ```text
//!  sources   before connection tracking: only addresses that the host routes to the link they come from
//!  input     to the host: ─ from the host link ──> from-range
//!                         └ from the BMCs' segment ──> from-segment
//!             to a BMC, from anywhere: ──> bmcs-only
//!  forward   through the host
//! ```
//!
//! What belongs to a connection that was let through comes first in each chain: no packet of it costs
//! more than one comparison.

use ipnet::IpNet;
use serde_json::{Value, json};

use model::config::{Service, Transport};

use super::{NAT, bmc, chain};
use crate::plan::{Filter, IpmiGuard, ReachGuard, TABLE};

/// The set of the BMCs' ports.
const BMCS: &str = "bmcs";

/// The set of bridges, each as the pair of itself and itself, see [`others_stay_apart`].
const BRIDGED: &str = "bridged";

/// What the host did not forward before the fabric came, and must not forward now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeptApart {
    /// IPv4 between devices other than the host link, but from these, which forwarded by a setting of
    /// their own. `None` if the host forwarded IPv4 altogether.
    pub(crate) ipv4_but_from: Option<Vec<String>>,
    /// IPv6 between devices other than the host link.
    pub(crate) ipv6: bool,
}

/// The commands that make sets, chains and rules in a new table.
pub(super) fn create(filter: &Filter, apart: &KeptApart) -> Vec<Value> {
    let mut commands = vec![bridged()];
    if let Some(ipmi) = &filter.ipmi {
        commands.push(json!({"add": {"set": {
            "family": NAT, "table": TABLE, "name": BMCS, "type": "inet_service",
        }}}));
        let ports = ipmi.ports.iter();
        commands.extend(ports.map(|port| bmc_port("add", *port)["nftables"][0].take()));
    }
    commands.extend(rules(filter, apart));
    commands
}

/// The commands that replace all rules of a table that exists, in one transaction; the sets stay as
/// they are.
pub(crate) fn replace(filter: &Filter, apart: &KeptApart) -> Value {
    json!({"nftables": rules(filter, apart)})
}

/// The command that opens (`add`) a port to the segment of the BMCs, or closes (`delete`) it.
pub(crate) fn bmc_port(verb: &str, port: u16) -> Value {
    json!({"nftables": [{verb: {"element": {
        "family": NAT, "table": TABLE, "name": BMCS, "elem": [port],
    }}}]})
}

/// Chains without their rules of before, then the rules.
fn rules(filter: &Filter, apart: &KeptApart) -> Vec<Value> {
    let reach = filter.reach.as_ref().filter(|guard| !guard.reach.open);
    let ipmi = filter.ipmi.as_ref();
    // -300 is `raw`, before connection tracking; 0 is `filter`.
    let hook = |hook: &str, priority: i32| json!({"type": "filter", "hook": hook, "prio": priority, "policy": "accept"});
    let mut commands = Vec::new();
    for (name, with) in [
        ("from-range", json!({})),
        ("from-segment", json!({})),
        (bmc::CHAIN, json!({})),
        ("sources", hook("prerouting", -300)),
        ("input", hook("input", 0)),
        ("forward", hook("forward", 0)),
    ] {
        commands.push(chain(NAT, name, with));
        commands.push(json!({"flush": {"chain": {"family": NAT, "table": TABLE, "name": name}}}));
    }
    commands.extend(sources(reach, ipmi, apart));
    commands.extend(ipmi.into_iter().flat_map(|_| bmc::rules()));
    commands.extend(ipmi.into_iter().flat_map(from_segment));
    commands.extend(reach.into_iter().flat_map(from_range));
    commands.extend(input(reach, ipmi));
    commands.extend(ipmi.into_iter().flat_map(|ipmi| {
        [
            rule("forward", [link("iifname", &ipmi.link), drop()]),
            rule("forward", [link("oifname", &ipmi.link), drop()]),
        ]
    }));
    if let Some(guard) = reach {
        commands.extend(forward(guard));
        commands.extend(others_stay_apart(apart));
    }
    commands
}

/// Strict reverse path (RFC 3704, section 2.2): nobody behind a link of ours sends under an address
/// that the host would look for elsewhere.
fn sources(
    reach: Option<&ReachGuard>,
    ipmi: Option<&IpmiGuard>,
    apart: &KeptApart,
) -> impl Iterator<Item = Value> {
    let links = [reach.map(|guard| &guard.link), ipmi.map(|ipmi| &ipmi.link)];
    let links: Vec<_> = links.into_iter().flatten().collect();
    let nowhere = json!({"match": {
        "op": "==", "left": {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, "right": false,
    }});
    let strict = (!links.is_empty()).then(|| {
        let from_ours = matches("==", &meta("iifname"), &json!({"set": links}));
        rule("sources", [from_ours, nowhere, drop()])
    });
    let learnt = (reach.is_some() && *apart != KeptApart::default()).then(|| {
        let pair = json!({"concat": [meta("iif"), meta("iif")]});
        let learn = json!({"set": {"op": "add", "elem": pair, "set": format!("@{BRIDGED}")}});
        let from_bridge = matches("==", &meta("iifkind"), &json!("bridge"));
        rule("sources", [from_bridge, learn])
    });
    strict.into_iter().chain(learnt)
}

fn input(reach: Option<&ReachGuard>, ipmi: Option<&IpmiGuard>) -> Vec<Value> {
    let mut rules = Vec::new();
    let mut jumps = Vec::new();
    let mut jump = |link: &str, chain: &str| {
        jumps.push(json!([link, {"jump": {"target": chain}}]));
    };
    if let Some(ipmi) = ipmi {
        let check = [bmc::to_bmcs(ipmi), to_ports_of_bmcs(), bmc::check()];
        rules.push(rule("input", check));
        let elsewhere = matches("!=", &meta("iifname"), &json!({"set": [ipmi.link, "lo"]}));
        rules.push(rule("input", [elsewhere, to_segment(ipmi), drop()]));
        jump(&ipmi.link, "from-segment");
    }
    if let Some(guard) = reach {
        jump(&guard.link, "from-range");
    }
    if !jumps.is_empty() {
        let by_link = json!({"vmap": {"key": meta("iifname"), "data": {"set": jumps}}});
        rules.push(rule("input", [by_link]));
    }
    rules
}

/// From guests and switches to the host: answers, with the errors about what the host has sent; pings;
/// and what `host.allow` names.
fn from_range(guard: &ReachGuard) -> Vec<Value> {
    let mut rules = vec![
        rule(
            "from-range",
            [in_states(&["established", "related"]), accept()],
        ),
        rule("from-range", [icmp("icmp", &["echo-request"]), accept()]),
    ];
    if guard.ipv6 {
        // Without neighbour discovery not even answers would find the host's address.
        let needed = ["echo-request", "nd-neighbor-solicit", "nd-neighbor-advert"];
        rules.push(rule("from-range", [icmp("icmpv6", &needed), accept()]));
    }
    for transport in [Transport::Tcp, Transport::Udp] {
        let ports = guard.reach.allow.iter();
        let ports = ports.filter(|service| service.transport == transport);
        let mut ports: Vec<u16> = ports.map(|Service { port, .. }| *port).collect();
        ports.sort_unstable();
        ports.dedup();
        if !ports.is_empty() {
            let services = field(transport.name(), "dport", &json!({"set": ports}));
            rules.push(rule("from-range", [services, accept()]));
        }
    }
    rules.push(rule("from-range", [drop()]));
    rules
}

/// From the segment of the BMCs to the host.
fn from_segment(ipmi: &IpmiGuard) -> [Value; 4] {
    let bmcs = to_ports_of_bmcs();
    let echo = icmp("icmp", &["echo-request"]);
    let rule = |expr: &[Value]| rule("from-segment", expr.iter().cloned());
    [
        rule(&[in_states(&["established"]), accept()]),
        rule(&[to_segment(ipmi), bmcs, accept()]),
        rule(&[to_segment(ipmi), echo, accept()]),
        rule(&[drop()]),
    ]
}

/// From the range to the outside, and from the neighbours that may into the range.
fn forward(guard: &ReachGuard) -> Vec<Value> {
    let (own, range) = (guard.link.as_str(), [IpNet::from(guard.range)]);
    let rule = |expr: &[Value]| rule("forward", expr.iter().cloned());
    // A packet without a connection, such as one of an invalid state, would leave without NAT.
    let new = || in_states(&["new"]);
    let mut rules = vec![rule(&[in_states(&["established", "related"]), accept()])];
    let leaves = |from: Value| rule(&[link("iifname", own), new(), from, accept()]);
    rules.extend(within(&range).map(leaves));
    if guard.ipv6 {
        // The host's routes say which IPv6 prefixes there are, and `sources` has asked them.
        rules.push(leaves(matches("==", &meta("nfproto"), &json!("ipv6"))));
    }
    rules.push(rule(&[link("iifname", own), drop()]));
    let enters = |from: Value| rule(&[link("oifname", own), new(), from, accept()]);
    rules.extend(within(&guard.reach.reachable_from).map(enters));
    rules.push(rule(&[link("oifname", own), drop()]));
    rules
}

/// Forwarding that the fabric switched on is for its own link alone.
///
/// With `net.bridge.bridge-nf-call-iptables`, frames within a bridge of the host pass this chain, too,
/// although nobody forwards them: the bridge is then where they come from and where they go. nft has no
/// words for "the same", so a rule before this one learns each bridge as such a pair when a
/// frame comes from it.
fn others_stay_apart(apart: &KeptApart) -> Vec<Value> {
    let protocol = |name: &str| matches("==", &meta("nfproto"), &json!(name));
    let mut rules = Vec::new();
    if let Some(devices) = &apart.ipv4_but_from {
        let others = matches("!=", &meta("iifname"), &json!({"set": devices}));
        let others = (!devices.is_empty()).then_some(others);
        let expr = [protocol("ipv4")].into_iter().chain(others).chain([drop()]);
        rules.push(rule("forward", expr));
    }
    if apart.ipv6 {
        rules.push(rule("forward", [protocol("ipv6"), drop()]));
    }
    if !rules.is_empty() {
        let pair = json!({"concat": [meta("iif"), meta("oif")]});
        let same = matches("==", &pair, &json!(format!("@{BRIDGED}")));
        rules.insert(0, rule("forward", [same, accept()]));
    }
    rules
}

/// The kernel lets a rule add to a set only if the set's elements may expire. One that has expired is
/// learnt again from the next frame, before that frame is forwarded.
fn bridged() -> Value {
    json!({"add": {"set": {
        "family": NAT, "table": TABLE, "name": BRIDGED, "type": ["iface_index", "iface_index"],
        "flags": ["timeout"], "timeout": 3600, "size": 4096,
    }}})
}

/// Conditions, one for each family: the source is within one of these prefixes.
fn within(prefixes: &[IpNet]) -> impl Iterator<Item = Value> {
    // Aggregated, because a set of nft refuses prefixes that overlap.
    let all = IpNet::aggregate(&prefixes.to_vec());
    let is_ipv4 = |net: &IpNet| matches!(net, IpNet::V4(_));
    let (ipv4, ipv6): (Vec<_>, Vec<_>) = all.into_iter().partition(is_ipv4);
    let condition = |(protocol, family): (&str, &str), nets: Vec<IpNet>| {
        if nets.iter().any(|net| net.prefix_len() == 0) {
            return Some(matches("==", &meta("nfproto"), &json!(family)));
        }
        let prefix = |net: &IpNet| {
            let address = net.network().to_string();
            json!({"prefix": {"addr": address, "len": net.prefix_len()}})
        };
        let nets: Vec<_> = nets.iter().map(prefix).collect();
        (!nets.is_empty()).then(|| field(protocol, "saddr", &json!({"set": nets})))
    };
    [
        condition(("ip", "ipv4"), ipv4),
        condition(("ip6", "ipv6"), ipv6),
    ]
    .into_iter()
    .flatten()
}

pub(super) fn rule(chain: &str, expr: impl IntoIterator<Item = Value>) -> Value {
    let expr: Vec<_> = expr.into_iter().collect();
    json!({"add": {"rule": {"family": NAT, "table": TABLE, "chain": chain, "expr": expr}}})
}

pub(super) fn matches(op: &str, left: &Value, right: &Value) -> Value {
    json!({"match": {"op": op, "left": left, "right": right}})
}

fn meta(key: &str) -> Value {
    json!({"meta": {"key": key}})
}

fn link(key: &str, name: &str) -> Value {
    matches("==", &meta(key), &json!(name))
}

pub(super) fn field(protocol: &str, field: &str, right: &Value) -> Value {
    let left = json!({"payload": {"protocol": protocol, "field": field}});
    matches("==", &left, right)
}

fn icmp(protocol: &str, types: &[&str]) -> Value {
    field(protocol, "type", &json!({"set": types}))
}

fn in_states(states: &[&str]) -> Value {
    matches("in", &json!({"ct": {"key": "state"}}), &json!(states))
}

fn to_ports_of_bmcs() -> Value {
    field("udp", "dport", &json!(format!("@{BMCS}")))
}

fn to_segment(ipmi: &IpmiGuard) -> Value {
    field("ip", "daddr", &json!(ipmi.address.to_string()))
}

fn accept() -> Value {
    json!({"accept": null})
}

fn drop() -> Value {
    json!({"drop": null})
}

#[cfg(test)]
mod tests {
    use model::config::HostReach;

    use super::*;

    fn reach(reach: HostReach, ipv6: bool) -> ReachGuard {
        ReachGuard {
            link: "ikhn".into(),
            range: "192.168.96.0/19".parse().unwrap(),
            ipv6,
            reach,
        }
    }

    fn lines(filter: &Filter, apart: &KeptApart) -> String {
        let commands = create(filter, apart);
        let lines: Vec<String> = commands.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn the_segment_of_the_bmcs_is_shut_in() {
        let filter = Filter {
            reach: None,
            ipmi: Some(IpmiGuard {
                link: "bripmi".into(),
                address: [192, 168, 200, 1].into(),
                ports: vec![9080, 9081],
            }),
        };
        insta::assert_snapshot!(lines(&filter, &KeptApart::default()));
    }

    #[test]
    fn the_range_reaches_what_is_allowed_and_who_is_allowed_reaches_it() {
        let wanted = HostReach {
            open: false,
            allow: ["tcp/22", "udp/53", "tcp/80", "tcp/22"]
                .map(|s| s.parse().unwrap())
                .into(),
            reachable_from: ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"]
                .map(|s| s.parse().unwrap())
                .into(),
        };
        let filter = Filter {
            reach: Some(reach(wanted, true)),
            ipmi: None,
        };
        let apart = KeptApart {
            ipv4_but_from: Some(vec!["v0".into()]),
            ipv6: true,
        };
        insta::assert_snapshot!(lines(&filter, &apart));
    }

    #[test]
    fn an_open_host_has_no_rules() {
        let open = HostReach {
            open: true,
            allow: vec!["tcp/22".parse().unwrap()],
            reachable_from: vec![],
        };
        let filter = Filter {
            reach: Some(reach(open, true)),
            ipmi: None,
        };
        let apart = KeptApart {
            ipv4_but_from: Some(vec![]),
            ipv6: true,
        };
        let commands = create(&filter, &apart);
        assert!(
            commands
                .iter()
                .all(|command| command["add"]["rule"].is_null())
        );
    }

    #[test]
    fn a_prefix_of_all_addresses_is_a_family() {
        let conditions: Vec<_> = within(&["0.0.0.0/0".parse().unwrap()]).collect();
        assert_eq!(
            conditions,
            [matches("==", &meta("nfproto"), &json!("ipv4"))]
        );
    }
}
