//! The switches' BMCs answer ipmitool on this host and on a guest of the IPMI segment only.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "ipmi/ways_in.rs"]
mod ways_in;

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ikv_tests::panel::PanelHost;
use ikv_tests::patience::{SOON, ended, ensure, output_within, until};
use ikv_tests::{
    Cli, Fabric, HOST_OUTSIDE, HostState, NamespaceGuest, Netns, OUTSIDE, Site, ensure_image,
    lacks_for_vms, skip,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Time for one emulated VM to boot while other tests run.
const PATIENCE: Duration = Duration::from_secs(120);

/// UDP port of the BMC of spine1, the second switch.
const PORT: &str = "9081";

const SEGMENT: &str = "192.168.200.1";

const WITH_BMC: [&str; 4] = ["--only", "spine1", "--set", "ipmi.enabled=true"];

fn lacks() -> bool {
    let program = |name| host::program::find(name).is_none();
    let lacking = lacks_for_vms().or_else(|| {
        let missing = program("ipmitool") || program("ipmi_sim");
        missing.then_some("ipmitool and ipmi_sim (apt-get install ipmitool openipmi)")
    });
    if let Some(lacking) = lacking {
        skip(&format!("needs {lacking}"));
    }
    lacking.is_some()
}

/// ipmitool, as it is called in a namespace for one address.
struct Ipmitool<'a> {
    netns: &'a Netns,
    host: &'a str,
    interface: &'a [&'a str],
    password: PathBuf,
}

const LANPLUS: &[&str] = &["lanplus", "-C", "3"];
const LAN: &[&str] = &["lan"];

impl<'a> Ipmitool<'a> {
    fn of(fabric: &'a Fabric, netns: &'a Netns, host: &'a str) -> Self {
        Ipmitool {
            netns,
            host,
            interface: LANPLUS,
            password: fabric.scratch().join("keys/ipmi_password"),
        }
    }

    /// Its standard output, or the whole result if it fails.
    fn ask(&self, words: &str) -> Result<String, String> {
        let mut command = self.netns.command("timeout");
        command
            .args(["20", "ipmitool", "-N", "1", "-R", "2", "-I"])
            .args(self.interface)
            .args(["-H", self.host, "-p", PORT, "-U", "ipmiusr", "-f"])
            .arg(&self.password)
            .args(words.split(' '));
        let output = output_within(&mut command, 2 * SOON);
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(format!("{output:?}"))
        }
    }

    fn says(&self, words: &str, expected: &str) {
        assert_eq!(self.ask(words).as_deref(), Ok(expected), "{words}");
    }

    fn is(&self, state: &str) {
        self.says("power status", &format!("Chassis Power is {state}"));
    }
}

fn wait_for_state(cli: &Cli, state: &str) {
    until(&format!("spine1 to be {state}"), PATIENCE, || {
        let node = cli.node("spine1");
        ensure(node["state"] == state, || node.to_string())
    });
}

/// Waits for spine1's `ipmi_sim` to run.
fn ipmi_sim(fabric: &Fabric) -> Pid {
    let name = |pid: &Pid| fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_pid()));
    until("an ipmi_sim", SOON, || {
        let pids = fabric.bmc("spine1").into_iter();
        let mut found = pids.filter(|pid| name(pid).is_ok_and(|name| name == "ipmi_sim\n"));
        found.next().ok_or_else(|| fabric.stderr())
    })
}

#[test]
fn ipmi_and_power_control_the_same_switch() {
    if lacks() {
        return;
    }
    ensure_image().unwrap();
    let mut fabric = Fabric::start(Site::new("ipmi"), &WITH_BMC);
    let host = &fabric.site.host;
    let cli = fabric.cli();
    let tool = Ipmitool::of(&fabric, host, "127.0.0.1");
    until("a BMC", PATIENCE, || tool.ask("power status"));
    ipmi_prints_the_access(&fabric, &cli);
    only_the_password_opens_every_interface(&fabric);
    ways_in::are_shut(&fabric);
    tool.is("on");
    ipmi_sim_is_confined(&fabric);

    wait_for_state(&cli, "running");
    ipmi_and_power_agree(&tool, &cli);
    the_switch_runs_on_when_ipmi_sim_is_killed(&fabric, &tool);
    the_guest_reaches_it_over_kcs(&fabric, &cli, &tool);
    a_guest_on_the_segment_controls_it(&fabric, &cli);

    let ended = fabric.end();
    assert!(ended.status.success(), "{}", fabric.stderr());
    let now = HostState::of(&fabric.site.host, &fabric.run_folder());
    fabric.before.assert_unchanged(&now, "after the end");
}

