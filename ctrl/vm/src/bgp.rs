//! BGP sessions as FRR's bgpd reports them, read through the guest agent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use crate::agent::{Agent, AgentError, Limits};
use model::printable;

/// Largest answer that is read, in bytes. One peer takes about 600.
const MAX_ANSWER: usize = 1 << 20;

/// Most peers that are read. More are taken for an attack on this program's memory.
const MAX_PEERS: usize = 1024;

/// State of a session (RFC 4271 section 8.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerState {
    /// None of the other states, such as FRR's `Clearing`.
    Other,
    /// The router does not try to connect, or the session is administratively down.
    Idle,
    /// The router connects to its peer.
    Connect,
    /// The router waits for its peer to connect.
    Active,
    /// The router has sent its OPEN message.
    OpenSent,
    /// The router has received the peer's OPEN message.
    OpenConfirm,
    /// The session is up and routes are exchanged.
    Established,
}

/// A neighbour and its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// As configured: an interface (`ens5`) or an address. Escaped, at most 64 characters.
    pub name: String,
    /// The session's state. If the address families differ, the highest.
    pub state: PeerState,
    /// How long the session has been up, or down since it was up; zero if it was never up.
    pub uptime: Duration,
}

/// All neighbours of a switch, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Sorted by name, each once.
    pub peers: Vec<Peer>,
}

/// Why a switch's sessions could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BgpError {
    /// The guest agent did not run the command.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// bgpd did not answer vtysh, as while the switch boots.
    #[error("vtysh ended with status {status}: {words}")]
    Vtysh {
        /// The status as a shell reports it.
        status: i32,
        /// The end of its output, escaped.
        words: String,
    },
    /// The answer is not a summary of bgpd's.
    #[error("bgpd's summary cannot be read: {0}")]
    Malformed(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Families {
    ipv4_unicast: Option<Family>,
    ipv6_unicast: Option<Family>,
}

#[derive(Deserialize)]
struct Family {
    #[serde(default)]
    peers: BTreeMap<String, PeerJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PeerJson {
    state: String,
    #[serde(default)]
    peer_uptime_msec: u64,
}

/// Asks bgpd in the switch behind `agent` for its sessions.
///
/// # Errors
/// See [`BgpError`]; while the switch boots, [`BgpError::Vtysh`] is normal.
pub async fn read(agent: &Agent, limit: Duration) -> Result<Summary, BgpError> {
    let command = ["vtysh", "-d", "bgpd", "-c", "show bgp summary json"].map(Into::into);
    let limits = Limits {
        time: limit,
        output: MAX_ANSWER,
    };
    let output = agent.exec(&command, b"", limits).await?;
    let status = output.status.shell_code();
    if status != 0 {
        let text = [output.stdout, output.stderr].concat();
        return Err(BgpError::Vtysh {
            status,
            words: printable::tail(text.trim_ascii(), 200),
        });
    }
    Summary::parse(&output.stdout)
}

/// The established BGP connections of the switch behind `agent`, as its kernel lists them. While they
/// stay the same, no session was lost and none was made. This costs the guest much less than asking bgpd.
///
/// # Errors
/// See [`BgpError`].
pub async fn connections(agent: &Agent, limit: Duration) -> Result<BTreeSet<String>, BgpError> {
    let limits = Limits {
        time: limit,
        output: MAX_ANSWER,
    };
    let listing = agent.read("/proc/net/tcp6", limits).await?;
    Ok(established(&String::from_utf8_lossy(&listing)))
}

/// Lines of /proc/net/tcp6 (proc(5)) whose state is ESTABLISHED (01), from or to port 179 (00B3).
fn established(listing: &str) -> BTreeSet<String> {
    listing
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
            let bgp = local.ends_with(":00B3") || remote.ends_with(":00B3");
            (bgp && state == "01").then(|| format!("{local} {remote}"))
        })
        .take(MAX_PEERS)
        .collect()
}

impl Summary {
    /// Parses `show bgp summary json` of FRR 8 and later.
    ///
    /// # Errors
    /// When the text is not such a summary, or has more than 1024 peers.
    pub fn parse(json: &[u8]) -> Result<Self, BgpError> {
        let families: Families = serde_json::from_slice(json).map_err(|error| {
            BgpError::Malformed(printable::head(error.to_string().as_bytes(), 200))
        })?;
        let mut peers = BTreeMap::<String, Peer>::new();
        for family in [families.ipv4_unicast, families.ipv6_unicast]
            .into_iter()
            .flatten()
        {
            if family.peers.len() > MAX_PEERS {
                return Err(BgpError::Malformed(format!("{} peers", family.peers.len())));
            }
            for (name, json) in family.peers {
                let peer = Peer::new(&name, &json);
                peers
                    .entry(name)
                    .and_modify(|known| {
                        if peer.state > known.state {
                            known.clone_from(&peer);
                        }
                    })
                    .or_insert(peer);
            }
        }
        Ok(Self {
            peers: peers.into_values().collect(),
        })
    }

