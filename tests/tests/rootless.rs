//! A fabric without root: an ordinary user's, in namespaces of their own.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ikv_tests::patience::{SOON, ensure, until};
use ikv_tests::{
    Answer, HOST_OUTSIDE, HostState, Netns, OUTSIDE, OrdinaryUser, RootlessFabric, ensure_image,
    figure, lacks_for_host, lacks_for_vms, skip,
};

/// Time for four emulated VMs to be saved and to start while other tests run.
const PATIENCE: Duration = Duration::from_secs(300);

/// Another address of the host, on another link than the one that leads out.
const HOST_ELSEWHERE: &str = "10.98.0.1";

fn lacks() -> Option<&'static str> {
    if Path::new("/usr/bin/pasta").exists() {
        lacks_for_host()
    } else {
        Some("pasta (apt-get install passt)")
    }
}

/// Greets everybody who connects, in a namespace, for as long as the test's process runs.
fn greeter(netns: &Netns, at: &str) -> SocketAddr {
    let listener = netns.enter(|| TcpListener::bind(at).unwrap());
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap();
            let _ = write!(stream, "hello {}", peer.ip());
        }
    });
    address
}

/// What a program in the fabric's namespaces reads from a TCP server.
fn read_inside(user: &OrdinaryUser, address: &str, port: u16) -> String {
    let line = format!("timeout 5 bash -c 'cat </dev/tcp/{address}/{port}' 2>&1");
    user.inside(&line).stdout
}

#[test]
fn a_panel_runs_as_an_ordinary_user_and_leaves_the_machine_alone() {
    if let Some(lacking) = lacks() {
        return skip(&format!("needs {lacking}"));
    }
    let user = OrdinaryUser::new("rootless");
    let elsewhere = user.folder().join("nothing");
    let before = HostState::of(&user.site.host, &elsewhere);
    let mut fabric = user.start(&["--switches", "none"]);
    fabric.wait_ready(SOON);
    let said = fabric.stderr();
    assert!(said.contains("in namespaces of yours"), "{said}");
    assert!(said.contains("way out: world, by pasta"), "{said}");
    let now = HostState::of(&user.site.host, &elsewhere);
    let of_network: Vec<_> = before.differences(&now);
    assert!(
        of_network.iter().all(|line| line.contains(" processes: ")),
        "the machine has changed: {of_network:#?}"
    );

    // What docs/src/host.md lists is in there.
    let devices = user.inside("ip -o link show").stdout;
    assert!(
        devices.contains(" ikhn:") && devices.contains(" ikvm1-3-1:"),
        "{devices}"
    );
    let rules = user.inside("nft list ruleset").stdout;
    assert!(rules.contains("table inet ikv-fabric"), "{rules}");
    let forwarding = user
        .inside("cat /proc/sys/net/ipv4/ip_forward; ls /sys/class/net")
        .stdout;
    assert!(
        forwarding.starts_with('1') && forwarding.contains("ikhn"),
        "{forwarding}"
    );

    // A command's status and arguments pass; a client in there finds the fabric.
    assert_eq!(user.inside("exit 7").code, Some(7));
    let program = user.folder().join("ikv-fabric");
    let status = user.inside(&format!("{} status", program.display()));
    assert_eq!(status.code, Some(0), "{status:?}");

    cables_work_from_outside(&user);
    plugging_works(&user);
    said_by_vm_args(&user);
    fabric.end();
    user.assert_nothing_left();
    let after = HostState::of(&user.site.host, &elsewhere);
    before.assert_unchanged(&after, "a fabric without root ended");
}

