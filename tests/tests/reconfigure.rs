//! A rack is added to a running spine and removed again. Two NICs are plugged into its QEMU, one on
//! a cable to a new leaf and one on a tap. Its BGP session with the old leaf stays up, and its
//! configuration is then the same as after a boot. And a program of the image that runs beside FRR, without
//! a VM.
#![allow(missing_docs, clippy::unwrap_used)]

use std::net::Ipv6Addr;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::sys::tap::{TapFlags, open_tap};
use fabric::reconfigure::{RestartReason, SwitchMake, can_be_live, reconfigure};
use ikv_tests::patience::{ensure, until, wait_until_async};
use ikv_tests::{Netns, Wire, block_on, ensure_image, figure, lacks_for_host, lacks_for_vms, skip};
use model::config;
use model::power::PowerAction;
use model::topology::{Topology, build};
use tempfile::TempDir;
use vm::accel::{Facts, decide};
use vm::agent::Limits;
use vm::bgp::{self, Peer, PeerState};
use vm::image;
use vm::keys::FabricKeys;
use vm::seed::{self, SeedFile};
use vm::{
    CannotPlug, Display, Launcher, NIC_FOLDER, NicBackend, NicSpec, Vm, VmSpec, VmState,
    nic_socket_name, ssh,
};

/// Time for three emulated VMs to boot while other tests run.
const BOOT: Duration = Duration::from_secs(180);
/// Time for a command in a running guest.
const GUEST: Duration = Duration::from_secs(60);

const SWITCHES: [&str; 3] = ["spine1", "leaf1", "leaf3"];

/// A command that shows a switch's whole configuration, without times and counters.
const STATE: &str = "vtysh -c 'show running-config'; \
    ip -j -d link show | jq -c '.[] | [.ifname, .mtu, .address, .master, .flags, .linkinfo]' | sort; \
    ip -j address show | jq -c '.[] | [.ifname, (.addr_info[] | [.local, .prefixlen, .broadcast])]' | sort; \
    sysctl -a 2>/dev/null | grep -E '(forwarding|rp_filter|accept_dad|arp_ignore) =' | sort; \
    ls -ln /etc/frr; cd /etc; cat hosts hostname frr/frr.conf ikv/nics ikv/network.batch ssh/ssh_known_hosts";

/// Files of the test. It runs in a new network namespace, where its taps are.
struct Lab {
    folder: TempDir,
    keys: FabricKeys,
    launcher: Launcher,
    image: vm::Image,
}

impl Lab {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tap = |name: &str| {
            let flags = TapFlags {
                vnet_hdr: true,
                exclusive: false,
                nonblocking: true,
                multi_queue: false,
            };
            open_tap(name, flags)
        };
        let image = image::ensure(&config::Image::default(), |_| {}).await;
        Self {
            keys: FabricKeys::load_or_create(&folder.path().join("keys"), SWITCHES, None).unwrap(),
            launcher: Launcher::probe(Arc::new(tap)).await.unwrap(),
            image: image.unwrap().into(),
            folder,
        }
    }

    /// A switch of a topology. The NICs listed in `cables` are on vhost-user sockets, the others on
    /// taps.
    fn make(&self, topology: &Topology, name: &str, cables: &[usize]) -> SwitchMake {
        let switch = topology.switch(name).unwrap();
        let conf = topology.switch_conf(switch).unwrap();
        let files = frr_conf::render(&conf).unwrap().into_iter();
        let mut files: Vec<_> = files.map(SeedFile::from).collect();
        let hosts = topology.switches.iter().map(|switch| ssh::Host {
            name: switch.name.clone(),
            address: switch.loopback.into(),
            others: Vec::new(),
            link_locals: switch.ports.iter().map(|port| port.link_local).collect(),
        });
        let known_hosts = ssh::known_hosts(&self.keys, &hosts.collect::<Vec<_>>());
        files.extend(ssh::seed_files(&self.keys, name, &[], &known_hosts));
        let run_dir = self.folder.path().join(name);
        let nic = |(index, port): (usize, &model::topology::SwitchPort)| NicSpec {
            mac: port.mac,
            backend: if cables.contains(&index) {
                NicBackend::VhostUser
            } else {
                NicBackend::Tap {
                    name: format!("{name}-{index}"),
                }
            },
        };
        SwitchMake {
            spec: VmSpec {
                name: name.into(),
                memory_mib: 192,
                vcpus: 1,
                accel: decide(model::config::AccelChoice::Auto, &Facts::read())
                    .unwrap()
                    .accel,
                cpu: None,
                uid: uid(name),
                image: self.image.clone(),
                cmdline: image::KERNEL_CMDLINE.into(),
                seed: run_dir.join("seed.tar"),
                run_dir,
                display: Display::None,
                bmc: false,
                template: None,
                nics: switch.ports.iter().enumerate().map(nic).collect(),
            },
            files,
            conf,
        }
    }

    /// Starts a cable between two NICs, each given as switch and index.
    fn cable(&self, ends: [(&str, usize); 2]) -> Wire {
        let sockets = ends.map(|(name, index)| {
            let folder = self.folder.path().join(name).join(NIC_FOLDER);
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o711).create(&folder).unwrap();
            folder.join(nic_socket_name(index))
        });
        let port = |path: &Path| format!("vhost-user:{}", path.display());
        let netns = Netns::new("reconf-cable");
        let wire = Wire::between(netns, &port(&sockets[0]), &port(&sockets[1]));
        for ((name, _), socket) in ends.iter().zip(&sockets) {
            chown(socket, Some(uid(name)), None).unwrap();
        }
        wire
    }

    fn start(&self, make: &SwitchMake) -> Vm {
        std::fs::create_dir_all(&make.spec.run_dir).unwrap();
        seed::write(&make.spec.seed, &make.files).unwrap();
        Vm::start(make.spec.clone(), self.launcher.clone())
    }
}

