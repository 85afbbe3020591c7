//! Checks whether a firewall of the host would drop the fabric's traffic. It changes nothing.
//!
//! The ruleset is evaluated for example packets (module `packet`): one from the range to the outside and its
//! answer, or one from a segment to the host itself, before routing and after. Only what certainly drops
//! one of them is reported: a rule that may or may not match is taken as not matching.

mod packet;

use std::fs;
use std::process::{Command, Stdio};

use ipnet::Ipv4Net;
use serde_json::Value;

use crate::nft::{self, NftError};
use crate::plan::TABLE;
use crate::program;
use packet::{Applied, Packet, Probe};

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
    // The old iptables' rules for answers and pings have too many forms to be read.
    let legacy = (traffic != Traffic::Answers).then(|| legacy_rules(traffic));
    let legacy = legacy.flatten();
    found.extend(legacy.and_then(|rules| legacy_obstacle(&rules, traffic, link)));
    Ok(found)
}

/// Which traffic has to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// From a link to the outside, and the answers.
    Forwarded,
    /// From a link to the host.
    ToHost,
    /// From a link to the host: answers to what the host has asked, and pings.
    Answers,
}

impl Traffic {
    /// The hooks that example packets pass.
    fn hooks(self) -> &'static [(&'static str, &'static [Packet])] {
        match self {
            // The answer's address before routing is the host's, until NAT.
            Self::Forwarded => &[
                ("prerouting", &[Packet::Out]),
                ("forward", &[Packet::Out, Packet::Back]),
            ],
            Self::ToHost => &[("prerouting", &[Packet::Out]), ("input", &[Packet::Out])],
            // What is before routing is in the way of forwarding, too.
            Self::Answers => &[("input", &[Packet::Answer, Packet::Ping])],
        }
    }

    /// The old iptables' chain.
    fn chain(self) -> &'static str {
        match self {
            Self::Forwarded => "FORWARD",
            Self::ToHost | Self::Answers => "INPUT",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Accept,
    Drop(String),
    Continue,
}

/// The obstacles in a ruleset as `nft -j list ruleset` prints it.
fn obstacles(ruleset: &Value, traffic: Traffic, link: &str, range: Ipv4Net) -> Vec<Obstacle> {
    let rules = Ruleset::new(ruleset);
    let mut found: Vec<Obstacle> = Vec::new();
    let passed = traffic.hooks().iter().flat_map(|(hook, packets)| {
        let chains = rules.chains_at(hook);
        chains.flat_map(move |chain| packets.iter().map(move |packet| (chain, *packet)))
    });
    for (chain, packet) in passed {
        let probe = Probe {
            packet,
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
    found
}

struct Ruleset<'a> {
    chains: Vec<&'a Value>,
    rules: Vec<&'a Value>,
    /// Named sets and maps.
    sets: Vec<&'a Value>,
}

impl<'a> Ruleset<'a> {
    fn new(ruleset: &'a Value) -> Self {
        let items = ruleset["nftables"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let of = |kind: &str| {
            items
                .iter()
                .filter_map(|item| item.get(kind))
                .collect::<Vec<_>>()
        };
        Self {
            chains: of("chain"),
            rules: of("rule"),
            sets: ["set", "map"].into_iter().flat_map(of).collect(),
        }
    }

    /// The elements of the set or map that a rule names, or what else it compares with. `None` if the set
    /// is unknown.
    fn resolved(&self, rule: &Value, named: &'a Value) -> Option<&'a Value> {
        let Some(name) = named.as_str().and_then(|name| name.strip_prefix('@')) else {
            return Some(named);
        };
        let same = |set: &&&Value| {
            let keys = ["family", "table"];
            text(set, "name") == name && keys.iter().all(|key| set[*key] == rule[*key])
        };
        self.sets.iter().find(same).map(|set| &set["elem"])
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
            let verdict = match packet::applies(self, rule, probe) {
                Applied::Certainly(verdict) => verdict,
                // Who lets pings pass does so by rules of many forms.
                Applied::Perhaps(verdict) if probe.packet == Packet::Ping => {
                    let target = verdict.get("jump").or_else(|| verdict.get("goto"));
                    let passes = match target {
                        Some(to) => self.walk(base, text(to, "target"), probe, depth + 1),
                        None if verdict.get("accept").is_some() => Outcome::Accept,
                        None => Outcome::Continue,
                    };
                    if passes == Outcome::Accept {
                        return passes;
                    }
                    continue;
                }
                _ => continue,
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
        if text(chain, "hook") == "prerouting" {
            return if family == "ip" && name == "PREROUTING" {
                format!("iptables -t {table} -I PREROUTING -i {link} -j ACCEPT")
            } else {
                format!("nft insert rule {family} {table} {name} iifname \"{link}\" accept")
            };
        }
        if traffic != Traffic::Forwarded {
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
            Traffic::ToHost | Traffic::Answers => {
                format!("iptables-legacy -I {chain} -i {link} -j ACCEPT")
            }
        },
    })
}

#[cfg(test)]
mod tests;
