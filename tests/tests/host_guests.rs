//! The host answers no frame of a guest on a tap, and changes that other programs make to the
//! fabric's devices and rules are noticed and undone.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dataplane::sys::tap::{self, TapFlags};
use host::execute::{HostChangeError, HostChanges, clean, execute};
use host::firewall;
use host::lock::{Lock, StatePaths};
use host::plan::plan;
use host::watch::{LinkEvent, LinkWatch};
use ikv_tests::{HostState, block_on, host_plan_input, in_namespace, leave_namespace, shell};

const LIMIT: Duration = Duration::from_secs(5);
const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

fn up(folder: &Path, taps: usize, host: bool) -> (Lock, HostChanges) {
    let lock = Lock::acquire(&StatePaths::beside(&folder.join("run/control.sock"))).unwrap();
    let applied = execute(&plan(&host_plan_input(taps, host)), &lock, |_| {}).unwrap();
    (lock, applied)
}

/// Opens a tap as QEMU does, but without the virtio-net header, to see plain frames.
fn plug(name: &str) -> File {
    let flags = TapFlags {
        nonblocking: true,
        multi_queue: false,
        ..TapFlags::default()
    };
    File::from(tap::open_tap(name, flags).unwrap())
}

/// The frames that wait at a tap.
fn received(tap: &mut File) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = vec![0; 65536];
    loop {
        match tap.read(&mut buffer) {
            Ok(length) => frames.push(buffer[..length].to_vec()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return frames,
            Err(e) => panic!("{e}"),
        }
    }
}

fn frame(to: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [to.as_slice(), &GUEST_MAC, &kind.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let bytes = parts.concat();
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn arp_request(target: [u8; 4]) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend(GUEST_MAC);
    arp.extend([10, 9, 9, 1]);
    arp.extend([0; 6]);
    arp.extend(target);
    frame([0xff; 6], 0x0806, &arp)
}

fn echo_request(to_mac: [u8; 6], to: [u8; 4]) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4];
    let sum = checksum(&[&icmp]);
    icmp[2..4].copy_from_slice(&sum);
    let mut ip = vec![0x45, 0, 0, 32, 0, 1, 0, 0, 64, 1, 0, 0];
    ip.extend([10, 9, 9, 1]);
    ip.extend(to);
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum);
    frame(to_mac, 0x0800, &[ip, icmp].concat())
}

/// ICMPv6 from fe80::1 with its checksum filled in.
fn icmpv6(to_mac: [u8; 6], to: [u8; 16], mut message: Vec<u8>) -> Vec<u8> {
    let mut from = [0; 16];
    from[..2].copy_from_slice(&[0xfe, 0x80]);
    from[15] = 1;
    let length = (message.len() as u32).to_be_bytes();
    let sum = checksum(&[&from, &to, &length, &[0, 0, 0, 58], &message]);
    message[2..4].copy_from_slice(&sum);
    let mut ip = vec![0x60, 0, 0, 0, length[2], length[3], 58, 255];
    ip.extend(from);
    ip.extend(to);
    frame(to_mac, 0x86dd, &[ip, message].concat())
}

/// One field of `ip -json link`. `/sys` would show the namespace in which it was mounted.
fn link_field(link: &str, field: &str) -> serde_json::Value {
    let links = shell(&format!("ip -json link show {link}"));
    serde_json::from_str::<serde_json::Value>(&links).unwrap()[0][field].clone()
}

fn mac_of(link: &str) -> [u8; 6] {
    let text = link_field(link, "address");
    let octets = text.as_str().unwrap().split(':');
    let octets: Vec<u8> = octets
        .map(|octet| u8::from_str_radix(octet, 16).unwrap())
        .collect();
    octets.try_into().unwrap()
}