fn ipmi_prints_the_access(fabric: &Fabric, cli: &Cli) {
    let file = fabric.scratch().join("keys/ipmi_password");
    assert_eq!(mode(&file), 0o600);
    let access = cli.json(&["ipmi"]);
    assert_eq!(access["user"], "ipmiusr");
    assert_eq!(access["password_file"], file.to_str().unwrap());
    let bmc = &access["bmcs"][0];
    assert_eq!(
        (&bmc["node"], &bmc["port"]),
        (&Value::from("spine1"), &Value::from(9081))
    );
    let text = cli.ok(&["ipmi", "spine1"]);
    let line = text
        .lines()
        .find(|line| line.starts_with("ipmitool"))
        .unwrap();
    let mut shell = fabric.site.host.command("sh");
    let output = output_within(shell.args(["-c", line]), SOON);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "Chassis Power is on\n",
        "{line}: {output:?}"
    );
    let refused = cli.run(&["ipmi", "leaf1"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("leaf1 has no BMC here"),
        "{refused:?}"
    );
}

fn mode(file: &Path) -> u32 {
    file.metadata().unwrap().permissions().mode() & 0o7777
}

/// IPMI 2.0 and 1.5 work at both addresses with the right password only, and no other port is open.
fn only_the_password_opens_every_interface(fabric: &Fabric) {
    let host = &fabric.site.host;
    let wrong = fabric.scratch().join("wrong");
    fs::write(&wrong, "0123456789abcdef\n").unwrap();
    for address in ["127.0.0.1", SEGMENT] {
        for interface in [LANPLUS, LAN] {
            let mut tool = Ipmitool::of(fabric, host, address);
            tool.interface = interface;
            tool.is("on");
            tool.password.clone_from(&wrong);
            tool.ask("power status").unwrap_err();
        }
    }
    let listening = host.run("ss -Huln");
    let mut at: Vec<&str> = listening
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3))
        .collect();
    at.sort_unstable();
    assert_eq!(at, ["127.0.0.1:9081", "192.168.200.1:9081"]);
    let listening = host.run("ss -Htln");
    assert!(
        listening.lines().all(|line| line.contains(" 127.0.0.1:")),
        "{listening}"
    );
}

/// An `ipmi_sim` that was taken over would have no capabilities, could write no file, and could see
/// no other password.
fn ipmi_sim_is_confined(fabric: &Fabric) {
    let pid = ipmi_sim(fabric).as_raw_pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let words: Vec<_> = line.unwrap().split_whitespace().collect();
        words.join(" ")
    };
    assert_eq!(field("Uid:"), "71001 71001 71001 71001");
    assert_eq!(field("Groups:"), "");
    for rights in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(rights), "0000000000000000", "{rights}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    assert!(limits.contains("Max file size             0 "), "{limits}");
    let conf = fabric.run_folder().join("ipmi/spine1/lan.conf");
    assert_eq!(mode(&conf), 0o640);
    let secret = fs::read_to_string(fabric.scratch().join("keys/ipmi_password")).unwrap();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        assert!(!line.contains(secret.trim()), "{line}");
    }
}

