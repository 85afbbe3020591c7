//! What a leaf has learned of the servers at its ports: MAC addresses, addresses and the names that they
//! give, read through the guest agent: [`read`].
//!
//! Servers are untrusted, and so is the leaf: whatever either says is parsed into addresses, or escaped
//! and cut, and each port has room for a few entries only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::agent::{Agent, AgentError, Limits};
use model::mac::Mac;
use model::printable;

/// Most bytes of all listings together.
const MAX_ANSWER: usize = 1 << 20;

/// Most MAC addresses and most addresses of a port; further ones are left out.
const MOST_MACS: usize = 8;
const MOST_ADDRESSES: usize = 16;

/// Most characters of a name.
const LONGEST_NAME: usize = 64;

/// The line between two listings. In JSON no line consists of it, and a lease has five words.
const BETWEEN: &[u8] = b"\n==\n";

/// All listings by one program, because under TCG each start costs the guest milliseconds. None of them
/// asks FRR or waits for a network.
const LISTINGS: &str = "exec 2>/dev/null; PATH=/usr/sbin:/usr/bin:/sbin:/bin
cat /run/dnsmasq.leases; printf '\\n==\\n'
bridge -j fdb show; printf '\\n==\\n'
ip -j neigh show; printf '\\n==\\n'
ip -j -4 route show proto bgp; printf '\\n==\\n'
lldpcli -f json0 show neighbors";

/// What a leaf knows of whoever is at one of its ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// MAC addresses of frames that came from there lately (bridge(8) forgets them after 300 s), at most 8.
    pub macs: BTreeSet<Mac>,
    /// Addresses of these MACs by ARP, neighbour discovery and DHCP, and the host routes (/32) that the
    /// server announces by BGP; at most 16.
    pub addresses: BTreeSet<IpAddr>,
    /// The name that the server announces by LLDP. Escaped, from at most 64 characters.
    pub name: Option<String>,
}

/// Asks the leaf behind `agent` what it has learned at the ports of these names (`ens6`). A port at which
/// nothing was learned is left out, and so is what a listing that failed would have said. When the
/// caller drops the future, the command in the guest is killed.
///
/// # Errors
/// When the agent does not answer within `limit`, or the answer is longer than 1 MiB.
pub async fn read(
    agent: &Arc<Agent>,
    ports: &BTreeSet<String>,
    limit: Duration,
) -> Result<BTreeMap<String, Learned>, AgentError> {
    let limits = Limits {
        time: limit,
        output: MAX_ANSWER,
    };
    let command = ["sh", "-c", LISTINGS].map(Into::into).to_vec();
    let output = agent.exec_for_a_caller(command, Vec::new(), limits).await?;
    Ok(parse(&output.stdout, ports))
}

#[derive(Deserialize)]
struct FdbEntry {
    mac: String,
    ifname: String,
    #[serde(default)]
    state: String,
}

#[derive(Deserialize)]
struct Neighbour {
    dst: IpAddr,
    dev: String,
    #[serde(default)]
    lladdr: String,
}

#[derive(Deserialize)]
struct BgpRoute {
    dst: String,
    #[serde(default)]
    dev: String,
}

#[derive(Deserialize)]
struct Lldp {
    #[serde(default)]
    lldp: Vec<LldpInterfaces>,
}

#[derive(Deserialize)]
struct LldpInterfaces {
    #[serde(default)]
    interface: Vec<LldpInterface>,
}

#[derive(Deserialize)]
struct LldpInterface {
    name: String,
    #[serde(default)]
    chassis: Vec<Chassis>,
}

#[derive(Deserialize)]
struct Chassis {
    #[serde(default)]
    name: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    value: String,
}

/// Reads the output of [`LISTINGS`].
fn parse(output: &[u8], ports: &BTreeSet<String>) -> BTreeMap<String, Learned> {
    let mut parts = parts(output);
    let [leases, fdb, neighbours, routes, lldp] =
        std::array::from_fn(|_| parts.next().unwrap_or_default());
    let mut table = Table {
        ports,
        learned: BTreeMap::new(),
        at: BTreeMap::new(),
    };
    for entry in list::<FdbEntry>(fdb) {
        // `permanent` are those of the leaf itself.
        if entry.state != "permanent"
            && let Some(mac) = mac(&entry.mac)
        {
            table.saw_mac(&entry.ifname, mac);
        }
    }
    for entry in list::<Neighbour>(neighbours) {
        // Without a MAC address nobody has answered.
        if let Some(mac) = mac(&entry.lladdr) {
            table.saw_mac(&entry.dev, mac);
            table.saw_address_of(mac, entry.dst);
        }
    }
    for (mac, address) in leased(leases) {
        table.saw_address_of(mac, address.into());
    }
    for route in list::<BgpRoute>(routes) {
        // iproute2 writes only a host route without the length of its prefix.
        if let Ok(address) = route.dst.parse() {
            table.saw_address(port_of(&route.dev), address);
        }
    }
    let lldp = serde_json::from_slice::<Lldp>(lldp).map_or(Vec::new(), |lldp| lldp.lldp);
    for interface in lldp.into_iter().flat_map(|part| part.interface) {
        let mut names = interface.chassis.into_iter().flat_map(|it| it.name);
        if let Some(Named { value }) = names.next() {
            table.heard_name(&interface.name, &value);
        }
    }
    table.learned
}

