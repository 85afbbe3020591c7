//! BGP sessions, routes and reachability.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ikv_tests::patience::{ensure, until};
use ikv_tests::{Cli, HOST_OUTSIDE, OUTSIDE};
use serde_json::Value;

use super::facts::{self, SWITCHES};
use super::lab::Up;

/// Limit for one TCP connection through the fabric.
const CONNECT: Duration = Duration::from_secs(5);

/// The peers, by interface or address, whose IPv4 session is established.
pub(crate) fn established(summary: &Value) -> BTreeSet<String> {
    let peers = summary["ipv4Unicast"]["peers"].as_object();
    let peers = peers.into_iter().flatten();
    let up = peers.filter(|(_, peer)| peer["state"] == "Established");
    up.map(|(name, _)| name.clone()).collect()
}

pub(crate) fn summary(cli: &Cli, node: &str) -> Value {
    cli.vtysh(node, "show bgp summary")
}

pub(crate) fn sessions(up: &mut Up) {
    for node in SWITCHES {
        let summary = summary(&up.cli, node);
        let between_switches: BTreeSet<_> = facts::switch_cables()
            .into_iter()
            .flatten()
            .filter(|(name, _)| name == node)
            .map(|(_, port)| facts::nic(port))
            .collect();
        assert_eq!(between_switches.len(), facts::sessions(node));
        // The server may have booted and have sessions, too.
        let established = established(&summary);
        assert!(
            established.is_superset(&between_switches),
            "{node}: {summary}"
        );
    }
}

pub(crate) fn pings(up: &mut Up) {
    let mut targets: Vec<_> = facts::loopbacks().iter().map(ToString::to_string).collect();
    targets.push(OUTSIDE.to_string());
    let mut argv = vec!["fping", "-r", "3", "-t", "1000"];
    argv.extend(targets.iter().map(String::as_str));
    for node in SWITCHES {
        let said = up.cli.run(&[&["exec", node, "--"], &argv[..]].concat());
        let alive = said
            .stdout
            .lines()
            .filter(|line| line.ends_with("is alive"));
        assert_eq!(
            (said.code, alive.count()),
            (Some(0), targets.len()),
            "{node}: {said:#?}"
        );
    }
}

/// A TCP server outside answers with the address that it sees.
pub(crate) fn snat(up: &mut Up) {
    let outside = &up.fabric.site.outside;
    let listener = outside.enter(|| TcpListener::bind((OUTSIDE, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let callers = ["internet", "spine2", "leaf6"];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in callers {
                let (mut stream, peer) = listener.accept().unwrap();
                write!(stream, "{}", peer.ip()).unwrap();
            }
        });
        for node in callers {
            let script = format!("exec 3<>/dev/tcp/{OUTSIDE}/{port} && cat <&3");
            // After a failed connection the server would wait for another one: this one ends it.
            let said = up.cli.run(&["exec", node, "--", "bash", "-c", &script]);
            if said.code != Some(0) {
                let _ = outside.enter(|| TcpStream::connect((OUTSIDE, port)));
            }
            assert_eq!(said.stdout, HOST_OUTSIDE.to_string(), "{node}: {said:?}");
        }
    });
}

/// Whether a TCP connection reaches the address. A refusal shows it as well, and costs the guest no
/// resources.
pub(crate) fn answers(address: impl Into<IpAddr>) -> Result<(), String> {
    // Nothing listens on the discard port.
    match TcpStream::connect_timeout(&SocketAddr::new(address.into(), 9), CONNECT) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionRefused => {
            Err(error.to_string())
        }
        _ => Ok(()),
    }
}

/// Waits until eight connections in a row from the host reach the address. Each has its own port,
/// so that they take all equal paths.
pub(crate) fn host_reaches(up: &Up, address: [u8; 4], limit: Duration) {
    let address = Ipv4Addr::from(address);
    up.fabric.site.host.enter(|| {
        until(&format!("the host reaches {address}"), limit, || {
            (0..8).try_for_each(|_| answers(address))
        });
    });
}

pub(crate) fn host_reaches_loopbacks(up: &mut Up) {
    up.fabric.site.host.enter(|| {
        for address in facts::loopbacks() {
            let mut ssh = TcpStream::connect_timeout(&(address, 22).into(), CONNECT).unwrap();
            ssh.set_read_timeout(Some(CONNECT * 4)).unwrap();
            let mut banner = [0; 8];
            ssh.read_exact(&mut banner).unwrap();
            assert_eq!(&banner, b"SSH-2.0-", "{address}");
        }
    });
}

/// The interfaces of a switch's equal paths to an address.
pub(crate) fn paths(cli: &Cli, node: &str, to: Ipv4Addr) -> BTreeSet<String> {
    let routes = cli.exec_json(node, &["ip", "-j", "route"]);
    paths_in(&routes, to)
}

fn paths_in(routes: &Value, to: Ipv4Addr) -> BTreeSet<String> {
    let to = to.to_string();
    let routes = routes.as_array().unwrap();
    let Some(route) = routes.iter().find(|route| route["dst"] == to.as_str()) else {
        return BTreeSet::new();
    };
    let hops = match route["nexthops"].as_array() {
        Some(hops) => hops.clone(),
        None => vec![route.clone()],
    };
    let device = |hop: &Value| hop["dev"].as_str().map(Into::into);
    hops.iter().filter_map(device).collect()
}

/// Every leaf has two equal paths to each leaf of another rack, one over each spine.
pub(crate) fn equal_paths(up: &mut Up) {
    let both = BTreeSet::from([facts::nic(1), facts::nic(2)]);
    for from in 1..=6 {
        let node = format!("leaf{from}");
        until(
            &format!("{node}'s equal paths"),
            Duration::from_secs(10),
            || {
                let routes = up.cli.exec_json(&node, &["ip", "-j", "route"]);
                (1..=6)
                    .filter(|to| (to - 1) / 2 != (from - 1) / 2)
                    .try_for_each(|to| {
                        let found = paths_in(&routes, facts::loopback(2 + to));
                        ensure(found == both, || format!("to leaf{to} over {found:?}"))
                    })
            },
        );
    }
}