/// Frames that a host answers on an ordinary tap, see [`an_ordinary_tap_does_answer`].
fn questions(mac: [u8; 6]) -> Vec<Vec<u8>> {
    let mut link_local = [0; 16];
    link_local[..2].copy_from_slice(&[0xfe, 0x80]);
    link_local[8..].copy_from_slice(&[
        mac[0] ^ 2,
        mac[1],
        mac[2],
        0xff,
        0xfe,
        mac[3],
        mac[4],
        mac[5],
    ]);
    let mut all_nodes = [0; 16];
    all_nodes[..2].copy_from_slice(&[0xff, 0x02]);
    all_nodes[15] = 1;
    let mut solicited = all_nodes;
    solicited[11..].copy_from_slice(&[1, 0xff, mac[3], mac[4], mac[5]]);
    let mut solicitation = vec![135, 0, 0, 0, 0, 0, 0, 0];
    solicitation.extend(link_local);
    solicitation.extend([1, 1]);
    solicitation.extend(GUEST_MAC);
    let echo = vec![128, 0, 0, 0, 0, 1, 0, 1];
    let query = vec![
        130, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    vec![
        arp_request([10, 9, 9, 9]),
        echo_request(mac, [10, 9, 9, 9]),
        echo_request([0xff; 6], [10, 9, 9, 255]),
        echo_request([1, 0, 0x5e, 0, 0, 1], [224, 0, 0, 1]),
        icmpv6(
            [0x33, 0x33, 0xff, mac[3], mac[4], mac[5]],
            solicited,
            solicitation,
        ),
        icmpv6([0x33, 0x33, 0, 0, 0, 1], all_nodes, echo.clone()),
        icmpv6(mac, link_local, echo),
        icmpv6([0x33, 0x33, 0, 0, 0, 1], all_nodes, query),
    ]
}

/// Sends the questions, then one to a tap on which the host answers. Once that answer has come, so
/// would have those to the first. Returns the answers on the first tap.
fn ask(tap: &mut File, mac: [u8; 6], witness: &mut File) -> Vec<Vec<u8>> {
    for question in questions(mac) {
        tap.write_all(&question).unwrap();
    }
    let start = Instant::now();
    loop {
        witness.write_all(&arp_request([10, 9, 8, 9])).unwrap();
        let answered = received(witness)
            .iter()
            .any(|f| f[12..14] == [8, 6] && f[21] == 2);
        if answered {
            return received(tap);
        }
        assert!(start.elapsed() < LIMIT, "no answer on the witness");
        std::thread::yield_now();
    }
}

fn witness() -> File {
    shell("ip tuntap add dev witness mode tap");
    let witness = plug("witness");
    shell("ip addr add 10.9.8.9/24 dev witness && ip link set witness up");
    witness
}

#[test]
fn the_host_answers_no_question_on_a_tap() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        // The host has addresses that a guest may ask for.
        shell(
            "ip addr add 10.9.9.9/24 dev lo && sysctl -qw net.ipv4.icmp_echo_ignore_broadcasts=0",
        );
        let mut witness = witness();
        let (lock, applied) = up(folder.path(), 2, true);
        let mut guest = plug("ikvm1-3-1");
        assert_eq!(
            ask(&mut guest, mac_of("ikvm1-3-1"), &mut witness),
            Vec::<Vec<u8>>::new()
        );
        let dropped = shell("cat /proc/net/snmp | awk '/^Icmp: [0-9]/ {print $2}'");
        assert_eq!(dropped.trim(), "0", "a message reached the host's ICMP");

        // A bridge does not get the frames either, if another program attaches the tap to it.
        shell(
            "ip link add br0 type bridge && ip link set br0 up && ip link set ikvm1-3-1 master br0",
        );
        shell("ip addr add 10.9.9.10/24 dev br0");
        for question in questions(mac_of("br0")) {
            guest.write_all(&question).unwrap();
        }
        let table = shell("bridge fdb show br br0");
        assert!(
            !table.contains("52:54:00:00:00:01"),
            "the bridge learnt the guest: {table}"
        );
        applied.undo().unwrap();
        lock.release().unwrap();
    });
}

/// Shows that the test above can fail: the host answers the same questions on an ordinary tap.
#[test]
fn an_ordinary_tap_does_answer() {
    in_namespace(|| {
        shell(
            "ip addr add 10.9.9.9/24 dev lo && sysctl -qw net.ipv4.icmp_echo_ignore_broadcasts=0",
        );
        let mut witness = witness();
        shell("ip tuntap add dev plain mode tap");
        let mut guest = plug("plain");
        shell("sysctl -qw net.ipv6.conf.plain.accept_dad=0 && ip link set plain up");
        shell("ip addr add 10.9.9.8/24 dev plain");
        let start = Instant::now();
        while !shell("ip -6 addr show dev plain").contains("fe80::") {
            assert!(start.elapsed() < LIMIT, "no link-local");
        }
        let answers = ask(&mut guest, mac_of("plain"), &mut witness);
        let kinds: Vec<[u8; 2]> = answers.iter().map(|f| [f[12], f[13]]).collect();
        assert!(kinds.contains(&[8, 6]), "ARP: {kinds:x?}");
        assert!(kinds.contains(&[0x86, 0xdd]), "IPv6: {kinds:x?}");
    });
}

