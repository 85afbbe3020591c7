//! What passes between the fabric, its host and the host's neighbours. A machine in the place of
//! `internet` stands for every guest: it has addresses within the range, and any others it likes.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use etherparse::PacketBuilder;

use ikv_tests::panel::{PanelFabric, PanelHost};
use ikv_tests::patience::{SOON, ensure, until};

use ikv_tests::{Answer, NamespaceGuest, Netns, Station, have_root, ikv_fabric};

/// The host's address on the host link, in its LAN, and in a network apart from that.
const ON_LINK: Ipv4Addr = Ipv4Addr::new(192, 168, 96, 1);
const IN_LAN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const IN_LAB: Ipv4Addr = Ipv4Addr::new(10, 44, 0, 1);

/// A neighbour in the LAN, and a machine in the other network.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const LAB: Ipv4Addr = Ipv4Addr::new(10, 44, 0, 2);

/// The guest's addresses on the link and as a server of a rack has it.
const INTERNET: Ipv4Addr = Ipv4Addr::new(192, 168, 96, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 110, 77);

/// An address outside the range that the host would look for in its LAN.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// The owner's uid; the machine need not have that account.
const USER: &str = "54321";

const HOST_MAC: [u8; 6] = [0x00, 0x22, 0x22, 0xdd, 0xee, 0x01];
const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

/// How long an answer may take that is not to come. The same question has been answered before.
const SILENCE: Duration = Duration::from_millis(400);

/// A host between two networks that have nothing to do with each other.
struct Place {
    host: PanelHost,
    neighbour: Netns,
    lab: Netns,
}

impl Place {
    fn new(label: &str) -> Self {
        let place = Place {
            host: PanelHost::new(label),
            neighbour: Netns::new(&format!("{label}-lan")),
            lab: Netns::new(&format!("{label}-lab")),
        };
        for (netns, link, host, there) in [
            (&place.neighbour, "lan", IN_LAN, NEIGHBOUR),
            (&place.lab, "lab", IN_LAB, LAB),
        ] {
            let own = &place.host.netns;
            own.ip(&format!(
                "link add {link} type veth peer name home netns {}",
                netns.name()
            ));
            own.ip(&format!("address add {host}/24 dev {link}"));
            // A link-local address would appear at an unpredictable time.
            own.ip(&format!("link set {link} addrgenmode none up"));
            netns.ip(&format!("address add {there}/24 dev home"));
            netns.ip("link set home up");
            // Whoever wants may ask the host to forward.
            netns.ip(&format!("route add default via {host}"));
        }
        place
            .host
            .netns
            .ip(&format!("route add default via {NEIGHBOUR}"));
        place
    }

    fn run(&self, options: &[&str]) -> (PanelFabric<'_>, NamespaceGuest) {
        let fabric = self.host.run(options);
        let guest = self.guest();
        (fabric, guest)
    }

    fn guest(&self) -> NamespaceGuest {
        let guest = NamespaceGuest::plug(&self.host.netns, "ikht");
        guest
            .netns
            .ip(&format!("address add {INTERNET}/24 dev eth0"));
        guest.netns.ip(&format!("address add {SERVER}/32 dev lo"));
        guest.netns.ip(&format!("route add default via {ON_LINK}"));
        until("the host link", SOON, || {
            ensure(pings(&guest.netns, ON_LINK), || "no echo".into())
        });
        guest
    }

    fn apply(&self, keys: &[&str]) {
        let sets = keys.iter().map(|key| format!("--set=host.{key}"));
        let sets: Vec<_> = sets.collect();
        let mut words = vec!["apply"];
        words.extend(sets.iter().map(String::as_str));
        let answer = self.host.ask(&words);
        assert_eq!(answer.code, Some(0), "{answer:?}");
    }
}

fn pings(from: &Netns, to: impl Into<IpAddr>) -> bool {
    let mut ping = from.command("ping");
    ping.args(["-c", "1", "-W", "1", &to.into().to_string()]);
    ping.output().unwrap().status.success()
}

/// A TCP server that tells everyone the address it sees them under, until the test's process ends.
fn serve(on: &Netns, at: &str) {
    let listener = on.enter(|| TcpListener::bind(at).unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            // Who has hung up has not asked.
            let _ = write!(stream, "{}", peer.ip());
        }
    });
}

