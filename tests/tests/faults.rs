//! The host is unchanged however a fabric ends or fails to start.
//!
//! These tests cover the faults that a fabric must heal or report in one clear sentence:
//!
//! | fault | tested in | expected result |
//! |---|---|---|
//! | kill -9 of a switch of each role | `datacenter/faults.rs` | restarted with all its sessions; other cables lose no frame |
//! | kill -9 of dnsmasq or bgpd in a switch | `datacenter/faults.rs` | restarted by the switch's init with its leases or sessions |
//! | kill -9 of the fabric | here; with switches in `subset.rs` | its QEMUs end; the next `run` or `clean` undoes the rest |
//! | signals at any moment | here | everything is undone |
//! | full disk: socket's folder, keys, seeds | `obstacles.rs` | one sentence, no file left |
//! | full disk: image, at once or during its build | `obstacles.rs` | one sentence; the build ends and leaves only its log |
//! | no /dev/net/tun; no QEMU, or a broken one; no nft, no mmdebstrap | `obstacles.rs` | one sentence that says what to install |
//! | taken: names, routes, addresses, tables, files, sockets | `obstacles.rs` | one sentence with the remedy |
//! | taken: the API's socket | here | the second fabric is refused, the first unharmed |
//! | taken: a display's port | `vnc.rs` | one sentence, nothing left |
//! | not root, not the owner | `access.rs` | one sentence |
//! | 1,000 malformed API requests; slow, vanishing and too many clients | `api/` | refused with a sentence or disconnected; no frame, memory, descriptor or thread lost |
//! | silent consoles whose clients vanish | `datacenter/faults.rs` | their descriptors are closed |
//! | guests that break virtio's rules | `hostile/` | only their own port stops |
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::{Command, Stdio};
use std::time::Instant;

use ikv_tests::panel::{PanelFabric, PanelHost};
use ikv_tests::patience::{SOON, ended, wait_until};
use ikv_tests::{Answer, Netns, have_root, ikv_fabric, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

#[test]
fn ending_signals_leave_the_host_unchanged() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("signals");
    let before = host.state();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let fabric = host.run(&[]);
        let changed = before.differences(&host.state());
        for part in [
            "links",
            "addresses",
            "IPv4 routes",
            "nftables",
            "sysctls",
            "files",
            "processes",
        ] {
            let new = format!("+ {part}: ");
            assert!(
                changed.iter().any(|line| line.starts_with(&new)),
                "it has no {part}"
            );
        }
        fabric.end_by(signal);
        before.assert_unchanged(&host.state(), &format!("{signal:?}"));
    }
}

#[test]
fn a_signal_during_the_start_leaves_the_host_unchanged() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("early");
    let before = host.state();
    let up = Instant::now();
    host.run(&[]).end();
    let whole = up.elapsed();
    for twelfth in 0..=12 {
        let mut fabric = host.spawn(host.run_command(&[]));
        // This sleep chooses the moment under test.
        std::thread::sleep(whole * twelfth / 24);
        fabric.signal(if twelfth % 2 == 0 {
            Signal::INT
        } else {
            Signal::TERM
        });
        let status = fabric.wait_end();
        // Before it handles signals it has changed nothing, and the signal ends it. Status 0 only if
        // it was ready.
        assert!(
            matches!(status.code(), Some(0 | 1) | None),
            "{status}: {}",
            fabric.stderr()
        );
        before.assert_unchanged(&host.state(), &format!("a signal after {twelfth}/24"));
    }
}

