//! Conflicts with the host's network: links, addresses, routes, tables, firewalls.

use std::io;

use ipnet::Ipv4Net;
use serde_json::Value;

use super::finding::{Finding, Severity};
use host::address::{self, HostRoute};
use host::firewall::{self, Traffic};
use host::journal::Identity;
use host::links::{self, Link};
use host::netlink::Netlink;
use host::nft;
use host::others::OtherFabric;
use host::plan::{HostPlanInput, TABLE};
use host::program;

/// `left`: the killed fabric whose things `run` takes away before it starts.
pub(super) fn network(host: &HostPlanInput, left: Option<&Identity>) -> Vec<Finding> {
    let read = || -> io::Result<_> {
        let mut netlink = Netlink::open()?;
        Ok((
            links::list(&mut netlink)?,
            address::list_addresses(&mut netlink)?,
            address::list_routes(&mut netlink)?,
        ))
    };
    match read() {
        Ok((mut links, addresses, routes)) => {
            links.retain(|link| !left.is_some_and(|left| left.marks(&link.alias)));
            let mut found: Vec<Finding> = link_conflicts(host, &links).into_iter().collect();
            found.extend(address_conflicts(host, &addresses));
            found.extend(route_conflicts(host, &routes));
            found
        }
        Err(e) => vec![Finding::new(
            Severity::Error,
            format!("the host's links and routes cannot be read: {e}"),
            "run where netlink is allowed",
        )],
    }
}

pub(super) fn link_conflicts(host: &HostPlanInput, links: &[Link]) -> Option<Finding> {
    let planned = host
        .taps
        .iter()
        .map(|tap| &tap.name)
        .chain(host.host.iter().map(|h| &h.name))
        .chain(host.ipmi.iter().map(|ipmi| &ipmi.name));
    let taken: Vec<&Link> = planned
        .filter_map(|name| links.iter().find(|link| link.name == *name))
        .collect();
    let first = taken.first()?;
    let more = match taken.len() {
        1 => String::new(),
        n => format!(" and {} more of our names", n - 1),
    };
    let (whose, remedy) = match Identity::of_alias(&first.alias) {
        Some(identity) => in_words(&OtherFabric::of(&identity)),
        None => (
            String::new(),
            format!(
                "ip link del {}, or other names in the configuration",
                first.name
            ),
        ),
    };
    Some(Finding::new(
        Severity::Error,
        format!("link {}{more} exists already{whose}", first.name),
        remedy,
    ))
}

/// Whose something is, for the end of a sentence, and the remedy.
fn in_words(other: &OtherFabric) -> (String, String) {
    let elsewhere = "another fabric needs another network namespace, or other names and addresses";
    let remedy = if other.is_running() {
        format!("{}; {elsewhere}", other.remedy())
    } else {
        other.remedy()
    };
    (format!(", of {other}"), remedy)
}

pub(super) fn address_conflicts(
    host: &HostPlanInput,
    addresses: &[(String, Ipv4Net)],
) -> Vec<Finding> {
    let conflicts = |ours: Ours<'_>| -> Vec<Finding> {
        addresses
            .iter()
            .filter(move |(link, address)| {
                link != ours.link && ours.range.contains(&address.addr())
            })
            .map(move |(link, address)| {
                let Ours { what, range, .. } = ours;
                Finding::new(
                    Severity::Error,
                    format!("{link} has {address}, which is in the fabric's {what} {range}"),
                    format!(
                        "ip addr del {address} dev {link}, or another {what} in the configuration"
                    ),
                )
            })
            .collect()
    };
    ours(host).flat_map(conflicts).collect()
}

/// An address range that the fabric will use.
#[derive(Clone, Copy)]
struct Ours<'a> {
    what: &'static str,
    range: Ipv4Net,
    link: &'a str,
}

fn ours(host: &HostPlanInput) -> impl Iterator<Item = Ours<'_>> {
    let range = host.host.iter().map(|host| Ours {
        what: "range",
        range: host.range,
        link: &host.name,
    });
    range.chain(host.ipmi.iter().map(|ipmi| Ours {
        what: "ipmi.address",
        range: ipmi.address.trunc(),
        link: &ipmi.name,
    }))
}

