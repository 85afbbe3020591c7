//! Two hosts on a fresh cable in this process.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bench::CableEnd;
use bench::testbed::FreshCable;
use dataplane::{Idle, PanelOptions};
use smoltcp::wire::{EthernetAddress, Ipv4Address, Ipv4Cidr};

use super::device::Nic;
use super::flow::{Pair, tcp, udp};
use super::host::{Host, poll_or_wait};

const LIMIT: Duration = Duration::from_secs(20);

fn address(number: u8) -> Ipv4Address {
    Ipv4Address::new(10, 0, 0, number)
}

fn host(end: &CableEnd, number: u8) -> Host {
    let CableEnd::VhostUser(socket) = end else {
        panic!("a fresh cable has sockets: {end}");
    };
    let nic = Nic::plug(socket).unwrap();
    let mut host = Host::new(nic, EthernetAddress([2, 0, 0, 0, 0, number]));
    // A DHCP client first reports that it has no lease, which would remove the address below.
    host.poll();
    host.configure(Ipv4Cidr::new(address(number), 24), None);
    host
}

#[test]
fn hosts_ping_each_other_and_carry_tcp_and_udp() {
    let options = PanelOptions {
        workers: 1,
        cpus: Vec::new(),
        idle: Idle::Sleep,
        hold_memory: None,
    };
    let cable = FreshCable::start(&options).unwrap();
    let ends = cable.testbed().ends;
    let mut hosts = [host(&ends[0], 1), host(&ends[1], 2)];
    let stop = AtomicBool::new(false);

    assert!(hosts[0].ping(address(2), 7));
    let deadline = Instant::now() + LIMIT;
    let answers = loop {
        poll_or_wait(&mut hosts, Duration::from_millis(10)).unwrap();
        let answers = hosts[0].answers();
        if !answers.is_empty() || Instant::now() > deadline {
            break answers;
        }
    };
    assert_eq!(answers, [(address(2), 7)]);

    let (there, back) = (Pair { from: 0, to: 1 }, Pair { from: 1, to: 0 });
    let time = Duration::from_millis(200);
    for pair in [there, back] {
        let rate = tcp(&mut hosts, pair, time, &stop).unwrap();
        assert!(rate.is_some_and(|rate| rate > 1e6), "{rate:?}");
        let seen = udp(&mut hosts, pair, 10e6, time, &stop).unwrap();
        assert!(seen.sent > 100 && seen.received == seen.sent, "{seen:?}");
        assert!(seen.bits_per_second > 5e6, "{seen:?}");
    }

    assert!(hosts.iter_mut().all(|host| host.nic.is_plugged()));
    drop(cable);
    let deadline = Instant::now() + LIMIT;
    while hosts[0].nic.is_plugged() && Instant::now() < deadline {
        poll_or_wait(&mut hosts, Duration::from_millis(10)).unwrap();
    }
    assert!(!hosts[0].nic.is_plugged(), "it notices the end");
    let nothing = tcp(&mut hosts, there, time, &stop).unwrap();
    assert_eq!(nothing, None);
}