fn parts(output: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(output);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut windows = text.windows(BETWEEN.len());
        let Some(at) = windows.position(|window| window == BETWEEN) else {
            rest = None;
            return Some(text);
        };
        rest = Some(&text[at + BETWEEN.len()..]);
        Some(&text[..at])
    })
}

/// The entries of a JSON list that are as they should be.
fn list<T: DeserializeOwned>(json: &[u8]) -> Vec<T> {
    let entries = serde_json::from_slice::<Vec<serde_json::Value>>(json).unwrap_or_default();
    let entries = entries.into_iter();
    entries
        .filter_map(|entry| serde_json::from_value(entry).ok())
        .collect()
}

/// The lines of dnsmasq's lease file: time of expiry, MAC address, address, name, client id.
fn leased(leases: &[u8]) -> Vec<(Mac, Ipv4Addr)> {
    let text = String::from_utf8_lossy(leases);
    let lease = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        Some((mac(words.next()?)?, words.next()?.parse().ok()?))
    };
    text.lines().filter_map(lease).collect()
}

/// A unicast MAC address.
fn mac(text: &str) -> Option<Mac> {
    let mut octets = [0; 6];
    let mut words = text.split(':');
    for octet in &mut octets {
        let is_octet =
            |word: &&str| word.len() == 2 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let word = words.next().filter(is_octet)?;
        *octet = u8::from_str_radix(word, 16).ok()?;
    }
    let unicast = octets[0] & 1 == 0 && octets != [0; 6];
    (words.next().is_none() && unicast).then_some(Mac(octets))
}

/// The port of an interface, which may be a VLAN of the port: `ens6` of `ens6.10`.
fn port_of(interface: &str) -> &str {
    interface
        .split_once('.')
        .map_or(interface, |(port, _)| port)
}

struct Table<'p> {
    ports: &'p BTreeSet<String>,
    learned: BTreeMap<String, Learned>,
    /// Where each MAC address is.
    at: BTreeMap<Mac, String>,
}