/// Each VM runs under its own uid.
fn uid(name: &str) -> u32 {
    70_300 + SWITCHES.iter().position(|known| *known == name).unwrap() as u32
}

#[test]
fn a_rack_is_added_to_a_running_spine_and_removed() {
    if let Some(lacking) = lacks_for_vms() {
        return skip(&format!("needs {lacking}"));
    }
    ensure_image().unwrap();
    Netns::new("reconf").enter(|| block_on(rack()));
}

async fn rack() {
    let lab = Lab::new().await;
    let topology = |racks| {
        let text = format!("[topology]\nspines = 1\nracks = {racks}\nnum_u = 3\n");
        build(&config::parse("test.toml", &text, &[]).unwrap()).unwrap()
    };
    let (one, two) = (topology(1), topology(2));
    let _cables = [
        lab.cable([("spine1", 1), ("leaf1", 0)]),
        lab.cable([("spine1", 3), ("leaf3", 0)]),
    ];
    let old = lab.make(&one, "spine1", &[1]);
    let new = lab.make(&two, "spine1", &[1, 3]);
    let leaf = [&one, &two].map(|topology| lab.make(topology, "leaf1", &[0]));
    let spine = lab.start(&old);
    let leaf1 = lab.start(&leaf[0]);
    let stopped = can_be_live(&spine, &old, &new);
    assert_eq!(stopped, Err(RestartReason::Vm(CannotPlug::NotRunning)));
    let leaf3 = lab.start(&lab.make(&two, "leaf3", &[0]));
    established(&spine, "ens5", BOOT).await;
    let before = state(&spine).await;
    let known = session(&spine, "ens5").await.unwrap();

    // The rack is added.
    let began = Instant::now();
    change(&spine, &old, &new).await;
    figure(
        "two NICs and a rack are added to a spine",
        &format!("{:?}", began.elapsed()),
    );
    let began = Instant::now();
    change(&leaf1, &leaf[0], &leaf[1]).await;
    figure(
        "a leaf is reconfigured for a new rack",
        &format!("{:?}", began.elapsed()),
    );
    let pid = spine.status().pid;
    let began = Instant::now();
    established(&spine, "ens7", BOOT).await;
    figure("the new leaf's session", &format!("{:?}", began.elapsed()));
    let ports = &two.switch("spine1").unwrap().ports;
    for port in &ports[3..] {
        let shown = ask(&spine, &format!("ip address show dev {}", port.nic)).await;
        assert!(shown.contains(&port.mac.to_string()), "{shown}");
        assert!(shown.contains(&port.link_local.to_string()), "{shown}");
    }
    // Frames pass over the new cable, from leaf to leaf, and over the new tap.
    let far = two.switch("leaf3").unwrap().loopback;
    let near = two.switch("leaf1").unwrap().loopback;
    wait_until_async("leaf1 reaches leaf3", GUEST, async || {
        let ping = format!("ping -c 1 -W 2 -I {near} {far}");
        try_ask(&leaf1, &ping).await.is_ok()
    })
    .await;
    ping_from_tap("spine1-4", &ports[4].link_local.to_string()).await;
    let uptime = session(&spine, "ens5").await.unwrap().uptime;
    assert!(
        uptime >= known.uptime,
        "{uptime:?} after {:?}",
        known.uptime
    );
    let larger = state(&spine).await;
    for shows in [
        "neighbor ens8 interface peer-group leaf",
        "[\"ens7\",9000,",
        "[\"ens8\",[\"fe80::",
        "net.ipv6.conf.ens7.forwarding = 1",
    ] {
        assert!(larger.contains(shows), "{shows} is not in {larger}");
    }

    // The running configuration is the same after the spine boots again.
    assert_eq!(spine.status().pid, pid);
    spine.power(PowerAction::Cycle).await.unwrap();
    established(&spine, "ens5", BOOT).await;
    established(&spine, "ens7", BOOT).await;
    assert_ne!(spine.status().pid, pid);
    assert_same_lines(&larger, &state(&spine).await);

    // The rack is removed.
    let known = session(&spine, "ens5").await.unwrap();
    let began = Instant::now();
    change(&spine, &new, &old).await;
    figure(
        "two NICs and a rack are removed from a spine",
        &format!("{:?}", began.elapsed()),
    );
    assert_same_lines(&before, &state(&spine).await);
    let uptime = session(&spine, "ens5").await.unwrap().uptime;
    assert!(
        uptime >= known.uptime,
        "{uptime:?} after {:?}",
        known.uptime
    );
    for vm in [spine, leaf1, leaf3] {
        vm.stop().await;
    }
}

