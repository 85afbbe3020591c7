//! What leaves refused to take from servers over BGP: [`look`] reads their logs. bgpd keeps no
//! refused announcement (frr-conf's template says why), so that its log is the only place.

use std::collections::HashMap;
use std::time::Duration;

use api::{Client, ExecRequest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::topology::NodeJson;

use super::report::Refused;

/// Prints the reasons that the route-map's entries have, then the latest lines of the log about
/// servers. The log is a ring of 256 KiB.
const SCRIPT: &str = "grep -A1 '^route-map FROM-SERVERS deny' /etc/frr/frr.conf; logread | grep -E \
                      'map: FROM-SERVERS, seq|DENIED due to|%MAXPFXEXCEED' | tail -n 2000";

/// How long a leaf may take to answer: emulated ones are slow, and the log is long.
const ANSWER: Duration = Duration::from_secs(15);

/// The most prefixes of one neighbour and reason, and the most of both together. What a server
/// announces is in its hands.
const MOST: usize = 32;

/// The refused announcements in the logs of these leaves. A leaf that does not answer has none: other
/// checks find out whether it is healthy.
pub(super) async fn look(client: &Client, leaves: &[NodeJson]) -> Vec<Refused> {
    let asked = leaves.iter().map(async |leaf| {
        let request = ExecRequest {
            argv: ["sh", "-c", SCRIPT].map(Into::into).into(),
            stdin: String::new(),
        };
        let asked = tokio::time::timeout(ANSWER, client.exec(&leaf.name, &request));
        let answer = asked.await.ok()?.ok()?;
        let log = STANDARD.decode(answer.stdout).ok()?;
        Some(refused(leaf, &String::from_utf8_lossy(&log)))
    });
    let found = futures_util::future::join_all(asked).await;
    found.into_iter().flatten().flatten().collect()
}

/// What a leaf's log says, one entry for each neighbour and reason.
fn refused(leaf: &NodeJson, log: &str) -> Vec<Refused> {
    let mut found: Vec<Refused> = Vec::new();
    let mut reasons: HashMap<&str, &str> = HashMap::new();
    let mut entries: HashMap<&str, &str> = HashMap::new();
    let mut entry = "";
    for line in log.lines() {
        if let Some(number) = line.strip_prefix("route-map FROM-SERVERS deny ") {
            entry = number;
        } else if let Some(words) = line.strip_prefix(" description ") {
            reasons.insert(entry, words);
        } else if let Some(event) = read(line) {
            let (neighbour, prefix, why) = match event {
                // The line before the refusal names the entry.
                Event::Entry { prefix, number } => {
                    entries.insert(prefix, number);
                    continue;
                }
                Event::Denied {
                    neighbour,
                    prefix,
                    why,
                } => {
                    let number = entries.get(prefix).copied();
                    let known = number.and_then(|number| reasons.get(number).copied());
                    let why = if why == "route-map" { known } else { None }.unwrap_or(why);
                    (neighbour, Some(prefix), why.to_owned())
                }
                Event::TooMany { neighbour, limit } => {
                    let why = format!("it announced more than {limit} prefixes (bgp.server_limit)");
                    (neighbour, None, why)
                }
            };
            add(&mut found, leaf, neighbour, prefix, why);
        }
    }
    found
}

fn add(
    found: &mut Vec<Refused>,
    leaf: &NodeJson,
    neighbour: &str,
    prefix: Option<&str>,
    why: String,
) {
    let from = port(leaf, neighbour);
    let same = |known: &&mut Refused| (&known.from, &known.why) == (&from, &why);
    let Some(known) = found.iter_mut().find(same) else {
        if found.len() < MOST {
            found.push(Refused {
                leaf: leaf.name.clone(),
                from,
                why,
                prefixes: prefix.map(Into::into).into_iter().collect(),
            });
        }
        return;
    };
    if let Some(prefix) = prefix {
        known.prefixes.retain(|other| other != prefix);
        known.prefixes.push(prefix.to_owned());
        if known.prefixes.len() > MOST {
            known.prefixes.remove(0);
        }
    }
}

/// The alias of the leaf's port that a neighbour such as `ens9.10` is at; otherwise its own name.
fn port(leaf: &NodeJson, neighbour: &str) -> String {
    let nic = neighbour.split('.').next().unwrap_or(neighbour);
    let port = leaf.ports.iter().find(|port| port.nic == nic);
    port.map_or_else(|| neighbour.to_owned(), |port| port.alias.clone())
}

/// A line of the log.
#[derive(Debug, PartialEq, Eq)]
enum Event<'a> {
    /// The route-map's entry that decides about a prefix.
    Entry { prefix: &'a str, number: &'a str },
    /// A refused announcement.
    Denied {
        neighbour: &'a str,
        prefix: &'a str,
        why: &'a str,
    },
    /// A neighbour announced too much: its session was ended.
    TooMany { neighbour: &'a str, limit: &'a str },
}