/// Captures, cuts and vhost-user sockets do not care where the client is.
fn cables_work_from_outside(user: &OrdinaryUser) {
    let file = user.run_folder().join("captured.pcapng");
    let file = file.to_str().unwrap();
    let mut capture = user.command(&["capture", "ikhb", "--count", "1", "-w", file]);
    let capture = capture.stderr(Stdio::piped()).spawn().unwrap();
    let mut capture = Ended(capture);
    // Who nobody answers asks again every second.
    let pinging = user.command(&["shell", "--", "ping", "-c", "30", "192.168.96.2"]);
    let pinging = Ended(silent(pinging));
    let captured = until("a captured frame", SOON, || {
        let ended = capture.0.try_wait().map_err(|error| error.to_string())?;
        ended.ok_or_else(|| "nothing yet".into())
    });
    drop(pinging);
    assert_eq!(captured.code(), Some(0));
    assert!(std::fs::metadata(file).unwrap().len() > 100);
    std::fs::remove_file(file).unwrap();

    let carrier = || user.inside("cat /sys/class/net/ikhn/carrier").stdout;
    assert_eq!(carrier(), "1\n");
    assert_eq!(user.ask(&["cable", "ikhb", "down"]).code, Some(0));
    assert_eq!(carrier(), "0\n");
    assert_eq!(user.ask(&["cable", "ikhb", "up"]).code, Some(0));
    assert_eq!(carrier(), "1\n");

    // Two front ends in the client's process, through the sockets of a cable's two ends.
    let words = [
        "bench",
        "rack1:u3:1",
        "--size",
        "64",
        "--time",
        "0.1",
        "--trial",
        "0",
        "--load",
        "1000",
    ];
    let bench = user.ask(&words);
    assert_eq!(bench.code, Some(0), "{bench:?}");
}

/// A program of the user in there opens a tap, as QEMU would.
fn plugging_works(user: &OrdinaryUser) {
    let lacking = lacks_for_vms();
    if let Some(lacking) = lacking {
        return skip(&format!("a tap is not plugged in: needs {lacking}"));
    }
    let qemu = "exec qemu-system-x86_64 -nodefaults -display none -S -m 32 -netdev \
                tap,id=n,ifname=ikvm1-4-1,script=no,downscript=no -device virtio-net-pci,netdev=n,romfile=";
    let carrier = || user.inside("cat /sys/class/net/ikvm1-4-1/carrier").stdout;
    assert_eq!(carrier(), "0\n");
    let qemu = Ended(silent(user.command(&["shell", "--", "sh", "-c", qemu])));
    until("the tap to be taken", SOON, || {
        let said = carrier();
        ensure(said == "1\n", || said)
    });
    drop(qemu);
}

fn said_by_vm_args(user: &OrdinaryUser) {
    let tap = user.ask(&["vm-args", "rack1:u3"]);
    assert!(tap.stderr.contains("`ikv-fabric shell -- "), "{tap:?}");
    let socket = user.ask(&["vm-args", "rack1:u3", "--nic", "vhost-user"]);
    let path = user.run_folder().join("ikv-fabric/vhost/ikvm1-3-1.sock");
    assert!(socket.stdout.contains(path.to_str().unwrap()), "{socket:?}");
    assert!(!socket.stderr.contains("shell"), "{socket:?}");
}

#[test]
fn the_way_out_leads_to_the_world_and_not_to_the_host() {
    if let Some(lacking) = lacks() {
        return skip(&format!("needs {lacking}"));
    }
    let user = OrdinaryUser::new("wayout");
    user.site
        .host
        .ip(&format!("address add {HOST_ELSEWHERE}/24 dev lo"));
    let world = greeter(&user.site.outside, &format!("{OUTSIDE}:0"));
    let own = greeter(&user.site.host, "127.0.0.1:0");
    let open = greeter(&user.site.host, "0.0.0.0:0");
    let mut fabric = user.start(&["--switches", "none"]);
    fabric.wait_ready(SOON);

    let answer = read_inside(&user, &OUTSIDE.to_string(), world.port());
    assert_eq!(answer, format!("hello {HOST_OUTSIDE}"));
    let gateway = OUTSIDE.to_string();
    let outside = HOST_OUTSIDE.to_string();
    for (address, port) in [
        ("127.0.0.1", own.port()),
        // pasta would map the gateway's address to the host's loopback.
        (&*gateway, own.port()),
        ("127.0.0.1", open.port()),
        (&*outside, open.port()),
        (HOST_ELSEWHERE, open.port()),
    ] {
        let answer = read_inside(&user, address, port);
        assert!(!answer.contains("hello"), "{address}:{port}: {answer}");
    }
    // Nor does anything lead in.
    let said = user.inside("ss -Hltn").stdout;
    assert_eq!(said, "", "something listens in the namespace");
    fabric.end();
    user.assert_nothing_left();
}