#[test]
fn a_second_fabric_on_the_same_socket_is_refused() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("second");
    let before = host.state();
    let fabric = host.run(&[]);
    let running = host.settled_state();
    let says = format!(
        "a fabric is already running on this socket, pid {}",
        fabric.pid()
    );
    let refused = Answer::of(&mut host.run_command(&[]));
    assert!(refused.refusal().starts_with(&says), "{refused:?}");
    // The socket identifies a fabric, not the namespace.
    let elsewhere = Netns::new("elsewhere");
    let program = ikv_fabric().display().to_string();
    let mut command = elsewhere.command(&program);
    command
        .arg("--socket")
        .arg(host.socket())
        .args(["run", "--switches", "none"]);
    let refused = Answer::of(&mut command);
    assert!(refused.refusal().starts_with(&says), "{refused:?}");
    let refused = host.ask(&["clean"]);
    assert!(refused.refusal().starts_with(&says), "{refused:?}");
    running.assert_unchanged(&host.state(), "others were refused");

    // A fabric with another socket in the same namespace finds the first one's devices.
    let mut command = host.netns.command(&program);
    let other = host.folder().join("other.sock");
    command
        .arg("--socket")
        .arg(other)
        .args(["run", "--switches", "none"]);
    let refused = Answer::of(&mut command);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("exist"), "{refused:?}");
    running.assert_unchanged(&host.state(), "another socket was refused");
    assert_eq!(host.json(&["status"])["ready"], true);
    fabric.end();
    before.assert_unchanged(&host.state(), "the first ended");
}

#[test]
fn fabrics_in_different_namespaces_are_independent() {
    if !have_root() {
        return;
    }
    let [one, two] = ["one", "two"].map(PanelHost::new);
    let before = [one.state(), two.state()];
    let first = one.run(&[]);
    let second = two.run(&["--set", "topology.racks=1"]);
    assert_eq!(one.json(&["status"])["cables"], 141);
    assert_eq!(two.json(&["status"])["cables"], 49);
    let running = one.settled_state();
    second.end();
    before[1].assert_unchanged(&two.state(), "the second ended");
    running.assert_unchanged(&one.state(), "the other one ended");
    first.end();
    before[0].assert_unchanged(&one.state(), "the first ended");
}

fn kill(mut fabric: PanelFabric<'_>) -> u32 {
    let pid = fabric.pid();
    fabric.signal(Signal::KILL);
    fabric.wait_end();
    pid
}

#[test]
fn the_next_run_undoes_what_a_killed_fabric_left() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("killed");
    let before = host.state();
    let pid = kill(host.run(&[]));
    assert!(
        !before.differences(&host.state()).is_empty(),
        "it leaves something"
    );
    assert!(host.state().part("processes").is_empty());
    // Commands report that it is gone.
    let answer = host.ask(&["status"]);
    assert!(
        answer.refusal().starts_with("no fabric answers at "),
        "{answer:?}"
    );

    let fabric = host.run(&["--set", "topology.racks=1"]);
    let says = format!("took away what the fabric with pid {pid} had left");
    assert!(fabric.stderr().contains(&says), "{}", fabric.stderr());
    assert_eq!(host.netns.ip("-o link show").lines().count(), 1 + 2 * 49);
    fabric.end();
    before.assert_unchanged(&host.state(), "the next one ended");
}

#[test]
fn clean_undoes_what_a_killed_fabric_left() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("clean");
    let before = host.state();
    let nothing = host.ask(&["clean"]);
    assert_eq!(
        (nothing.code, nothing.stdout.as_str()),
        (Some(0), "nothing to take away\n")
    );
    assert_eq!(host.json(&["clean"]), json!({"pid": null, "undone": 0}));
    before.assert_unchanged(&host.state(), "there was nothing to clean");

    let pid = kill(host.run(&[]));
    let cleaned = host.ask(&["clean"]);
    let says = format!("took away what the fabric with pid {pid} had left");
    assert!(
        cleaned.code == Some(0) && cleaned.stdout.starts_with(&says),
        "{cleaned:?}"
    );
    before.assert_unchanged(&host.state(), "clean");

    let pid = kill(host.run(&[]));
    let cleaned = host.json(&["clean"]);
    assert_eq!(cleaned["pid"], pid);
    assert!(cleaned["undone"].as_u64().unwrap() >= 5, "{cleaned}");
    before.assert_unchanged(&host.state(), "clean --json");
}