#[test]
fn plugging_is_noticed_and_foreign_changes_are_undone() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let (lock, mut applied) = up(folder.path(), 2, false);
        shell("ip link add br0 type bridge && ip link set br0 up");
        block_on(async {
            let names = ["ikvm1-3-1".to_owned(), "ikvm1-3-2".to_owned()];
            let mut watch = LinkWatch::open(names).unwrap();
            let index = link_field("ikvm1-3-1", "ifindex").as_u64().unwrap() as u32;
            assert_eq!(watch.index("ikvm1-3-1"), Some(index));
            assert!(!watch.plugged("ikvm1-3-1"));
            let name = "ikvm1-3-1".to_owned();

            let guest = plug(&name);
            assert_eq!(
                next(&mut watch).await,
                LinkEvent::Plugged { name: name.clone() }
            );
            assert!(watch.plugged(&name));

            // As Debian's /etc/qemu-ifup does.
            shell("ip link set ikvm1-3-1 up && ip link set ikvm1-3-1 master br0");
            let enslaved = LinkEvent::Enslaved {
                name: name.clone(),
                master: "br0".into(),
                freed: Ok(()),
            };
            assert_eq!(next(&mut watch).await, enslaved);
            assert!(!shell("ip link show ikvm1-3-1").contains("master"));

            shell("ip link set ikvm1-3-1 down");
            let down = LinkEvent::WentDown {
                name: name.clone(),
                raised: Ok(()),
            };
            assert_eq!(next(&mut watch).await, down);
            // A device that goes down and up loses its carrier and regains it.
            let mut unplugged = LinkEvent::Unplugged { name: name.clone() };
            assert_eq!(next(&mut watch).await, unplugged);
            assert_eq!(
                next(&mut watch).await,
                LinkEvent::Plugged { name: name.clone() }
            );
            assert!(shell("ip link show ikvm1-3-1").contains("state UP"));

            drop(guest);
            assert_eq!(next(&mut watch).await, unplugged);

            shell("ip link set ikvm1-3-1 mtu 1500");
            let changed = LinkEvent::MtuChanged {
                name: name.clone(),
                mtu: 1500,
            };
            assert_eq!(next(&mut watch).await, changed);

            shell("ip link del ikvm1-3-1");
            assert_eq!(
                next(&mut watch).await,
                LinkEvent::Deleted { name: name.clone() }
            );
            applied.restore_tap(&name).unwrap();
            let LinkEvent::Created {
                name: again,
                index: new,
            } = next(&mut watch).await
            else {
                panic!("not created")
            };
            assert_eq!(again, name);
            assert_eq!(watch.index(&name), Some(new));
            let rules = shell("nft list table netdev ikv-fabric");
            assert!(rules.contains("ingress device \"ikvm1-3-1\""), "{rules}");
            let link = shell("ip -d link show ikvm1-3-1");
            assert!(link.contains("mtu 9000") && link.contains(",UP"), "{link}");

            // The new tap is guarded, too.
            let mut guest = plug(&name);
            let plugged = next(&mut watch).await;
            assert_eq!(plugged, LinkEvent::Plugged { name: name.clone() });
            shell("ip addr add 10.9.9.9/24 dev lo");
            let mac = mac_of(&name);
            assert_eq!(ask(&mut guest, mac, &mut witness()), Vec::<Vec<u8>>::new());
            unplugged = LinkEvent::Unplugged { name };
            drop(guest);
            assert_eq!(next(&mut watch).await, unplugged);
        });
        applied.undo().unwrap();
        lock.release().unwrap();
    });
}

async fn next(watch: &mut LinkWatch) -> LinkEvent {
    tokio::time::timeout(LIMIT, watch.next())
        .await
        .expect("an event in time")
        .unwrap()
}