fn ipmi_and_power_agree(tool: &Ipmitool<'_>, cli: &Cli) {
    let state = || cli.node("spine1")["state"].clone();
    tool.says("power off", "Chassis Power Control: Down/Off");
    assert_eq!(state(), "off");
    tool.is("off");
    // A reset does not switch it on.
    tool.ask("power reset").unwrap_err();
    assert_eq!(state(), "off");
    cli.ok(&["power", "spine1", "on"]);
    tool.is("on");
    cli.ok(&["power", "spine1", "off"]);
    tool.is("off");
    tool.says("power on", "Chassis Power Control: Up/On");
    assert_eq!(state(), "booting");
    wait_for_state(cli, "running");
    tool.says("power reset", "Chassis Power Control: Reset");
    wait_for_state(cli, "booting");
    tool.says("power soft", "Chassis Power Control: Soft");
    assert_eq!(state(), "off");
    tool.says("power on", "Chassis Power Control: Up/On");
    let boot = tool.ask("chassis bootparam get 5").unwrap();
    assert!(boot.contains("No override"), "{boot}");
}

fn the_switch_runs_on_when_ipmi_sim_is_killed(fabric: &Fabric, tool: &Ipmitool<'_>) {
    let (before, qemu) = (ipmi_sim(fabric), fabric.qemu("spine1"));
    kill_process(before, Signal::KILL).unwrap();
    until("another ipmi_sim", SOON, || {
        ensure(ipmi_sim(fabric) != before, || "still the killed one".into())
    });
    until("its answer", SOON, || tool.ask("power status"));
    tool.is("on");
    assert_eq!(fabric.qemu("spine1"), qemu);
    let said = fabric.stderr();
    let notice = "the BMC of spine1 is started again: ipmi_sim ended with signal: 9";
    assert!(said.contains(notice), "{said}");
}

