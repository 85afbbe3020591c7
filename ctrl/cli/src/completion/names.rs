//! Names of the running fabric, for completion. Without a fabric there are none, and nothing is said.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use api::{Client, ClientError, Position, default_socket};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use model::topology::TopologyJson;

/// How long a fabric may take to answer. With the rest of a Tab that is less than a second.
const LIMIT: Duration = Duration::from_millis(800);

/// The most names that are offered, and characters of one.
const MOST: usize = 5000;
const LONGEST: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Switch,
    Cable,
    Port,
    Place,
    Position,
}

/// Completes a switch: `leaf1`.
pub(crate) fn switch_names() -> ArgValueCompleter {
    completer(Kind::Switch)
}

/// Completes a cable, by every name that it has, or whose cables are meant: `iksb12`, `spine1:2`, `rack1`.
pub(crate) fn cable_names() -> ArgValueCompleter {
    completer(Kind::Cable)
}

/// Completes an end of a cable: `ikst12`, `spine1:2`, `rack1:u3:1`.
pub(crate) fn port_names() -> ArgValueCompleter {
    completer(Kind::Port)
}

/// Completes where a VM plugs in: `rack1:u3`, `rack1:u3:1`, `ikvm1-3-1`, `ipmi`.
pub(crate) fn place_names() -> ArgValueCompleter {
    completer(Kind::Place)
}

/// Completes a position of a server: `rack1:u3`.
pub(crate) fn position_names() -> ArgValueCompleter {
    completer(Kind::Position)
}

fn completer(kind: Kind) -> ArgValueCompleter {
    ArgValueCompleter::new(move |begun: &OsStr| {
        let begun = begun.to_str().unwrap_or("\0");
        offered(&Client::new(socket(std::env::args_os())), kind, begun)
            .into_iter()
            .map(CompletionCandidate::new)
            .collect()
    })
}

/// The socket that the typed words name, or else that of every command.
fn socket(words: impl IntoIterator<Item = OsString>) -> PathBuf {
    let mut words = words.into_iter().skip_while(|word| word != "--").skip(1);
    let mut named = None;
    while let Some(word) = words.next() {
        let value = word
            .to_str()
            .and_then(|word| word.strip_prefix("--socket="));
        if word == "--" {
            break;
        } else if word == "--socket" {
            named = words.next().or(named);
        } else if let Some(value) = value {
            named = Some(value.into());
        }
    }
    named
        .map(PathBuf::from)
        .or_else(crate::socket_of_shell)
        .unwrap_or_else(default_socket)
}

/// The fabric's names of this kind that begin so.
fn offered(client: &Client, kind: Kind, begun: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return Vec::new();
    };
    let asked = async { tokio::time::timeout(LIMIT, ask(client, kind)).await };
    let names = runtime.block_on(asked).ok().and_then(Result::ok);
    // No thread of it outlives this.
    runtime.shutdown_background();
    let names = names.unwrap_or_default().into_iter();
    names
        .filter(|name| name.starts_with(begun) && is_plain(name))
        .take(MOST)
        .collect()
}

/// Whether a name means itself to every shell and is no option. A fabric has no other names: such a one comes
/// from whoever listens in its place.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
    name.len() <= LONGEST
        && !name.starts_with(['-', ':'])
        && !name.is_empty()
        && name.bytes().all(plain)
}

async fn ask(client: &Client, kind: Kind) -> Result<BTreeSet<String>, ClientError> {
    let Ok(topology) = client.topology().await else {
        // `patch` has cables, and neither switches nor racks.
        return match kind {
            Kind::Cable | Kind::Port => of_cables(client, kind).await,
            Kind::Switch | Kind::Place | Kind::Position => Ok(BTreeSet::new()),
        };
    };
    let mut names = BTreeSet::new();
    if kind == Kind::Switch {
        names.extend(switches(&topology));
        return Ok(names);
    }
    let positions = client.positions().await?.places;
    match kind {
        Kind::Switch => {}
        Kind::Cable => {
            names.extend(topology.cables.iter().map(|cable| cable.name.clone()));
            names.extend(switches(&topology));
            names.extend(positions.iter().map(|it| format!("rack{}", it.rack)));
            names.extend(positions.iter().map(Position::rack_and_u));
            names.extend(ports(&topology, &positions));
        }
        Kind::Port => names.extend(ports(&topology, &positions)),
        Kind::Place => {
            names.extend(positions.iter().flat_map(nics));
            names.extend(positions.iter().map(Position::rack_and_u));
            if client.ipmi().await.is_ok() {
                names.insert("ipmi".into());
            }
        }
        Kind::Position => names.extend(positions.iter().map(Position::rack_and_u)),
    }
    Ok(names)
}