#[test]
fn clean_undoes_what_a_fabric_killed_during_its_start_left() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("halfway");
    let before = host.state();
    let up = Instant::now();
    host.run(&[]).end();
    let whole = up.elapsed();
    for twelfth in 0..=12 {
        let fabric = host.spawn(host.run_command(&[]));
        // This sleep chooses the moment under test.
        std::thread::sleep(whole * twelfth / 24);
        kill(fabric);
        let cleaned = host.ask(&["clean"]);
        assert_eq!(cleaned.code, Some(0), "{cleaned:?}");
        before.assert_unchanged(&host.state(), &format!("killed after {twelfth}/24"));
    }
}

#[test]
fn clean_refuses_in_another_namespace_and_names_the_right_one() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("where");
    let before = host.state();
    let pid = kill(host.run(&[]));
    let left = host.settled_state();
    let elsewhere = Netns::new("elsewhere");
    let program = ikv_fabric().display().to_string();
    let clean = || {
        let mut command = elsewhere.command(&program);
        Answer::of(command.arg("--socket").arg(host.socket()).arg("clean"))
    };
    let refused = clean();
    let line = refused.refusal();
    assert!(line.starts_with(&format!(
        "fabric {pid} left things in another network namespace"
    )));
    left.assert_unchanged(&host.state(), "it was refused elsewhere");
    // The line that it gives works, once the program has its path.
    let (_, line) = line.split_once('`').unwrap();
    let (line, _) = line.split_once('`').unwrap();
    run(Command::new("sh").args([
        "-c",
        &line.replace("ikv-fabric clean", &format!("{program} clean")),
    ]));
    before.assert_unchanged(&host.state(), "nsenter … clean");

    // Everything in the namespace is gone with it; only files are left.
    kill(host.run(&[]));
    run(Command::new("ip").args(["netns", "del", host.netns.name()]));
    let cleaned = clean();
    assert_eq!(cleaned.code, Some(0), "{cleaned:?}");
    assert_eq!(std::fs::read_dir(host.folder()).unwrap().count(), 0);
}

#[test]
fn forwarding_is_restored_only_if_unchanged_meanwhile() {
    if !have_root() {
        return;
    }
    let forwarding = |host: &PanelHost| host.netns.run("sysctl -n net.ipv4.ip_forward");
    // Before the fabric, set while it runs, and after it.
    let cases = [
        ("0", None, "0"),
        ("1", None, "1"),
        ("0", Some("0"), "0"),
        ("1", Some("0"), "0"),
    ];
    for case @ (before, meanwhile, after) in cases {
        let host = PanelHost::new("forward");
        host.netns
            .run(&format!("sysctl -q net.ipv4.ip_forward={before}"));
        // Hardened hosts have redirects off, and the kernel switches them on when forwarding is
        // switched off.
        host.netns
            .run("sysctl -q net.ipv4.conf.all.accept_redirects=0");
        let state = host.state();
        let fabric = host.run(&[]);
        assert_eq!(forwarding(&host), "1\n", "{case:?}");
        if let Some(value) = meanwhile {
            host.netns
                .run(&format!("sysctl -q net.ipv4.ip_forward={value}"));
        }
        fabric.end();
        assert_eq!(forwarding(&host), format!("{after}\n"), "{case:?}");
        if meanwhile.is_none() {
            state.assert_unchanged(&host.state(), &format!("{case:?}"));
        }
    }
}

#[test]
fn a_closed_standard_error_does_not_end_it() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("deaf");
    let before = host.state();
    let mut command = host.run_command(&[]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    // Such as a terminal that was closed, or `| head` that has ended.
    drop(child.stderr.take());
    let ready = host.ask(&["status", "--wait", "20"]);
    assert_eq!(ready.code, Some(0), "{ready:?}");
    host.netns.ip("link set ikls1-3 down");
    wait_until("a notice that cannot be written", SOON, || {
        host.netns.ip("link show ikls1-3").contains(",UP")
    });
    assert_eq!(host.ask(&["status"]).code, Some(0), "it goes on");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let status = ended(&mut child, SOON).expect("it ends");
    assert_eq!(status.code(), Some(0), "{status}");
    before.assert_unchanged(&host.state(), "its standard error was closed");
}