/// The guest talks to its BMC over KCS, as its kernel would. When the watchdog that it started
/// expires, its power goes off and stays off.
fn the_guest_reaches_it_over_kcs(fabric: &Fabric, cli: &Cli, tool: &Ipmitool<'_>) {
    wait_for_state(cli, "running");
    let script = fabric.scratch().join("kcs.pl");
    fs::write(&script, include_str!("ipmi/kcs.pl")).unwrap();
    let ask = |request: &str| {
        let words: Vec<&str> = ["exec", "spine1", "--", "perl", "-"]
            .into_iter()
            .chain(request.split(' '))
            .collect();
        let mut command = cli.command(&words);
        let output = command.stdin(fs::File::open(&script).unwrap()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // Get Device ID: manufacturer 001291, product 0f02, as in ipmi_sim's example.
    let answer = ask("18 01");
    let expected = "1c 01 00 00 03 09 08 02 9f 91 12 00 02 0f 00 00 00 00\n";
    assert_eq!(answer, expected);
    // Set Watchdog Timer: used by the OS, action power down, after 1 s. Reset Watchdog Timer starts
    // it.
    assert!(ask("18 24 04 02 00 10 0a 00").starts_with("1c 24 00 "));
    assert_eq!(ask("18 22"), "1c 22 00\n");
    wait_for_state(cli, "off");
    tool.is("off");
    tool.says("power on", "Chassis Power Control: Up/On");
}

fn a_guest_on_the_segment_controls_it(fabric: &Fabric, cli: &Cli) {
    let site = &fabric.site;
    let options = cli.ok(&["vm-args", "ipmi"]);
    assert!(options.contains("ifname=ikipmi,"), "{options}");
    let guest = NamespaceGuest::plug(&site.host, "ikipmi");
    guest.netns.ip("address add 192.168.200.2/24 dev eth0");
    guest.netns.ip("route add default via 192.168.200.1");
    let tool = Ipmitool::of(fabric, &guest.netns, SEGMENT);
    until("the BMC, from the segment", SOON, || {
        tool.ask("power status")
    });

    invalid_datagrams_do_no_harm(fabric, &guest.netns);
    tool.is("on");

    let before = fabric.qemu("spine1");
    tool.says("power cycle", "Chassis Power Control: Cycle");
    until("another QEMU", SOON, || {
        let now = fabric.qemus_of("spine1");
        ensure(now.iter().any(|pid| *pid != before), || format!("{now:?}"))
    });
    until("power again", SOON, || {
        let said = tool.ask("power status")?;
        ensure(said == "Chassis Power is on", || said)
    });

    the_guest_reaches_only_the_bmcs(site, &guest.netns);
    the_outside_does_not_reach_the_segment(fabric, site);
    the_segments_cable_works_like_any_other(cli, &guest.netns, &tool);
}

/// Random and truncated datagrams, some with a valid beginning, neither end the BMC nor act on the
/// switch.
fn invalid_datagrams_do_no_harm(fabric: &Fabric, guest: &Netns) {
    let (bmc, qemu) = (ipmi_sim(fabric), fabric.qemu("spine1"));
    let socket = guest.enter(|| UdpSocket::bind("192.168.200.2:0")).unwrap();
    let mut luck: u32 = 1;
    let mut byte = || {
        luck = luck.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (luck >> 24) as u8
    };
    for length in 0..600usize {
        let mut datagram: Vec<u8> = (0..length % 300).map(|_| byte()).collect();
        // The header of RMCP with IPMI's class, and that of RMCP+.
        let begin: &[u8] = [&[][..], &[6, 0, 0xff, 7], &[6, 0, 0xff, 7, 6]][length % 3];
        let known = begin.len().min(datagram.len());
        datagram[..known].copy_from_slice(&begin[..known]);
        socket.send_to(&datagram, (SEGMENT, 9081)).unwrap();
    }
    assert_eq!(fabric.qemu("spine1"), qemu);
    let alive = fabric.bmc("spine1").contains(&bmc);
    assert!(alive, "a datagram ended the BMC");
}

fn pings(from: &Netns, to: Ipv4Addr) -> bool {
    let mut ping = from.command("ping");
    ping.args(["-c", "1", "-W", "1", &to.to_string()]);
    output_within(&mut ping, SOON).status.success()
}

/// Whether a TCP connection is established within a second.
fn connects(from: &Netns, to: Ipv4Addr, port: u16) -> bool {
    let to = std::net::SocketAddr::from((to, port));
    from.enter(|| std::net::TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_ok())
}

/// The guest reaches the BMCs' address, but neither the host's services and other addresses nor
/// what is behind the host.
fn the_guest_reaches_only_the_bmcs(site: &Site, guest: &Netns) {
    let segment: Ipv4Addr = SEGMENT.parse().unwrap();
    assert!(pings(guest, segment), "the route does not work");
    for other in [HOST_OUTSIDE, Ipv4Addr::new(192, 168, 96, 1), OUTSIDE] {
        assert!(!pings(guest, other), "{other}");
    }
    let service = site
        .host
        .enter(|| TcpListener::bind("0.0.0.0:7000").unwrap());
    assert!(
        connects(&site.host, segment, 7000),
        "the service does not answer"
    );
    assert!(!connects(guest, segment, 7000));
    assert!(!connects(guest, HOST_OUTSIDE, 7000));
    drop(service);
    let theirs = guest.enter(|| TcpListener::bind("192.168.200.2:7001").unwrap());
    assert!(connects(&site.host, Ipv4Addr::new(192, 168, 200, 2), 7001));
    drop(theirs);
}

/// Nothing of the segment is reachable from outside.
fn the_outside_does_not_reach_the_segment(fabric: &Fabric, site: &Site) {
    site.outside
        .ip(&format!("route add 192.168.200.0/24 via {HOST_OUTSIDE}"));
    assert!(
        pings(&site.outside, HOST_OUTSIDE),
        "the route does not work"
    );
    for address in [[192, 168, 200, 1], [192, 168, 200, 2]] {
        assert!(!pings(&site.outside, address.into()), "{address:?}");
    }
    let tool = Ipmitool::of(fabric, &site.outside, SEGMENT);
    tool.ask("power status").unwrap_err();
}

fn the_segments_cable_works_like_any_other(cli: &Cli, guest: &Netns, tool: &Ipmitool<'_>) {
    let segment: Ipv4Addr = SEGMENT.parse().unwrap();
    let listed = cli.json(&["topology", "--set", "ipmi.enabled=true"]);
    let mut cables = listed["cables"].as_array().unwrap().iter();
    let ours = cables.find(|cable| cable["name"] == "bripmi").unwrap();
    assert_eq!(
        (&ours["a"], &ours["b"]),
        (&"bripmi".into(), &"ikipmi".into())
    );
    let counted = cli.json(&["cables", "ipmi"]);
    assert_ne!(counted[0]["lanes"][1]["frames_out"], 0, "{counted}");

    cli.ok(&["cable", "bripmi", "blackhole"]);
    assert!(!pings(guest, segment));
    cli.ok(&["cable", "ikipmi", "up"]);
    until("the cable to be up", SOON, || {
        ensure(pings(guest, segment), || "no echo".into())
    });
    cli.ok(&["impair", "bripmi", "--from", "ikipmi", "--loss", "100%"]);
    assert!(!pings(guest, segment));
    cli.ok(&["impair", "bripmi", "--clear"]);

    let filter = "udp port 9081 and dst host 192.168.200.1";
    let mut capture = cli.command(&["capture", "bripmi", "--count", "1", "-f", filter]);
    let mut capture = capture.stderr(std::process::Stdio::null()).spawn().unwrap();
    until("a captured question", SOON, || {
        tool.is("on");
        let status = ended(&mut capture, Duration::from_millis(200));
        let status = status.ok_or("it has seen none")?;
        ensure(status.success(), || status.to_string())
    });
}

#[test]
fn a_killed_fabrics_bmcs_end_and_clean_removes_the_segment() {
    if lacks() {
        return;
    }
    ensure_image().unwrap();
    let mut fabric = Fabric::start(Site::new("ipmikill"), &WITH_BMC);
    let tool = Ipmitool::of(&fabric, &fabric.site.host, "127.0.0.1");
    until("a BMC", PATIENCE, || tool.ask("power status"));
    ipmi_sim(&fabric);
    let cli = fabric.cli();
    until("its API", SOON, || {
        let said = cli.run(&["ipmi"]);
        ensure(said.code == Some(0), || said.stderr)
    });
    fabric.kill();
    until("the BMC to be gone", SOON, || {
        let left = fabric.bmc("spine1");
        ensure(left.is_empty(), || format!("{left:?}"))
    });
    assert!(fabric.site.host.ip("link show").contains("ikipmi"));
    cli.ok(&["clean"]);
    let now = HostState::of(&fabric.site.host, &fabric.run_folder());
    fabric.before.assert_unchanged(&now, "after clean");
}

#[test]
fn a_taken_port_or_address_is_reported_before_any_change() {
    if lacks() {
        return;
    }
    ensure_image().unwrap();
    let host = PanelHost::new("ipmibad");
    let before = host.state();
    let taken = host
        .netns
        .enter(|| UdpSocket::bind("0.0.0.0:9081").unwrap());
    let says = "the BMC of spine1 cannot be at 127.0.0.1:9081 (UDP): Address already in use; another ipmi.port in the configuration; `ss -ulpn` shows who is there";
    let run = [&["run"], &WITH_BMC[..]].concat();
    assert_eq!(host.ask(&run).refusal(), says);
    before.assert_unchanged(&host.state(), "it did not come up");
    let found = host.ask(&[&["--json", "check"], &WITH_BMC[..]].concat());
    assert!(found.stdout.contains("127.0.0.1:9081 (UDP)"), "{found:?}");
    // Without IPMI the port is not checked.
    let found = host.ask(&["--json", "check", "--only", "spine1"]);
    assert!(!found.stdout.contains("9081"), "{found:?}");
    drop(taken);

    let mut route = host.netns.command("ip");
    let route = route.args(["route", "add", "unreachable", "192.168.200.128/25"]);
    assert!(output_within(route, SOON).status.success());
    let refused = host.ask(&run);
    let says = "the host's route to 192.168.200.128/25 overlaps the fabric's ipmi.address \
                192.168.200.0/24; another ipmi.address in the configuration, or ip route del \
                192.168.200.128/25";
    assert_eq!(refused.refusal(), says);

    for words in ["link set lo down", "address flush dev lo"] {
        let mut ip = host.netns.command("ip");
        let done = output_within(ip.args(words.split(' ')), SOON);
        assert!(done.status.success(), "{words}: {done:?}");
    }
    let found = host.ask(&[&["check"], &WITH_BMC[..]].concat());
    let says = "is down: `ip link set lo up`";
    assert!(found.stdout.contains(says), "{found:?}");
}
