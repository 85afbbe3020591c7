//! Checks whether a firewall of the host would drop the fabric's traffic. It changes nothing.
//!
//! The ruleset is evaluated for example packets: one from the range to the outside and its answer, or
//! one from a segment to the host itself. Only what certainly drops one of them is reported: a rule
//! that may or may not match is taken as not matching.

use std::fs;
use std::process::{Command, Stdio};

use ipnet::Ipv4Net;
use serde_json::Value;

use crate::nft::{self, NftError};
use crate::plan::TABLE;
use crate::program;

/// Jumps deeper than the kernel allows are a loop.
const MAX_DEPTH: usize = 16;

/// A chain of the host's firewall that drops the fabric's traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The chain: `table ip filter, chain FORWARD`.
    pub chain: String,
    /// Why it drops: `policy drop`.
    pub reason: String,
    /// The commands that let the traffic pass.
    pub remedy: String,
}

/// Reads the host's rules (nftables and the old iptables) and looks for obstacles.
///
/// # Errors
/// When nft cannot list the rules; it needs root.
pub fn check(traffic: Traffic, link: &str, range: Ipv4Net) -> Result<Vec<Obstacle>, NftError> {
    let mut found = obstacles(&nft::ruleset()?, traffic, link, range);
    found.extend(legacy_rules(traffic).and_then(|rules| legacy_obstacle(&rules, traffic, link)));
    Ok(found)
}

/// Which traffic has to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// From a link to the outside, and the answers.
    Forwarded,
    /// From a link to the host.
    ToHost,
}

impl Traffic {
    fn hook(self) -> &'static str {
        match self {
            Self::Forwarded => "forward",
            Self::ToHost => "input",
        }
    }

    /// The old iptables' chain.
    fn chain(self) -> &'static str {
        match self {
            Self::Forwarded => "FORWARD",
            Self::ToHost => "INPUT",
        }
    }

    fn directions(self) -> &'static [Direction] {
        match self {
            Self::Forwarded => &[Direction::Out, Direction::Back],
            Self::ToHost => &[Direction::Out],
        }
    }
}

/// Which side an example packet comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Out,
    Back,
}

/// An example packet.
struct Probe<'a> {
    direction: Direction,
    link: &'a str,
    range: Ipv4Net,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Accept,
    Drop(String),
    Continue,
}

/// The obstacles in a ruleset as `nft -j list ruleset` prints it.
fn obstacles(ruleset: &Value, traffic: Traffic, link: &str, range: Ipv4Net) -> Vec<Obstacle> {
    let rules = Rules::new(ruleset);
    let mut found: Vec<Obstacle> = Vec::new();
    for chain in rules.chains_at(traffic.hook()) {
        for direction in traffic.directions().iter().copied() {
            let probe = Probe {
                direction,
                link,
                range,
            };
            let Outcome::Drop(reason) = rules.base_outcome(chain, &probe) else {
                continue;
            };
            let location = format!(
                "table {} {}, chain {}",
                text(chain, "family"),
                text(chain, "table"),
                text(chain, "name")
            );
            if !found.iter().any(|known| known.chain == location) {
                let remedy = rules.remedy(chain, traffic, link);
                found.push(Obstacle {
                    chain: location,
                    reason,
                    remedy,
                });
            }
        }
    }
    found
}

struct Rules<'a> {
    chains: Vec<&'a Value>,
    rules: Vec<&'a Value>,
}

impl<'a> Rules<'a> {
    fn new(ruleset: &'a Value) -> Self {
        let items = ruleset["nftables"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let of = |kind: &str| items.iter().filter_map(|item| item.get(kind)).collect();
        Self {
            chains: of("chain"),
            rules: of("rule"),
        }
    }

    fn chains_at(&self, hook: &str) -> impl Iterator<Item = &'a Value> {
        self.chains.iter().copied().filter(move |chain| {
            text(chain, "hook") == hook
                && text(chain, "type") == "filter"
                && ["ip", "inet"].contains(&text(chain, "family"))
                && text(chain, "table") != TABLE
        })
    }

    fn base_outcome(&self, chain: &Value, probe: &Probe<'_>) -> Outcome {
        match self.walk(chain, text(chain, "name"), probe, 0) {
            Outcome::Continue if text(chain, "policy") == "drop" => {
                Outcome::Drop("policy drop".to_owned())
            }
            other => other,
        }
    }