pub(super) fn route_conflicts(host: &HostPlanInput, routes: &[HostRoute]) -> Vec<Finding> {
    let conflicts = |ours: Ours<'_>| -> Vec<Finding> {
        routes
            .iter()
            // More specific routes win over a default route, including one split in two halves, as
            // VPNs do.
            .filter(|route| route.destination.prefix_len() > 1)
            .filter(move |route| route.link != ours.link && overlap(route.destination, ours.range))
            .map(move |route| {
                let Ours { what, range, .. } = ours;
                let via = if route.link.is_empty() { "" } else { " on " };
                Finding::new(
                    Severity::Error,
                    format!(
                        "the host's route to {}{via}{} overlaps the fabric's {what} {range}",
                        route.destination, route.link
                    ),
                    format!(
                        "another {what} in the configuration, or ip route del {}",
                        route.destination
                    ),
                )
            })
            .collect()
    };
    ours(host).flat_map(conflicts).collect()
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// `left`: as for [`network`].
pub(super) fn rules(host: &HostPlanInput, left: Option<&Identity>) -> Vec<Finding> {
    if program::find("nft").is_none() {
        return Vec::new();
    }
    let ruleset = match nft::ruleset() {
        Ok(ruleset) => ruleset,
        Err(e) => {
            return vec![Finding::new(
                Severity::Error,
                format!("nftables does not work here: {e}"),
                "modprobe nf_tables",
            )];
        }
    };
    let mut found = table_conflicts(&ruleset, left);
    if let Some(host) = &host.host {
        found.extend(firewall_warnings(
            Traffic::Forwarded,
            &host.name,
            host.range,
        ));
        found.extend(firewall_warnings(Traffic::Answers, &host.name, host.range));
    }
    if let Some(ipmi) = &host.ipmi {
        let segment = ipmi.address.trunc();
        found.extend(firewall_warnings(Traffic::ToHost, &ipmi.name, segment));
    }
    found
}

/// Who will reach the host, and who the fabric.
pub(super) fn reach(host: &HostPlanInput) -> Option<Finding> {
    let reach = &host.host.as_ref()?.reach;
    Some(if reach.open {
        Finding::new(
            Severity::Warning,
            format!("host.open = true: {reach}"),
            "leave host.open out; host.allow and host.reachable_from name what you need",
        )
    } else {
        Finding::new(Severity::Note, format!("as [host] has it, {reach}"), "")
    })
}

pub(super) fn table_conflicts(ruleset: &Value, left: Option<&Identity>) -> Vec<Finding> {
    let items = ruleset["nftables"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let families = items.iter().filter_map(|item| {
        let table = item.get("table").filter(|table| table["name"] == TABLE)?;
        table["family"]
            .as_str()
            .filter(|family| ["inet", "netdev"].contains(family))
    });
    let owner = |family: &str| {
        let chains = items.iter().filter_map(|item| item.get("chain"));
        let mut chains = chains.filter(|it| it["family"] == family && it["table"] == TABLE);
        chains.find_map(|chain| Identity::of_chain(chain["name"].as_str()?))
    };
    let found = families.filter_map(|family| {
        let owner = owner(family);
        if owner.is_some() && owner.as_ref() == left {
            return None;
        }
        let (whose, remedy) = owner.map_or_else(
            || {
                let by_hand = format!("nft delete table {family} {TABLE}");
                (String::new(), by_hand)
            },
            |owner| in_words(&OtherFabric::of(&owner)),
        );
        let what = format!("an nftables table {family} {TABLE} exists already{whose}");
        Some(Finding::new(Severity::Error, what, remedy))
    });
    found.collect()
}

/// What the host's firewall would drop of the fabric's traffic.
fn firewall_warnings(traffic: Traffic, link: &str, range: Ipv4Net) -> Vec<Finding> {
    let what = match traffic {
        Traffic::Forwarded => "traffic that the fabric forwards",
        Traffic::ToHost => "traffic from the BMCs' segment to the BMCs",
        Traffic::Answers => "answers and pings from the fabric to the host",
    };
    match firewall::check(traffic, link, range) {
        Ok(obstacles) => obstacles
            .into_iter()
            .map(|o| {
                Finding::new(
                    Severity::Warning,
                    format!("the firewall drops {what}: {}: {}", o.chain, o.reason),
                    o.remedy,
                )
            })
            .collect(),
        Err(e) => vec![Finding::new(
            Severity::Warning,
            format!("the firewall's rules cannot be read: {e}"),
            "nft list ruleset",
        )],
    }
}