async fn of_cables(client: &Client, kind: Kind) -> Result<BTreeSet<String>, ClientError> {
    let mut names = BTreeSet::new();
    for cable in client.cables(&[]).await? {
        let [there, back] = cable.lanes;
        names.extend([there.from, back.from]);
        if kind == Kind::Cable {
            names.insert(cable.name);
        }
    }
    Ok(names)
}

fn switches(topology: &TopologyJson) -> impl Iterator<Item = String> {
    topology.nodes.iter().map(|node| node.name.clone())
}

/// Every end of a cable, by name and by alias.
fn ports(topology: &TopologyJson, positions: &[Position]) -> Vec<String> {
    let taps = topology.cables.iter();
    let taps = taps.flat_map(|cable| [cable.a.clone(), cable.b.clone()]);
    let of_switches = topology.nodes.iter().flat_map(|node| &node.ports);
    let of_switches = of_switches.map(|port| port.alias.clone());
    let of_servers = positions.iter().flat_map(nics);
    taps.chain(of_switches).chain(of_servers).collect()
}

/// A server's NIC, by alias and by name.
fn nics(position: &Position) -> [String; 2] {
    let alias = format!("{}:{}", position.rack_and_u(), position.nic);
    [alias, position.name.clone()]
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    use super::*;

    fn client(folder: &tempfile::TempDir) -> Client {
        Client::new(folder.path().join("control.sock"))
    }

    #[test]
    fn without_a_fabric_there_are_no_names() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(offered(&client(&folder), Kind::Cable, ""), [""; 0]);
    }

    #[test]
    fn a_fabric_that_does_not_answer_is_given_up_within_a_second() {
        let folder = tempfile::tempdir().unwrap();
        // The kernel connects clients, and nobody serves them.
        let listener = UnixListener::bind(client(&folder).socket()).unwrap();
        let began = Instant::now();
        assert_eq!(offered(&client(&folder), Kind::Switch, ""), [""; 0]);
        assert!(
            began.elapsed() < Duration::from_secs(1) * 3 / 2,
            "{:?}",
            began.elapsed()
        );
        drop(listener);
    }

    #[test]
    fn names_that_a_shell_would_not_take_as_they_are_are_not_offered() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(client(&folder).socket()).unwrap();
        let node = |name: &str| {
            serde_json::json!({
                "name": name, "role": "leaf", "asn": 1, "loopback": "192.0.2.1", "ports": [],
            })
        };
        let long = "x".repeat(LONGEST + 1);
        let names = [
            "leaf1",
            "leaf-2",
            "$(reboot)",
            "a b",
            "-rf",
            "a\nb",
            "\u{1b}c",
            "*",
            &long,
            "",
        ];
        let nodes: Vec<_> = names.into_iter().map(node).collect();
        let body = serde_json::json!({ "nodes": nodes, "cables": [] }).to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // The head of the request, which has no body.
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .unwrap();
        });
        assert_eq!(
            offered(&client(&folder), Kind::Switch, ""),
            ["leaf-2", "leaf1"]
        );
        server.join().unwrap();
    }

    #[test]
    fn the_socket_is_the_one_in_the_line() {
        let named = |words: &[&str]| {
            let words = ["ikv-fabric", "--"].iter().chain(words);
            socket(words.map(OsString::from))
        };
        for words in [
            &["ikv-fabric", "--socket", "/tmp/a.sock", "cables"][..],
            &["ikv-fabric", "cables", "--socket=/tmp/a.sock", "spine1:"],
            &[
                "ikv-fabric",
                "--socket",
                "/tmp/a.sock",
                "exec",
                "leaf1",
                "--",
                "--socket",
                "x",
            ],
        ] {
            assert_eq!(named(words), PathBuf::from("/tmp/a.sock"), "{words:?}");
        }
    }
}