#[test]
fn nobody_else_may_enter_or_ask() {
    if let Some(lacking) = lacks() {
        return skip(&format!("needs {lacking}"));
    }
    let user = OrdinaryUser::new("others");
    let mut fabric = user.start(&["--switches", "none"]);
    fabric.wait_ready(SOON);
    let socket = user.socket().display().to_string();
    let other = 1_234_568;
    for words in [
        &["status"][..],
        &["shell", "--", "true"],
        &["cable", "ikhb", "down"],
    ] {
        let words = [&["--socket", &socket], words].concat();
        let mut command = user.command_as(other, &words);
        let answer = Answer::of(&mut command);
        assert_eq!(answer.code, Some(1), "{answer:?}");
    }
    let pid = fabric.pid().to_string();
    let mut enter = Command::new("setpriv");
    enter.args([
        "--reuid",
        "1234568",
        "--regid",
        "1234568",
        "--clear-groups",
        "--",
    ]);
    enter.args([
        "nsenter",
        "--preserve-credentials",
        "--user",
        "--net",
        "-t",
        &pid,
        "true",
    ]);
    assert!(!enter.output().unwrap().status.success());
    // Root does not run a program in a place that the user has named.
    let mut command = Command::new(ikv_tests::ikv_fabric());
    command.args(["--socket", &socket, "shell", "--", "true"]);
    let answer = Answer::of(&mut command);
    assert!(
        answer.refusal().contains("that of user 1234567"),
        "{answer:?}"
    );
    fabric.end();
    user.assert_nothing_left();
}

#[test]
fn a_killed_fabric_leaves_only_files_and_clean_removes_them() {
    if let Some(lacking) = lacks() {
        return skip(&format!("needs {lacking}"));
    }
    let user = OrdinaryUser::new("killed");
    let mut fabric = user.start(&["--switches", "none"]);
    fabric.wait_ready(SOON);
    let pid = fabric.pid();
    let second = user.ask(&["run", "--switches", "none"]);
    assert!(
        second
            .stderr
            .contains(&format!("already running on this socket, pid {pid}")),
        "{second:?}"
    );
    fabric.kill();
    user.wait_processes_end();
    let cleaned = user.ask(&["clean"]);
    let says = format!("took away what the fabric with pid {pid} had left");
    assert!(cleaned.stdout.starts_with(&says), "{cleaned:?}");
    user.assert_nothing_left();
}

#[test]
fn without_pasta_there_is_no_way_out_and_all_else_works() {
    if let Some(lacking) = lacks_for_host() {
        return skip(&format!("needs {lacking}"));
    }
    let mut user = OrdinaryUser::new("nopasta");
    user.has_only(&["sh", "getent", "unshare", "nft", "env", "true"]);
    let check = user.ask(&["check", "--switches", "none"]);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(
        check
            .stdout
            .contains("no way out to the world\n    pasta is not installed"),
        "{check:?}"
    );
    assert!(check.stdout.contains("apt install uidmap"), "{check:?}");
    let mut fabric = user.start(&["--switches", "none"]);
    fabric.wait_ready(SOON);
    let said = fabric.end();
    let line = "no way out to the world: pasta is not installed: `apt install passt`";
    assert!(said.contains(line), "{said}");
    user.assert_nothing_left();
}