impl Table<'_> {
    fn port(&mut self, port: &str) -> Option<&mut Learned> {
        self.ports
            .contains(port)
            .then(|| self.learned.entry(port.to_owned()).or_default())
    }

    fn saw_mac(&mut self, interface: &str, mac: Mac) {
        let port = port_of(interface);
        if let Some(learned) = self.port(port)
            && (learned.macs.contains(&mac) || learned.macs.len() < MOST_MACS)
        {
            learned.macs.insert(mac);
            self.at.insert(mac, port.to_owned());
        }
    }

    fn saw_address_of(&mut self, mac: Mac, address: IpAddr) {
        if let Some(port) = self.at.get(&mac).cloned() {
            self.saw_address(&port, address);
        }
    }

    fn saw_address(&mut self, port: &str, address: IpAddr) {
        if let Some(learned) = self.port(port)
            && learned.addresses.len() < MOST_ADDRESSES
        {
            learned.addresses.insert(address);
        }
    }

    fn heard_name(&mut self, port: &str, name: &str) {
        if let Some(learned) = self.port(port)
            && !name.is_empty()
        {
            learned.name = Some(printable::head(name.as_bytes(), LONGEST_NAME));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ports() -> BTreeSet<String> {
        ["ens6", "ens7"].map(String::from).into()
    }

    fn output(parts: [&str; 5]) -> Vec<u8> {
        parts.join("\n==\n").into_bytes()
    }

    const LEASES: &str =
        "1764600000 08:00:27:06:00:31 192.168.98.13 * 01:08:00:27:06:00:31\nduid 00:01\n";
    const FDB: &str = r#"[{"mac":"08:00:27:06:00:31","ifname":"ens6","master":"brikv","flags":[],"state":""},
        {"mac":"08:00:27:06:ac:11","ifname":"ens6","master":"brikv","flags":[],"state":"permanent"},
        {"mac":"33:33:00:00:00:01","ifname":"ens7","flags":["self"],"state":"permanent"},
        {"mac":"08:00:27:06:00:41","ifname":"ens7.11","master":"brvlan11","flags":[],"state":""},
        {"mac":"08:00:27:06:00:99","ifname":"ens4","flags":[],"state":""}]"#;
    const NEIGHBOURS: &str = r#"[{"dst":"192.168.98.77","dev":"brikv","lladdr":"08:00:27:06:00:31","state":["STALE"]},
        {"dst":"192.168.98.78","dev":"brikv","state":["FAILED"]},
        {"dst":"fe80::a00:27ff:fe06:32","dev":"ens7.10","lladdr":"08:00:27:06:00:32","router":null,"state":["REACHABLE"]},
        {"dst":"no address","dev":"ens7"}]"#;
    const ROUTES: &str = r#"[{"dst":"default","gateway":"10.0.0.1","dev":"ens7"},
        {"dst":"10.9.8.7","via":{"family":"inet6","host":"fe80::1"},"dev":"ens7","metric":20,"flags":[]},
        {"dst":"10.9.0.0/16","via":{"family":"inet6","host":"fe80::1"},"dev":"ens7","flags":[]},
        {"dst":"10.0.0.5","flags":[],"nexthops":[{"dev":"ens4"},{"dev":"ens5"}]}]"#;
    const LLDP: &str = r#"{"lldp":[{"interface":[
        {"name":"ens6","via":"LLDP","chassis":[{"id":[{"type":"mac","value":"x"}],"name":[{"value":"web1"}]}]},
        {"name":"ens4","via":"LLDP","chassis":[{"name":[{"value":"spine1"}]}]}]}]}"#;

    #[test]
    fn every_listing_adds_what_it_knows_of_a_port() {
        let learned = parse(&output([LEASES, FDB, NEIGHBOURS, ROUTES, LLDP]), &ports());
        let shown = learned.iter().map(|(port, it)| {
            let macs: Vec<_> = it.macs.iter().map(ToString::to_string).collect();
            let addresses: Vec<_> = it.addresses.iter().map(ToString::to_string).collect();
            format!("{port}: {macs:?} {addresses:?} {:?}\n", it.name)
        });
        insta::assert_snapshot!(shown.collect::<String>(), @r#"
        ens6: ["08:00:27:06:00:31"] ["192.168.98.13", "192.168.98.77"] Some("web1")
        ens7: ["08:00:27:06:00:32", "08:00:27:06:00:41"] ["10.9.8.7", "fe80::a00:27ff:fe06:32"] None
        "#);
    }

    #[test]
    fn a_listing_that_failed_leaves_the_others() {
        let learned = parse(&output([LEASES, FDB, "", "no JSON", "{}"]), &ports());
        let addresses = &learned["ens6"].addresses;
        assert_eq!(addresses.len(), 1, "{addresses:?}");
        assert_eq!(parse(b"", &ports()), BTreeMap::new());
    }

    #[test]
    fn a_hostile_name_is_escaped_and_cut() {
        let name = format!("\\u001b]0;owned\\u0007\\u202e{}", "a".repeat(10_000));
        let lldp = format!(
            r#"{{"lldp":[{{"interface":[{{"name":"ens6","chassis":[{{"name":[{{"value":"{name}"}}]}}]}}]}}]}}"#
        );
        let learned = parse(&output(["", "", "", "", &lldp]), &ports());
        let name = learned["ens6"].name.as_deref().unwrap();
        assert!(
            name.starts_with("\\u{1b}]0;owned\\u{7}\\u{202e}aaa"),
            "{name}"
        );
        assert!(name.len() < 100, "{name}");
    }

    #[test]
    fn a_server_that_claims_everything_fills_no_more_than_its_own_port() {
        let many = |entry: &dyn Fn(u32) -> String| {
            let entries: Vec<_> = (0..5000).map(entry).collect();
            format!("[{}]", entries.join(","))
        };
        let mac = |n: u32| format!("02:00:00:00:{:02x}:{:02x}", n / 256, n % 256);
        let fdb = many(&|n| format!(r#"{{"mac":"{}","ifname":"ens6","state":""}}"#, mac(n)));
        let neighbours = many(&|n| {
            let (high, low) = (n / 256, n % 256);
            format!(
                r#"{{"dst":"10.1.{high}.{low}","dev":"brikv","lladdr":"{}"}}"#,
                mac(n % 4)
            )
        });
        let learned = parse(&output(["", &fdb, &neighbours, "", ""]), &ports());
        assert_eq!(learned.keys().collect::<Vec<_>>(), ["ens6"]);
        let Learned {
            macs, addresses, ..
        } = &learned["ens6"];
        assert_eq!((macs.len(), addresses.len()), (MOST_MACS, MOST_ADDRESSES));
    }

    #[test]
    fn only_what_is_a_unicast_mac_address_counts() {
        for bad in [
            "",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "+2:00:00:00:00:01",
            "02:00:00:00:00:01\u{1b}",
        ] {
            assert_eq!(mac(bad), None, "{bad}");
        }
        assert_eq!(mac("0A:0b:00:00:00:01"), Some(Mac([10, 11, 0, 0, 0, 1])));
    }

    proptest! {
        #[test]
        fn any_output_is_read_to_its_end(output: Vec<u8>) {
            parse(&output, &ports());
        }
    }
}