    /// Walks the chain `name` in the table of `base`.
    fn walk(&self, base: &Value, name: &str, probe: &Probe<'_>, depth: usize) -> Outcome {
        if depth > MAX_DEPTH {
            return Outcome::Continue;
        }
        let same = |rule: &&&Value| {
            ["family", "table"]
                .iter()
                .all(|key| rule[*key] == base[*key])
                && text(rule, "chain") == name
        };
        for rule in self.rules.iter().filter(same) {
            let Some(verdict) = applies(rule, probe) else {
                continue;
            };
            if let Some(target) = verdict.get("jump").or_else(|| verdict.get("goto")) {
                let outcome = self.walk(base, text(target, "target"), probe, depth + 1);
                if outcome != Outcome::Continue || verdict.get("goto").is_some() {
                    return outcome;
                }
            } else if verdict.get("accept").is_some() {
                return Outcome::Accept;
            } else if verdict.get("return").is_some() {
                return Outcome::Continue;
            } else if verdict.get("drop").is_some() || verdict.get("reject").is_some() {
                let what = if verdict.get("drop").is_some() {
                    "drops"
                } else {
                    "rejects"
                };
                return Outcome::Drop(format!(
                    "rule with handle {} in chain {name} {what} it",
                    rule["handle"]
                ));
            }
        }
        Outcome::Continue
    }

    fn remedy(&self, chain: &Value, traffic: Traffic, link: &str) -> String {
        let (family, table) = (text(chain, "family"), text(chain, "table"));
        let has = |name: &str| {
            self.chains
                .iter()
                .any(|c| text(c, "name") == name && text(c, "table") == table)
        };
        if table == "firewalld" {
            return format!("firewall-cmd --zone=trusted --add-interface={link}");
        }
        let name = text(chain, "name");
        if traffic == Traffic::ToHost {
            return if table == "filter" && has("ufw-user-input") {
                format!("ufw allow in on {link}")
            } else if (family, table, name) == ("ip", "filter", "INPUT") {
                format!("iptables -I INPUT -i {link} -j ACCEPT")
            } else {
                format!("nft insert rule {family} {table} {name} iifname \"{link}\" accept")
            };
        }
        if table == "filter" && has("ufw-user-forward") {
            return format!("ufw route allow in on {link}; ufw route allow out on {link}");
        }
        if (family, table, name) == ("ip", "filter", "FORWARD") {
            // Docker keeps rules in its own chain when it rewrites FORWARD.
            let chain = if has("DOCKER-USER") {
                "DOCKER-USER"
            } else {
                "FORWARD"
            };
            return iptables_remedy("iptables", chain, link);
        }
        format!(
            "nft insert rule {family} {table} {name} iifname \"{link}\" accept; \
             nft insert rule {family} {table} {name} oifname \"{link}\" accept"
        )
    }
}

fn iptables_remedy(program: &str, chain: &str, link: &str) -> String {
    format!("{program} -I {chain} -i {link} -j ACCEPT; {program} -I {chain} -o {link} -j ACCEPT")
}

/// The verdict of a rule for this packet, if all its conditions certainly hold.
fn applies<'v>(rule: &'v Value, probe: &Probe<'_>) -> Option<&'v Value> {
    for part in rule["expr"].as_array()? {
        let (kind, content) = part.as_object()?.iter().next()?;
        match kind.as_str() {
            "match" if holds(content, probe) == Some(true) => {}
            // Statements without a condition.
            "counter" | "log" | "comment" | "notrack" | "mangle" => {}
            "vmap" => return vmap(content, probe),
            "accept" | "drop" | "reject" | "return" | "jump" | "goto" => return Some(part),
            // Conditions that may hold or not: limits, sets of addresses, iptables matches.
            _ => return None,
        }
    }
    None
}

/// Whether a condition holds. `None` if that cannot be decided for the example packet.
fn holds(content: &Value, probe: &Probe<'_>) -> Option<bool> {
    let (left, right) = (&content["left"], &content["right"]);
    let equal = if let Some(key) = left["meta"]["key"].as_str() {
        meta_is(key, right, probe)
    } else if left["ct"]["key"] == "state" {
        Some(contains(right, probe.state()))
    } else if left["payload"]["protocol"] == "ip" {
        address_is(text(&left["payload"], "field"), right, probe)
    } else {
        None
    }?;
    Some(equal != (content["op"] == "!="))
}