/// The address under which the server at `to` sees a client; `None` if it does not answer.
fn seen_as(from: &Netns, to: IpAddr, port: u16, limit: Duration) -> Option<IpAddr> {
    from.enter(|| {
        let to = SocketAddr::from((to, port));
        let mut stream = TcpStream::connect_timeout(&to, limit).ok()?;
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut seen = String::new();
        stream.read_to_string(&mut seen).unwrap();
        Some(seen.parse().unwrap())
    })
}

#[track_caller]
fn reaches(from: &Netns, to: impl Into<IpAddr>, port: u16) -> IpAddr {
    let to = to.into();
    until(&format!("{to}:{port} to answer"), SOON, || {
        seen_as(from, to, port, Duration::from_secs(2)).ok_or("it does not".into())
    })
}

#[track_caller]
fn does_not_reach(from: &Netns, to: impl Into<IpAddr>, port: u16) {
    let to = to.into();
    assert_eq!(seen_as(from, to, port, SILENCE), None, "{to}:{port}");
}

#[test]
fn a_guest_reaches_of_the_host_what_is_allowed() {
    if !have_root() {
        return;
    }
    let place = Place::new("reach");
    let before = place.host.state();
    let host = &place.host.netns;
    let (fabric, guest) = place.run(&[]);
    let guest = &guest.netns;
    serve(host, "0.0.0.0:2222");
    serve(host, &format!("{IN_LAN}:3333"));
    serve(guest, "0.0.0.0:80");
    serve(&place.neighbour, "0.0.0.0:80");

    // The host reaches the guest and gets answers, everyone's pings are answered, the world is there.
    assert_eq!(reaches(host, SERVER, 80), IpAddr::V4(ON_LINK));
    assert!(pings(guest, IN_LAN) && pings(guest, IN_LAB));
    assert_eq!(reaches(guest, NEIGHBOUR, 80), IpAddr::V4(IN_LAN));
    for address in [ON_LINK, IN_LAN, IN_LAB] {
        reaches(host, address, 2222);
        does_not_reach(guest, address, 2222);
    }
    does_not_reach(guest, IN_LAN, 3333);
    // What the host answers to others is its own business.
    reaches(&place.neighbour, IN_LAN, 2222);

    place.apply(&[r#"allow=["tcp/2222"]"#]);
    for address in [ON_LINK, IN_LAN, IN_LAB] {
        reaches(guest, address, 2222);
    }
    does_not_reach(guest, IN_LAN, 3333);
    let udp = host.enter(|| UdpSocket::bind("0.0.0.0:2222").unwrap());
    udp.set_read_timeout(Some(SILENCE)).unwrap();
    let asks = guest.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    asks.send_to(b"?", (ON_LINK, 2222)).unwrap();
    assert!(udp.recv(&mut [0; 9]).is_err(), "TCP was allowed");
    place.apply(&[r#"allow=["udp/2222"]"#]);
    asks.send_to(b"?", (ON_LINK, 2222)).unwrap();
    udp.set_read_timeout(Some(SOON)).unwrap();
    udp.recv(&mut [0; 9]).unwrap();
    does_not_reach(guest, ON_LINK, 2222);

    place.apply(&["open=true"]);
    reaches(guest, IN_LAN, 3333);
    place.apply(&["open=false"]);
    does_not_reach(guest, IN_LAN, 3333);
    fabric.end();
    before.assert_unchanged(&place.host.state(), "it ended");
}

#[test]
fn ipv6_reaches_of_the_host_what_is_allowed_too() {
    if !have_root() {
        return;
    }
    let place = Place::new("reach6");
    let host = &place.host.netns;
    let (fabric, guest) = place.run(&["--set", "host.ipv6_forwarding=true"]);
    let guest = &guest.netns;
    let [own, theirs] = [1, 2].map(|last| Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, last));
    host.ip(&format!("address add {own}/64 dev ikhn nodad"));
    guest.ip(&format!("address add {theirs}/64 dev eth0 nodad"));
    serve(host, "[::]:2222");
    serve(guest, "[::]:80");
    // Each finds the other's address, in either direction.
    reaches(host, theirs, 80);
    guest.ip("neigh flush dev eth0");
    assert!(pings(guest, own));
    does_not_reach(guest, own, 2222);
    place.apply(&["ipv6_forwarding=true", r#"allow=["tcp/2222"]"#]);
    reaches(guest, own, 2222);
    fabric.end();
}

/// Counts what comes to the neighbour from the host under another address than the host's.
fn count_unmasked(neighbour: &Netns) {
    neighbour.run("nft add table ip count");
    neighbour.run("nft add chain ip count in { type filter hook prerouting priority -300 ; }");
    let rule = format!("nft add rule ip count in iifname home ip saddr != {IN_LAN} counter");
    neighbour.run(&rule);
}

fn unmasked(neighbour: &Netns) -> u64 {
    let rules = neighbour.run("nft -j list table ip count");
    let rules: serde_json::Value = serde_json::from_str(&rules).unwrap();
    let mut counters = rules["nftables"].as_array().unwrap().iter();
    let of_rule = |item: &serde_json::Value| {
        let mut parts = item["rule"]["expr"].as_array()?.iter();
        parts.find_map(|part| part["counter"]["packets"].as_u64())
    };
    counters.find_map(of_rule).unwrap()
}

#[test]
fn nothing_leaves_under_an_address_of_others() {
    if !have_root() {
        return;
    }
    let place = Place::new("source");
    // A host whose own check is loose: only ours is left.
    place
        .host
        .netns
        .run("sysctl -qw net.ipv4.conf.all.rp_filter=0");
    count_unmasked(&place.neighbour);
    let fabric = place.host.run(&[]);
    let station = Station::plug(&place.host.netns, "ikht", GUEST_MAC);
    let there = place
        .neighbour
        .enter(|| UdpSocket::bind((NEIGHBOUR, 9)).unwrap());
    there
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let udp = |from: Ipv4Addr| {
        let packet = PacketBuilder::ethernet2(GUEST_MAC, HOST_MAC)
            .ipv4(from.octets(), NEIGHBOUR.octets(), 64)
            .udp(4711, 9);
        let mut frame = Vec::new();
        packet.write(&mut frame, &from.octets()).unwrap();
        station.send(&frame);
    };
    // The packets take one path in order: when the last has come, so have all that come at all.
    let last_comes = |from: Ipv4Addr| {
        let mut came = Vec::new();
        until("a packet to leave", SOON, || {
            udp(from);
            let mut who = [0; 4];
            while let Ok((4, peer)) = there.recv_from(&mut who) {
                came.push((Ipv4Addr::from(who), peer.ip()));
            }
            let arrived = came.iter().any(|(who, _)| *who == from);
            ensure(arrived, || "it has not".into())
        });
        came.retain(|(who, _)| *who != from);
        came
    };
    assert_eq!(last_comes(SERVER), []);
    // The last is an address that the host itself has towards the neighbour.
    for spoofed in [FOREIGN, LAB, NEIGHBOUR, IN_LAN, ON_LINK] {
        udp(spoofed);
    }
    // The end of a connection that there is not: no connection, no NAT.
    let reset = PacketBuilder::ethernet2(GUEST_MAC, HOST_MAC)
        .ipv4(SERVER.octets(), NEIGHBOUR.octets(), 64)
        .tcp(4711, 9, 1, 1024)
        .rst();
    let mut frame = Vec::new();
    reset.write(&mut frame, &[]).unwrap();
    station.send(&frame);
    assert_eq!(last_comes(INTERNET), []);
    assert_eq!(unmasked(&place.neighbour), 0);

    // As it was before: what is foreign leaves as it came, and so does what has no connection.
    place.apply(&["open=true"]);
    udp(FOREIGN);
    station.send(&frame);
    let came = last_comes(SERVER);
    assert_eq!(came, [(FOREIGN, IpAddr::V4(FOREIGN))]);
    assert_eq!(unmasked(&place.neighbour), 2);
    fabric.end();
}

#[test]
fn neighbours_reach_in_only_if_they_may() {
    if !have_root() {
        return;
    }
    let place = Place::new("inward");
    let (fabric, guest) = place.run(&[]);
    serve(&guest.netns, "0.0.0.0:80");
    reaches(&place.host.netns, SERVER, 80);
    for from in [&place.neighbour, &place.lab] {
        does_not_reach(from, SERVER, 80);
        assert!(!pings(from, SERVER));
    }
    place.apply(&[r#"reachable_from=["10.0.0.0/8"]"#]);
    assert_eq!(reaches(&place.lab, SERVER, 80), IpAddr::V4(LAB));
    does_not_reach(&place.neighbour, SERVER, 80);
    place.apply(&[r#"reachable_from=["0.0.0.0/0"]"#]);
    reaches(&place.neighbour, SERVER, 80);
    // What was set stays until it is said otherwise.
    place.apply(&["open=false"]);
    reaches(&place.neighbour, SERVER, 80);
    place.apply(&["reachable_from=[]"]);
    does_not_reach(&place.neighbour, SERVER, 80);
    place.apply(&["open=true"]);
    reaches(&place.neighbour, SERVER, 80);
    fabric.end();
}

#[test]
fn the_hosts_other_networks_stay_apart() {
    if !have_root() {
        return;
    }
    let place = Place::new("apart");
    let host = &place.host.netns;
    for netns in [&place.neighbour, &place.lab] {
        serve(netns, "0.0.0.0:80");
    }
    let (fabric, guest) = place.run(&[]);
    assert_eq!(host.run("sysctl -n net.ipv4.ip_forward").trim(), "1");
    // The guest reaches both, so the host does forward.
    reaches(&guest.netns, LAB, 80);
    reaches(&guest.netns, NEIGHBOUR, 80);
    does_not_reach(&place.neighbour, LAB, 80);
    does_not_reach(&place.lab, NEIGHBOUR, 80);
    // The rules that a change makes know it still.
    place.apply(&[r#"allow=["tcp/22"]"#]);
    does_not_reach(&place.neighbour, LAB, 80);
    place.apply(&["open=true"]);
    reaches(&place.neighbour, LAB, 80);
    drop(guest);
    fabric.end();

    // A host that forwarded before, on one device or altogether, does so still.
    does_not_reach(&place.neighbour, LAB, 80);
    // Forwarding takes the answers' device as well.
    host.run("sysctl -qw net.ipv4.conf.lan.forwarding=1 net.ipv4.conf.lab.forwarding=1");
    let fabric = place.host.run(&[]);
    reaches(&place.neighbour, LAB, 80);
    fabric.end();
    host.run("sysctl -qw net.ipv4.ip_forward=1");
    let fabric = place.host.run(&[]);
    reaches(&place.neighbour, LAB, 80);
    fabric.end();
}

/// Frames within a bridge pass the rules for forwarding, too, where br_netfilter is loaded.
#[test]
fn a_bridge_of_the_host_works_as_before() {
    if !have_root() {
        return;
    }
    let place = Place::new("bridged");
    let host = &place.host.netns;
    host.ip("link add br0 type bridge");
    host.ip("link set br0 up");
    let ends = ["one", "two"].map(|label| Netns::new(&format!("bridged-{label}")));
    for (number, end) in ends.iter().enumerate() {
        host.ip(&format!(
            "link add p{number} type veth peer name eth0 netns {}",
            end.name()
        ));
        host.ip(&format!("link set p{number} master br0 up"));
        end.ip(&format!("address add 10.55.0.{}/24 dev eth0", number + 1));
        end.ip("link set eth0 up");
    }
    let there = Ipv4Addr::new(10, 55, 0, 2);
    serve(&ends[1], "0.0.0.0:80");
    reaches(&ends[0], there, 80);
    let fabric = place.host.run(&["--set", "host.open=true"]);
    reaches(&ends[0], there, 80);
    place.apply(&["open=false"]);
    reaches(&ends[0], there, 80);
    fabric.end();
}

#[test]
fn only_root_opens_the_host_and_check_says_who_reaches_it() {
    if !have_root() {
        return;
    }
    let place = Place::new("who");
    let check = |options: &[&str]| {
        let words = [&["check", "--switches", "none"], options].concat();
        place.host.ask(&words).stdout
    };
    let said = check(&["--set", r#"host.allow=["tcp/22"]"#]);
    let wanted = "· as [host] has it, guests reach tcp/22 of the host, and none of its neighbours \
                  reaches the fabric\n";
    assert!(said.contains(wanted), "{said}");
    let said = check(&["--set", "host.open=true"]);
    assert!(
        said.contains("! host.open = true: guests reach every service"),
        "{said}"
    );
    // The rules that a fabric of ours has made are no obstacle to it.
    let owner = format!("owner={USER}");
    let fabric = place.host.run(&["--set", &owner]);
    let said = check(&[]);
    assert!(!said.contains("the firewall drops"), "{said}");
    // The owner rules the fabric, not the host.
    let mut apply = place.host.netns.command("setpriv");
    apply
        .args(["--reuid", USER, "--regid", USER, "--clear-groups"])
        .arg(ikv_fabric())
        .arg("--socket")
        .arg(place.host.socket())
        .args(["apply", "--set", &owner, "--set", "host.open=true"]);
    let refused = Answer::of(&mut apply);
    let needs = "needs root, because it decides who reaches the host";
    assert!(refused.stderr.contains(needs), "{refused:?}");
    fabric.end();
}