async fn change(vm: &Vm, old: &SwitchMake, new: &SwitchMake) {
    wait_until_async("the switch runs", BOOT, async || {
        vm.status().state == VmState::Running
    })
    .await;
    let live = can_be_live(vm, old, new).unwrap();
    seed::write(&new.spec.seed, &new.files).unwrap();
    if let Err(error) = reconfigure(vm, new.spec.clone(), &live).await {
        let says = ask(vm, "dmesg | tail -n 30; ip -br link; cat /proc/interrupts").await;
        panic!("{error}\n{says}");
    }
}

/// The host of a NIC's tap reaches the switch.
async fn ping_from_tap(tap: &str, link_local: &str) {
    ikv_tests::run(std::process::Command::new("ip").args(["link", "set", tap, "up"]));
    wait_until_async("an answer on the tap", GUEST, async || {
        let target = format!("{link_local}%{tap}");
        let ping = tokio::process::Command::new("ping")
            .args(["-c", "1", "-W", "1", &target])
            .output();
        ping.await.unwrap().status.success()
    })
    .await;
}

/// The MAC address that zebra writes for `link_local` (`ipv6_ll_address_to_mac` of FRR).
fn computed_mac(link_local: Ipv6Addr) -> String {
    let byte = link_local.octets();
    let mac = [byte[8] ^ 2, byte[9], byte[10], byte[13], byte[14], byte[15]];
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Two namespaces joined by a cable, with the routes that FRR's unnumbered session would make.
fn leaf_and_server() -> (Netns, Netns) {
    let (leaf, server) = (Netns::new("leaf"), Netns::new("server"));
    let peer = server.name();
    leaf.ip(&format!(
        "link add ens6.10 type veth peer name net0 netns {peer}"
    ));
    server.run("sysctl -qw net.ipv6.conf.net0.accept_dad=0 net.ipv6.conf.net0.dad_transmits=0");
    leaf.ip("link set ens6.10 up");
    leaf.ip("address add 192.168.98.4/32 dev lo");
    leaf.ip("route add 192.168.120.6 via 169.254.0.1 dev ens6.10 onlink");
    server.ip("address add 192.168.120.6/32 dev lo");
    (leaf, server)
}

/// The server gets its link-local address in the way of `mode` (`addrgenmode` of ip-link(8)), and the
/// leaf meets it.
fn meet(leaf: &Netns, server: &Netns, mode: &str) -> Ipv6Addr {
    server.ip("link set net0 down");
    server.ip(&format!("link set net0 addrgenmode {mode}"));
    server.ip("link set net0 up");
    if mode == "none" {
        server.ip("address add fe80::6/64 dev net0 nodad");
    }
    server.ip("route replace 192.168.98.4 dev net0");
    let shown = until("a link-local address", GUEST, || {
        let shown = server.ip("-o -6 address show dev net0 scope link");
        let ready = shown.contains("fe80::") && !shown.contains("tentative");
        ensure(ready, || shown.clone()).map(|()| shown)
    });
    let address = shown.split_whitespace().nth(3).unwrap();
    let address = address.split('/').next().unwrap().parse().unwrap();
    speak(leaf, address);
    address
}

/// As the BGP session does, which leads to neighbour discovery.
fn speak(leaf: &Netns, link_local: Ipv6Addr) {
    until("an answer of the link-local address", GUEST, || {
        let target = format!("{link_local}%ens6.10");
        let pinged = leaf.command("ping").args(["-c1", "-W1", &target]).output();
        ensure(pinged.unwrap().status.success(), || target)
    });
}

/// What zebra does when it meets a neighbour.
fn zebra_meets(leaf: &Netns, link_local: Ipv6Addr) {
    let mac = computed_mac(link_local);
    leaf.ip(&format!(
        "neighbour replace 169.254.0.1 lladdr {mac} dev ens6.10 nud permanent"
    ));
}

fn reaches_the_server(leaf: &Netns, after: &str) {
    let what = format!("the server's answer over IPv4 after {after}");
    until(&what, Duration::from_secs(20), || {
        let ping = ["-c1", "-W1", "-I192.168.98.4", "192.168.120.6"];
        let pinged = leaf.command("ping").args(ping).output().unwrap();
        ensure(pinged.status.success(), || leaf.ip("neighbour"))
    });
}

/// Ends the program when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn ipv4_reaches_a_server_with_any_link_local_address() {
    if let Some(why) = lacks_for_host() {
        return skip(why);
    }
    let (leaf, server) = leaf_and_server();
    let program = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../images/overlay/usr/lib/ikv/link-local-macs"
    );
    let first = meet(&leaf, &server, "random");
    zebra_meets(&leaf, first);
    let start = || Running(leaf.command("perl").arg(program).spawn().unwrap());
    let running = start();
    reaches_the_server(&leaf, "the start of the program");
    zebra_meets(&leaf, first);
    reaches_the_server(&leaf, "a flap, when zebra writes its entry again");
    let typed = meet(&leaf, &server, "none");
    zebra_meets(&leaf, typed);
    reaches_the_server(&leaf, "an address that somebody typed");
    drop(running);
    let _again = start();
    // As zebra does it: it removes the entry first.
    leaf.ip("neighbour del 169.254.0.1 dev ens6.10");
    let address = meet(&leaf, &server, "none");
    zebra_meets(&leaf, address);
    server.ip("link set net0 address 02:00:00:00:00:99");
    speak(&leaf, address);
    reaches_the_server(
        &leaf,
        "another MAC address under the same link-local address",
    );
}