    /// The neighbours whose session is established.
    pub fn established(&self) -> impl Iterator<Item = String> {
        let peers = self.peers.iter();
        let up = peers.filter(|peer| peer.state == PeerState::Established);
        up.map(|peer| peer.name.clone())
    }
}

impl Peer {
    fn new(name: &str, json: &PeerJson) -> Self {
        // `Idle (Admin)` and `Idle (PfxCt)` are kinds of Idle.
        let state = match json.state.split(' ').next().unwrap_or_default() {
            "Idle" => PeerState::Idle,
            "Connect" => PeerState::Connect,
            "Active" => PeerState::Active,
            "OpenSent" => PeerState::OpenSent,
            "OpenConfirm" => PeerState::OpenConfirm,
            "Established" => PeerState::Established,
            _ => PeerState::Other,
        };
        Self {
            name: printable::head(name.as_bytes(), 64),
            state,
            uptime: Duration::from_millis(json.peer_uptime_msec),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_established_bgp_connections_count() {
        let listing = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000000000000:00B3 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 000080FE00000000FF27000A41AC06FE:00B3 000080FE00000000FF27000A22AC06FE:D2F0 01 00000000:00000000
   2: 000080FE00000000FF27000A42AC06FE:9C40 000080FE00000000FF27000A32AC06FE:00B3 01 00000000:00000000
   3: 0462A8C0:0016 0160A8C0:D2F0 01 00000000:00000000
   4: 000080FE00000000FF27000A42AC06FE:9C41 000080FE00000000FF27000A32AC06FE:00B3 06 00000000:00000000
 broken";
        assert_eq!(established(listing).len(), 2);
    }
    use proptest::prelude::*;

    /// A leaf of FRR 8.4.4: two spines, one server that is not there, one by address.
    const LEAF: &str = include_str!("bgp/leaf.json");

    #[test]
    fn reads_a_leaf() {
        let summary = Summary::parse(LEAF.as_bytes()).unwrap();
        insta::assert_debug_snapshot!(summary);
    }

    #[test]
    fn names_only_those_that_are_established() {
        let summary = Summary::parse(LEAF.as_bytes()).unwrap();
        let established: Vec<_> = summary.established().collect();
        assert_eq!(established, ["ens4"], "ens5 is still connecting");
    }

    #[test]
    fn a_bgpd_without_neighbours_or_without_a_router_has_none() {
        for json in [
            "{}",
            "{\"ipv4Unicast\":{\"routerId\":\"192.168.98.4\",\"as\":65503}}",
        ] {
            assert_eq!(Summary::parse(json.as_bytes()).unwrap(), Summary::default());
        }
    }

    #[test]
    fn hostile_summaries_are_refused_or_made_harmless() {
        let many = (0..=MAX_PEERS)
            .map(|i| format!("\"p{i}\":{{\"state\":\"Established\"}}"))
            .collect::<Vec<_>>()
            .join(",");
        for json in [
            format!("{{\"ipv4Unicast\":{{\"peers\":{{{many}}}}}}}"),
            "{\"ipv4Unicast\":{\"peers\":{\"ens4\":{\"state\":7}}}}".into(),
            "{\"ipv4Unicast\":{\"peers\":{\"ens4\":{\"state\":\"Idle\",\"peerUptimeMsec\":-1}}}}"
                .into(),
            "[".repeat(10_000),
            "% BGP instance not found\n".into(),
            String::new(),
        ] {
            assert!(matches!(
                Summary::parse(json.as_bytes()),
                Err(BgpError::Malformed(_))
            ));
        }
        let name = format!(
            "{{\"ipv4Unicast\":{{\"peers\":{{\"\\u001b[2J{}\":{{\"state\":\"x\"}}}}}}}}",
            "n".repeat(999)
        );
        let summary = Summary::parse(name.as_bytes()).unwrap();
        assert!(summary.peers[0].name.starts_with("\\u{1b}[2Jnn"));
        assert!(summary.peers[0].name.len() < 80);
        assert_eq!(summary.peers[0].state, PeerState::Other);
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = Summary::parse(&bytes);
        }
    }
}