fn meta_is(key: &str, right: &Value, probe: &Probe<'_>) -> Option<bool> {
    let ours = match (key, probe.direction) {
        ("nfproto", _) => return Some(contains(right, "ipv4")),
        ("protocol", _) => return Some(contains(right, "ip")),
        ("iifname" | "iif", Direction::Out) | ("oifname" | "oif", Direction::Back) => true,
        ("iifname" | "iif", Direction::Back) | ("oifname" | "oif", Direction::Out) => false,
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
    let ours = matches!(
        (field, probe.direction),
        ("saddr", Direction::Out) | ("daddr", Direction::Back)
    );
    let network = network_of(right)?;
    if network.contains(&probe.range) {
        // The far side's address is unknown; only a network of all addresses certainly contains it.
        return if ours || network.prefix_len() == 0 {
            Some(true)
        } else {
            None
        };
    }
    let apart = !probe.range.contains(&network);
    if ours && apart { Some(false) } else { None }
}

fn network_of(right: &Value) -> Option<Ipv4Net> {
    if let Some(address) = right.as_str() {
        return Ipv4Net::new(address.parse().ok()?, 32).ok();
    }
    let prefix = right.get("prefix")?;
    let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
    Ipv4Net::new(prefix["addr"].as_str()?.parse().ok()?, length).ok()
}

/// The verdict of a verdict map by connection state, the only kind that can be decided.
fn vmap<'v>(content: &'v Value, probe: &Probe<'_>) -> Option<&'v Value> {
    if content["key"]["ct"]["key"] != "state" {
        return None;
    }
    let entries = content["data"]["set"].as_array()?;
    entries
        .iter()
        .find(|entry| contains(&entry[0], probe.state()))
        .map(|entry| &entry[1])
}

impl Probe<'_> {
    fn state(&self) -> &'static str {
        match self.direction {
            Direction::Out => "new",
            Direction::Back => "established",
        }
    }
}

fn contains(right: &Value, wanted: &str) -> bool {
    match right {
        Value::String(pattern) => pattern
            .strip_suffix('*')
            .map_or(pattern == wanted, |prefix| wanted.starts_with(prefix)),
        Value::Array(values) => values.iter().any(|value| contains(value, wanted)),
        Value::Object(object) => object.get("set").is_some_and(|set| contains(set, wanted)),
        _ => false,
    }
}

fn only(right: &Value, wanted: &str) -> bool {
    match right {
        Value::String(name) => name == wanted,
        Value::Array(values) => values.iter().all(|value| only(value, wanted)),
        Value::Object(object) => object.get("set").is_some_and(|set| only(set, wanted)),
        _ => false,
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

/// The rules of the old iptables' chain, if the kernel has its table.
fn legacy_rules(traffic: Traffic) -> Option<String> {
    let tables = fs::read_to_string("/proc/net/ip_tables_names").ok()?;
    if !tables.lines().any(|table| table == "filter") {
        return None;
    }
    let program = program::find("iptables-legacy")?;
    let output = Command::new(program)
        .args(["-S", traffic.chain()])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn legacy_obstacle(rules: &str, traffic: Traffic, link: &str) -> Option<Obstacle> {
    let chain = traffic.chain();
    let mut reason = rules
        .lines()
        .any(|l| l == format!("-P {chain} DROP"))
        .then(|| "policy drop".to_owned());
    for rule in rules.lines() {
        let Some(rule) = rule.strip_prefix(&format!("-A {chain} ")) else {
            continue;
        };
        match rule {
            // Accepts everything before a later rule could drop it.
            "-j ACCEPT" => return None,
            _ if rule == format!("-i {link} -j ACCEPT") => return None,
            _ if rule == "-j DROP" || rule.starts_with("-j REJECT") => {
                reason = Some(format!("rule `-A {chain} {rule}`"));
                break;
            }
            _ => {}
        }
    }
    Some(Obstacle {
        chain: format!("iptables-legacy, table filter, chain {chain}"),
        reason: reason?,
        remedy: match traffic {
            Traffic::Forwarded => iptables_remedy("iptables-legacy", chain, link),
            Traffic::ToHost => format!("iptables-legacy -I {chain} -i {link} -j ACCEPT"),
        },
    })
}

#[cfg(test)]
mod tests;
