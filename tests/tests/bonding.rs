//! LACP and STP, which a Linux bridge swallows and a cable passes, between two Linux guests joined
//! by two configured cables.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use ikv_tests::panel::{PanelFabric, PanelHost};
use ikv_tests::patience::{SOON, ensure, until};
use ikv_tests::{Plug, ServerNic, ServerVm, ensure_image, lacks_for_vms, skip};

/// Time for two emulated VMs to boot while other tests run.
const BOOT: Duration = Duration::from_secs(120);

const CABLES: &str = "\
[[cable]]
name = \"left\"
ends = [\"rack1:u3:1\", \"rack2:u3:1\"]
[[cable]]
name = \"right\"
ends = [\"rack1:u3:2\", \"rack2:u3:2\"]
";

/// The ends and MACs of the guests' two NICs.
const GUESTS: [[(&str, &str); 2]; 2] = [
    [
        ("ikvm1-3-1", "02:00:00:00:01:01"),
        ("ikvm1-3-2", "02:00:00:00:01:02"),
    ],
    [
        ("ikvm2-3-1", "02:00:00:00:02:01"),
        ("ikvm2-3-2", "02:00:00:00:02:02"),
    ],
];

/// LACP needs speed and duplex mode, which virtio does not report by default.
const SPEED: &str = ",speed=10000,duplex=full";

fn guest(fabric: &PanelFabric<'_>, number: usize) -> ServerVm {
    let folder = fabric.host().folder().join(format!("guest{number}"));
    std::fs::create_dir(&folder).unwrap();
    let run = fabric.host().socket();
    let vhost = run.parent().unwrap().join("vhost");
    let sockets = GUESTS[number].map(|(end, _)| vhost.join(format!("{end}.sock")));
    let nics = GUESTS[number].map(|(end, mac)| ServerNic {
        plug: Plug::VhostUser(end),
        mac,
        vlan: 0,
        address: None,
    });
    ServerVm::on_wires(&folder, &sockets, &[SPEED; 2], &nics, Vec::new())
}

fn shell(guest: &ServerVm, script: &str) -> String {
    guest.exec(&["sh", "-ec", script])
}

/// The bond's number of ports and its partner's MAC address, as the kernel reports them.
fn bond(guest: &ServerVm) -> (String, String) {
    let text = guest.exec(&["cat", "/proc/net/bonding/bond0"]);
    let after = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
        line.unwrap_or_default().trim().to_owned()
    };
    (after("Number of ports:"), after("Partner Mac Address:"))
}

#[test]
fn lacp_bonds_two_cables_and_stp_opens_a_loop() {
    if let Some(lacking) = lacks_for_vms() {
        return skip(&format!("needs {lacking}"));
    }
    ensure_image().unwrap();
    let host = PanelHost::new("bonding");
    let file = host.folder().join("lab.toml");
    std::fs::write(&file, CABLES).unwrap();
    let fabric = host.run(&["-c", file.to_str().unwrap()]);
    let guests = [guest(&fabric, 0), guest(&fabric, 1)];
    for guest in &guests {
        guest.wait_booted(BOOT);
    }
    lacp(&host, &guests);
    stp(&guests);
    drop(guests);
    fabric.end();
}

fn lacp(host: &PanelHost, guests: &[ServerVm; 2]) {
    for (number, guest) in guests.iter().enumerate() {
        shell(
            guest,
            &format!(
                "modprobe bonding max_bonds=0
                 ip link add bond0 type bond mode 802.3ad miimon 100 lacp_rate fast
                 for nic in net0 net1; do ip link set $nic down; ip link set $nic master bond0; done
                 ip address add 10.77.0.{}/24 dev bond0
                 ip link set bond0 up",
                number + 1
            ),
        );
    }
    for (number, guest) in guests.iter().enumerate() {
        // The partner's bond has the MAC address of its first NIC.
        let wanted = ("2".to_owned(), GUESTS[1 - number][0].1.to_owned());
        until("both ports to be in one aggregator", SOON, || {
            let found = bond(guest);
            ensure(found == wanted, || format!("{found:?}"))
        });
    }
    let ping = ["ping", "-c", "2", "-W", "10", "10.77.0.2"];
    guests[0].exec(&ping);
    assert_eq!(host.ask(&["cable", "left", "down"]).code, Some(0));
    for guest in guests {
        until("the bond to run on one port", SOON, || {
            let found = bond(guest);
            ensure(found.0 == "1", || format!("{found:?}"))
        });
    }
    guests[0].exec(&ping);
    assert_eq!(host.ask(&["cable", "left", "up"]).code, Some(0));
}

fn stp(guests: &[ServerVm; 2]) {
    for guest in guests {
        shell(
            guest,
            "ip link del bond0
             ip link add br0 type bridge stp_state 1 forward_delay 400 hello_time 100
             for nic in net0 net1; do ip link set $nic master br0 up; done
             ip link set br0 up",
        );
    }
    // Two bridges and two cables form a loop. Without the other's BPDUs each bridge would consider
    // itself the root and keep every port forwarding.
    until("one port of four to be blocked", SOON, || {
        let states = guests.each_ref().map(|guest| {
            let text = guest.exec(&["cat", "/sys/class/net/br0/brif/net0/state"])
                + &guest.exec(&["cat", "/sys/class/net/br0/brif/net1/state"]);
            text.replace('\n', "")
        });
        // 3: forwarding, 4: blocking (Linux, if_bridge.h).
        let mut sorted: Vec<char> = states.concat().chars().collect();
        sorted.sort_unstable();
        ensure(sorted == ['3', '3', '3', '4'], || format!("{states:?}"))
    });
}