/// Reads a line of bgpd's. The neighbour's host name, which it chose itself, stands in brackets behind
/// its name: what is before the bracket, and what is last in the line, are bgpd's own words.
fn read(line: &str) -> Option<Event<'_>> {
    let (_, message) = line.split_once("]: [")?;
    let (_, words) = message.split_once("] ")?;
    let neighbour = |text: &'_ str| -> Option<usize> {
        let end = text.find(|end: char| !(end.is_ascii_alphanumeric() || ".:_-".contains(end)))?;
        (end > 0).then_some(end)
    };
    if let Some(rest) = words.strip_prefix("Best match route-map: FROM-SERVERS, sequence: ") {
        let (number, rest) = rest.split_once(" for pfx: ")?;
        let (prefix, _) = rest.split_once(',')?;
        return Some(Event::Entry { prefix, number });
    }
    if let Some(rest) = words.strip_prefix("%MAXPFXEXCEED: ") {
        let (_, from) = rest.split_once(" received from ")?;
        let (_, limit) = rest.rsplit_once(' ')?;
        let neighbour = &from[..neighbour(from)?];
        return Some(Event::TooMany { neighbour, limit });
    }
    let (before, why) = words.rsplit_once(" -- DENIED due to: ")?;
    let (before, about) = before.rsplit_once(" rcvd UPDATE about ")?;
    let prefix = about.split(' ').next()?;
    let is_prefix = |byte: u8| byte.is_ascii_hexdigit() || b".:/".contains(&byte);
    prefix.bytes().all(is_prefix).then_some(Event::Denied {
        neighbour: &before[..neighbour(before).unwrap_or(before.len())],
        prefix,
        why: why.trim_end_matches(';'),
    })
}

#[cfg(test)]
mod tests {
    use model::config::Config;
    use model::topology::TopologyJson;

    use super::*;

    const LOG: &str = "\
route-map FROM-SERVERS deny 10
 description learned from the fabric
--
route-map FROM-SERVERS deny 40
 description shorter than /8
Nov 30 17:02:55 leaf1 daemon.debug bgpd[77]: [MT1SJ-WEJQ1] Best match route-map: FROM-SERVERS, sequence: 40 for pfx: 0.0.0.0/1, result: match
Nov 30 17:02:55 leaf1 daemon.debug bgpd[77]: [RZMGQ-A03CG] ens9.10(evil] ens8.10 rcvd) rcvd UPDATE about 0.0.0.0/1 IPv4 unicast -- DENIED due to: route-map;
Nov 30 17:02:55 leaf1 daemon.debug bgpd[77]: [MT1SJ-WEJQ1] Best match route-map: FROM-SERVERS, sequence: 100 for pfx: 203.0.113.0/24, result: match
Nov 30 17:02:56 leaf1 daemon.debug bgpd[77]: [MT1SJ-WEJQ1] Best match route-map: FROM-SERVERS, sequence: 40 for pfx: 128.0.0.0/1, result: match
Nov 30 17:02:56 leaf1 daemon.debug bgpd[77]: [RZMGQ-A03CG] ens9.10(evil) rcvd UPDATE about 128.0.0.0/1 IPv4 unicast -- DENIED due to: route-map;
Nov 30 17:02:57 leaf1 daemon.debug bgpd[77]: [RZMGQ-A03CG] 192.168.113.200 rcvd UPDATE about 192.0.2.0/24 IPv4 unicast -- DENIED due to: as-path contains our own AS;
Nov 30 17:02:58 leaf1 daemon.info bgpd[77]: [XXXXX-XXXXX] %MAXPFXEXCEED: No. of IPv4 Unicast prefix received from ens9.10(evil) 257 exceed, limit 256
";

    fn leaf1() -> NodeJson {
        let topology = model::topology::build(&Config::default()).unwrap();
        let mut nodes = TopologyJson::from(&topology).nodes.into_iter();
        nodes.find(|node| node.name == "leaf1").unwrap()
    }

    #[test]
    fn a_log_says_who_announced_what_and_why_it_was_refused() {
        let found = refused(&leaf1(), LOG);
        let lines: Vec<_> = found
            .iter()
            .map(|found| format!("{} {}: {}", found.from, found.prefixes.join(" "), found.why))
            .collect();
        assert_eq!(
            lines,
            [
                "leaf1:u6 0.0.0.0/1 128.0.0.0/1: shorter than /8",
                "192.168.113.200 192.0.2.0/24: as-path contains our own AS",
                "leaf1:u6 : it announced more than 256 prefixes (bgp.server_limit)",
            ]
        );
    }

    #[test]
    fn a_server_cannot_make_the_report_long() {
        let line = |number: u32| {
            let prefix = std::net::Ipv4Addr::from(number << 8);
            format!(
                "leaf1 bgpd[7]: [A-B] ens{}.10 rcvd UPDATE about {prefix}/24 IPv4 unicast -- DENIED \
                 due to: route-map;\n",
                number % 99
            )
        };
        let found = refused(&leaf1(), &(0..9999).map(line).collect::<String>());
        assert_eq!(found.len(), MOST);
        assert!(found.iter().all(|found| found.prefixes.len() == MOST));
    }
}