#[test]
fn where_users_may_make_no_namespaces_the_setting_is_named() {
    if let Some(lacking) = lacks_for_host() {
        return skip(&format!("needs {lacking}"));
    }
    let user = OrdinaryUser::new("refused");
    // In a user namespace of the test's own, which has every id and a limit of its own.
    let said = without_namespaces(&user, &["run", "--switches", "none"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    for part in [
        "refuses",
        "`sudo sysctl user.max_user_namespaces=10000`",
        "`sudo ikv-fabric run`",
    ] {
        assert!(said.stderr.contains(part), "{part}: {said:?}");
    }
    let said = without_namespaces(&user, &["check", "--switches", "none"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.stdout.contains("user.max_user_namespaces=10000"),
        "{said:?}"
    );
    user.assert_nothing_left();
}

/// Runs a command of the user where no user namespace may be made.
fn without_namespaces(user: &OrdinaryUser, words: &[&str]) -> Answer {
    let inner = user.command(words);
    let mut outer = Command::new("unshare");
    outer.args(["--user", "--", "sh", "-c"]);
    // A program that starts once 0 is mapped has the rights that the setting takes.
    let limited = "echo 0 >/proc/sys/user/max_user_namespaces && shift 3 && exec \"$@\"";
    outer.arg("read -r _; limited=$1; shift; exec sh -c \"$limited\" sh \"$@\"");
    // Without `ip netns exec NAME`, which needs root of the whole machine.
    outer.args(["sh", limited]).args(inner.get_args());
    outer
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = outer.spawn().unwrap();
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    let pid = child.id().to_string();
    until("a user namespace", SOON, || {
        ensure(namespace(&pid) != namespace("self"), || "not yet".into())
    });
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{pid}/{map}"), "0 0 4294967295").unwrap();
    }
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn switches_run_as_an_ordinary_user() {
    if let Some(lacking) = lacks().or_else(lacks_for_vms) {
        return skip(&format!("needs {lacking}"));
    }
    ensure_image().unwrap();
    let user = OrdinaryUser::new("rootlessvms");
    let world = greeter(&user.site.outside, &format!("{OUTSIDE}:0"));
    let elsewhere = user.folder().join("nothing");
    let before = HostState::of(&user.site.host, &elsewhere);
    let mut fabric = user.start(&["--only", "rack1,spine1,internet"]);
    fabric.wait_ready(PATIENCE);
    let said = fabric.stderr();
    assert!(said.contains("QEMU runs as you"), "{said}");
    all_of_it_works(&user, world);
    let ready = said.lines().find(|line| line.contains("✓ ready"));
    figure(
        "four switches without root",
        ready.unwrap_or_default().trim(),
    );
    end_of_switches(&user, fabric);
    let after = HostState::of(&user.site.host, &elsewhere);
    before.assert_unchanged(&after, "a datacenter without root ended");
}

fn all_of_it_works(user: &OrdinaryUser, world: SocketAddr) {
    let ok = |words: &[&str]| {
        let answer = user.ask(words);
        assert_eq!(answer.code, Some(0), "{words:?}: {answer:?}");
        answer.stdout
    };
    assert_eq!(ok(&["exec", "leaf1", "--", "hostname"]), "leaf1\n");
    assert_eq!(ok(&["ssh", "leaf1", "hostname"]), "leaf1\n");
    assert_eq!(ok(&["shell", "--", "ssh", "leaf2", "hostname"]), "leaf2\n");
    ok(&["shell", "--", "ping", "-c", "1", "-W", "10", "192.168.98.4"]);
    // A switch reaches the world through the host's link and pasta. Not by `nc </dev/null`: where the
    // client closes its half first, Debian 12's pasta does not pass on the end of the other one.
    let fetch = format!("cat </dev/tcp/{OUTSIDE}/{}", world.port());
    let fetched = ok(&["exec", "leaf1", "--", "timeout", "15", "bash", "-c", &fetch]);
    assert_eq!(fetched, format!("hello {HOST_OUTSIDE}"));
    // Hosts plug in by vhost-user sockets, from outside of the namespaces.
    let probed = user.ask(&["probe", "--quick", "--position", "rack1:u3"]);
    assert_eq!(probed.code, Some(0), "{probed:?}");
    let captured = ok(&["capture", "spine1:2", "-f", "tcp port 179", "--count", "2"]);
    assert!(captured.contains("BGP"), "{captured}");
    ok(&["cable", "spine1:2", "down"]);
    until("leaf1 to lose its session", SOON, || {
        let status = user.ask(&["--json", "status"]).stdout;
        let status: serde_json::Value = serde_json::from_str(&status).map_err(|e| e.to_string())?;
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let leaf = nodes.into_iter().find(|node| node["name"] == "leaf1");
        let bgp = leaf.map(|leaf| leaf["bgp"]["established"].clone());
        ensure(bgp == Some(0.into()), || format!("{bgp:?}"))
    });
}

fn end_of_switches(user: &OrdinaryUser, fabric: RootlessFabric) {
    let qemus = || {
        let all = user.processes();
        all.iter().filter(|line| line.contains("qemu")).count()
    };
    let vms = user.run_folder().join("ikv-fabric/vm");
    assert!(vms.exists());
    fabric.end();
    assert_eq!(qemus(), 0);
    user.assert_nothing_left();
}

/// A child that is killed when the test no longer needs it.
struct Ended(Child);

fn silent(mut command: Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