async fn established(vm: &Vm, nic: &str, limit: Duration) {
    let what = format!("{}'s session on {nic}", vm.name());
    wait_until_async(&what, limit, async || {
        let peer = session(vm, nic).await;
        peer.is_some_and(|peer| peer.state == PeerState::Established)
    })
    .await;
}

async fn session(vm: &Vm, nic: &str) -> Option<Peer> {
    let summary = bgp::read(vm.agent(), GUEST).await.ok()?;
    summary.peers.into_iter().find(|peer| peer.name == nic)
}

async fn state(vm: &Vm) -> String {
    ask(vm, STATE).await
}

/// Asserts that both have the same lines.
fn assert_same_lines(expected: &str, found: &str) {
    let missing = |these: &str, those: &str| {
        let those: Vec<_> = those.lines().collect();
        let lines = these.lines().filter(|line| !those.contains(line));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let none: [Vec<String>; 2] = [Vec::new(), Vec::new()];
    assert_eq!([missing(expected, found), missing(found, expected)], none);
}

async fn ask(vm: &Vm, line: &str) -> String {
    try_ask(vm, line).await.unwrap()
}

async fn try_ask(vm: &Vm, line: &str) -> Result<String, String> {
    let command = ["sh", "-c", line].map(Into::into);
    let limits = Limits {
        time: GUEST,
        output: 1 << 20,
    };
    let output = vm.agent().exec(&command, b"", limits).await;
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.shell_code() {
        0 => Ok(text),
        status => Err(format!("{line}: {status}: {text}")),
    }
}