#[test]
fn forwarding_is_restored_with_the_settings_it_changes() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        // A host that forwards on one device only and accepts no redirects.
        shell("ip link add v0 type veth peer name v1");
        shell("sysctl -qw net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.v0.forwarding=1");
        let before = HostState::of_network();
        let (lock, applied) = up(folder.path(), 1, true);
        assert_eq!(shell("sysctl -n net.ipv4.conf.v1.forwarding"), "1\n");
        applied.undo().unwrap();
        before.assert_unchanged(&HostState::of_network(), "it was undone");

        // An administrator who switches it off meanwhile wants it off.
        let applied = execute(&plan(&host_plan_input(1, true)), &lock, |_| {}).unwrap();
        shell("sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.v0.forwarding=0");
        applied.undo().unwrap();
        assert_eq!(shell("sysctl -n net.ipv4.conf.v0.forwarding"), "0\n");

        // It was on before the fabric, so it stays on.
        shell("sysctl -qw net.ipv4.ip_forward=1");
        let before = HostState::of_network();
        let applied = execute(&plan(&host_plan_input(1, true)), &lock, |_| {}).unwrap();
        applied.undo().unwrap();
        before.assert_unchanged(&HostState::of_network(), "it was undone");
        lock.release().unwrap();
    });
}

#[test]
fn undoing_tolerates_foreign_changes() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let before = HostState::of_network();
        let (lock, applied) = up(folder.path(), 4, true);
        shell("ip link del ikvm1-3-1 && ip route del 192.168.96.0/19 && nft flush ruleset");
        shell("ip link set ikvm1-3-2 name renamed && ip link set ikvm1-4-1 group 5");
        applied.undo().unwrap();
        before.assert_unchanged(&HostState::of_network(), "it was undone");

        // A foreign link in our group, and a foreign table with our name.
        let applied = execute(&plan(&host_plan_input(4, true)), &lock, |_| {}).unwrap();
        let group = applied.identity().group();
        shell(&format!(
            "ip link add v0 group {group} type veth peer name v1"
        ));
        shell("nft delete table inet ikv-fabric && nft add table inet ikv-fabric");
        applied.undo().unwrap();
        assert!(shell("ip link show v0").contains("v0"));
        assert_eq!(shell("nft list tables"), "table inet ikv-fabric\n");
        assert!(!shell("ip link").contains("ik"));
        lock.release().unwrap();
    });
}

#[test]
fn clean_refuses_in_another_namespace() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let (mut lock, applied) = up(folder.path(), 2, false);
        std::mem::forget(applied);
        let here = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        // This process keeps the journal's namespace alive, and its file in /proc names it.
        let mut holder = Command::new("sleep").arg("60").spawn().unwrap();
        leave_namespace();
        let error = clean(&mut lock).unwrap_err();
        assert!(
            matches!(error, HostChangeError::OtherNamespace { .. }),
            "{error}"
        );
        let words = error.to_string();
        assert!(words.contains("nsenter --net=/proc/"), "{words}");
        assert!(lock.paths().journal.exists());

        // In the namespace of the journal it works.
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&here),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )
        .unwrap();
        assert!(clean(&mut lock).unwrap().is_some());
        assert!(!shell("ip link").contains("ikvm"));
        holder.kill().unwrap();
        holder.wait().unwrap();
        lock.release().unwrap();
    });
}

#[test]
fn clean_removes_the_files_when_the_namespace_is_gone() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let (mut lock, mut applied) = up(folder.path(), 2, true);
        let socket = lock.paths().folder.join("control.sock");
        applied.will_create(&socket).unwrap();
        std::fs::write(&socket, "").unwrap();
        drop(applied.take_host_taps());
        std::mem::forget(applied);
        leave_namespace();
        shell("sysctl -qw net.ipv4.ip_forward=1");
        let cleaned = clean(&mut lock).unwrap().unwrap();
        assert!(cleaned.namespace_gone);
        assert!(!socket.exists());
        assert_eq!(
            shell("sysctl -n net.ipv4.ip_forward"),
            "1\n",
            "the setting of another namespace was changed"
        );
        lock.release().unwrap();
    });
}

#[test]
fn the_remedy_for_a_firewall_works() {
    in_namespace(|| {
        let range = "192.168.96.0/19".parse().unwrap();
        assert_eq!(
            firewall::check(firewall::Traffic::Forwarded, "ikhn", range).unwrap(),
            []
        );
        shell(
            "nft 'add table inet mine; add chain inet mine transit { type filter hook forward priority 0; policy drop; }; \
             add rule inet mine transit ct state vmap { established : accept, related : accept, invalid : drop }; \
             add rule inet mine transit iifname { \"eth0\", \"wlan*\" } ip saddr 10.0.0.0/8 counter accept'",
        );
        let found = firewall::check(firewall::Traffic::Forwarded, "ikhn", range).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].chain, "table inet mine, chain transit");
        shell(&found[0].remedy);
        assert_eq!(
            firewall::check(firewall::Traffic::Forwarded, "ikhn", range).unwrap(),
            []
        );
    });
}
