//! `ikv-fabric apply` on a patch panel: racks, positions and cables come and go, and cables that
//! stay lose no frame. With switches it is tried in `apply_switches.rs`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ikv_tests::panel::{Answer, PanelHost};
use ikv_tests::patience::{SOON, ended, wait_until};
use ikv_tests::{Nic, figure, have_root};
use serde_json::{Value, json};
use tempfile::TempPath;

/// No account is needed.
const USER: &str = "54321";

/// Frames on their way at the same time: fewer than a tap holds.
const UNDER_WAY: u64 = 200;

/// A configuration, in a file that anybody may read and that is no part of the fabric's host.
fn file(text: &str) -> TempPath {
    let mut file = tempfile::Builder::new()
        .suffix(".toml")
        .permissions(Permissions::from_mode(0o644))
        .tempfile()
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.into_temp_path()
}

fn apply(host: &PanelHost, text: &str) -> Answer {
    let file = file(text);
    host.ask(&["apply", "-c", file.to_str().unwrap()])
}

fn applied(host: &PanelHost, text: &str) -> Answer {
    let answer = apply(host, text);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    answer
}

fn shape(racks: u16, num_u: u16) -> String {
    format!("[topology]\nracks = {racks}\nnum_u = {num_u}\n")
}

fn cable_names(host: &PanelHost) -> Vec<String> {
    let cables = host.json(&["cables"]);
    let name = |cable: &Value| cable["name"].as_str().unwrap().to_owned();
    cables.as_array().unwrap().iter().map(name).collect()
}

/// The names of the cables that a fabric of this configuration has.
fn planned(host: &PanelHost, text: &str) -> Vec<String> {
    let file = file(text);
    let topology = host.json(&["topology", "-c", file.to_str().unwrap()]);
    let name = |cable: &Value| cable["name"].as_str().unwrap().to_owned();
    topology["cables"]
        .as_array()
        .unwrap()
        .iter()
        .map(name)
        .collect()
}

/// Frames that go both ways over a cable for as long as `meanwhile` takes, never more at the same
/// time than its ends can hold. Returns how many each side has sent; the other has got them all.
fn under_traffic(host: &PanelHost, ends: [&str; 2], meanwhile: impl FnOnce()) -> [u64; 2] {
    let nics = ends.map(|end| host.netns.enter(|| Nic::plain(end)));
    let stop = AtomicBool::new(false);
    let sent = [AtomicU64::new(0), AtomicU64::new(0)];
    let got = [AtomicU64::new(0), AtomicU64::new(0)];
    std::thread::scope(|scope| {
        for from in 0..2 {
            let (nics, stop, sent, got) = (&nics, &stop, &sent[from], &got[1 - from]);
            scope.spawn(move || {
                let mut frame = [0x5a; 200];
                while !stop.load(Ordering::Relaxed) {
                    let number = sent.load(Ordering::Relaxed);
                    if number - got.load(Ordering::Relaxed) >= UNDER_WAY {
                        std::thread::yield_now();
                        continue;
                    }
                    frame[14..22].copy_from_slice(&number.to_be_bytes());
                    // First counted, so that nothing is got that was not sent.
                    sent.store(number + 1, Ordering::SeqCst);
                    nics[from].send([0; 10], &frame);
                }
            });
            scope.spawn(move || {
                let mut next = 0u64;
                let mut silent_since = None;
                loop {
                    let all = stop.load(Ordering::SeqCst) && next == sent.load(Ordering::SeqCst);
                    if all {
                        return;
                    }
                    let patience = Duration::from_millis(50);
                    let Some((_, frame)) = nics[1 - from].receive_within(patience) else {
                        let since = *silent_since.get_or_insert_with(Instant::now);
                        assert!(since.elapsed() < SOON, "frame {next} was lost");
                        continue;
                    };
                    silent_since = None;
                    let number = u64::from_be_bytes(frame[14..22].try_into().unwrap());
                    assert_eq!(number, next, "in order, and none is missing");
                    next += 1;
                    got.store(next, Ordering::Relaxed);
                }
            });
        }
        let stops = Stop(&stop);
        wait_until("frames to flow", SOON, || {
            got.iter().all(|got| got.load(Ordering::Relaxed) > 1000)
        });
        meanwhile();
        drop(stops);
    });
    sent.map(AtomicU64::into_inner)
}

/// Ends the traffic, also when what goes on meanwhile fails.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_rack_is_added_and_removed_and_a_cable_that_stays_loses_no_frame() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("apply");
    let before = host.state();
    let fabric = host.run(&[]);
    // A device that had carrier once has a route more than before.
    let warm = under_traffic(&host, ["ikls1-3", "ikvm1-3-1"], || {});
    let three = host.settled_state();

    let sent = under_traffic(&host, ["ikls1-3", "ikvm1-3-1"], || {
        applied(&host, &shape(4, 23));
        assert_eq!(cable_names(&host), planned(&host, &shape(4, 23)));
        assert_eq!(host.json(&["status"])["cables"], 187);
        applied(&host, &shape(3, 23));
        assert_eq!(cable_names(&host), planned(&host, ""));
    });
    let cable = &host.json(&["cables", "ikeb1-3"])[0];
    let sent = [warm[0] + sent[0], warm[1] + sent[1]];
    for (lane, sent) in cable["lanes"].as_array().unwrap().iter().zip(sent) {
        assert_eq!(lane["frames_in"], sent, "{lane}");
        assert_eq!(lane["frames_out"], sent, "{lane}");
        assert_eq!(lane["drops"], json!({}), "{lane}");
    }
    figure(
        "frames on a cable while a rack came and went",
        &format!("{sent:?}, none lost"),
    );

    // What comes is like what was there from the start, and nothing of it stays.
    fabric.wait_said("another configuration was applied");
    assert!(!fabric.stderr().contains("somebody"), "{}", fabric.stderr());
    three.assert_unchanged(&host.settled_state(), "after a rack came and went");
    applied(&host, &shape(4, 23));
    let new = ["ikls8-23", "ikvm4-23-2"].map(|end| host.netns.enter(|| Nic::plain(end)));
    new[0].send([0; 10], &[7; 60]);
    assert_eq!(new[1].receive().1, [7; 60]);
    drop(new);
    fabric.end();
    before.assert_unchanged(&host.state(), "and all is taken away");
}

#[test]
fn positions_come_and_go() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("apply-u");
    let fabric = host.run(&["--set", "topology.num_u=10"]);
    for num_u in [12, 3, 23, 10] {
        applied(&host, &shape(3, num_u));
        assert_eq!(cable_names(&host), planned(&host, &shape(3, num_u)));
        let last = format!("ikvm3-{num_u}-2");
        let pair =
            [format!("ikls6-{num_u}"), last].map(|end| host.netns.enter(|| Nic::plain(&end)));
        pair[1].send([0; 10], &[9; 60]);
        assert_eq!(pair[0].receive().1, [9; 60]);
        let guards = host.netns.run("nft list table netdev ikv-fabric");
        assert_eq!(
            guards.matches("chain guard-").count() + 1,
            2 * cable_names(&host).len()
        );
    }
    fabric.end();
}

#[test]
fn cables_of_ones_own_and_what_is_made_of_cables() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("apply-own");
    let fabric = host.run(&[]);
    host.json(&["impair", "iksb12", "--delay", "3ms"]);
    let own = "[[cable]]\nname = \"mine\"\nends = [\"leaf1:u3\", \"leaf3:u5\"]\n\
               [[cable]]\nname = \"iksb13\"\nstate = \"down\"\nloss = \"1%\"\n";
    let answer = applied(&host, own);
    assert!(
        answer.stdout.contains("+ 1 cable plugged in: mine"),
        "{answer:?}"
    );
    let pair = ["ikls1-3", "ikls3-5"].map(|end| host.netns.enter(|| Nic::plain(end)));
    pair[0].send([0; 10], &[1; 60]);
    assert_eq!(pair[1].receive().1, [1; 60]);
    drop(pair);
    let [set, configured] =
        ["iksb12", "iksb13"].map(|name| host.json(&["cables", name])[0].clone());
    assert_eq!(
        set["lanes"][0]["impairment"]["delay"], "3ms",
        "set by hand, and kept: {set}"
    );
    assert_eq!(configured["state"], "down", "{configured}");
    assert_eq!(
        configured["lanes"][1]["impairment"]["loss"], "1%",
        "{configured}"
    );

    let answer = applied(&host, &shape(3, 23));
    assert!(
        answer.stdout.contains("- 1 cable unplugged: mine"),
        "{answer:?}"
    );
    let [set, configured] =
        ["iksb12", "iksb13"].map(|name| host.json(&["cables", name])[0].clone());
    assert_eq!(set["lanes"][0]["impairment"]["delay"], "3ms", "{set}");
    assert_eq!(
        (
            &configured["state"],
            configured["lanes"][0].get("impairment")
        ),
        (&json!("up"), None)
    );
    let pair = ["ikls1-3", "ikvm1-3-1"].map(|end| host.netns.enter(|| Nic::plain(end)));
    pair[0].send([0; 10], &[2; 60]);
    assert_eq!(pair[1].receive().1, [2; 60], "the ends are where they were");
    fabric.end();
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("apply-dry");
    let fabric = host.run(&[]);
    let before = host.settled_state();
    let file = file(&shape(4, 23));
    let words = ["apply", "--dry-run", "-c", file.to_str().unwrap()];
    let answer = host.ask(&words);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(
        answer.stdout.contains("+ 46 cables plugged in: iksb18"),
        "{answer:?}"
    );
    let report = host.json(&words);
    assert_eq!(report["applied"], false);
    assert_eq!(
        report["difference"]["cables"]["kept"]
            .as_array()
            .unwrap()
            .len(),
        141
    );
    assert_eq!(
        report["difference"]["cables"]["added"]
            .as_array()
            .unwrap()
            .len(),
        46
    );
    before.assert_unchanged(&host.settled_state(), "after a dry run");
    fabric.end();
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_done() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("apply-no");
    let fabric = host.run(&[]);
    let before = host.settled_state();
    for (text, says) in [
        ("[topology\n", "line 1"),
        (
            "[topology]\nracks = 0\n",
            "line 2: topology.racks: 0 is out of bounds",
        ),
        ("[topology]\nrakcs = 4\n", "line 2: topology.rakcs"),
        (
            "[topology]\nracks = 4\n[vm]\nnic = \"tap\"\n",
            "line 4: vm.nic: this cannot be changed while the fabric runs",
        ),
        (
            "[host]\nlink = \"other\"\n",
            "line 2: host.link: this cannot be changed",
        ),
        (
            "[ssh]\nkey_dir = \"/etc\"\n",
            "line 2: ssh.key_dir: this cannot be changed",
        ),
        (
            "[recorder]\nsnap = 100\n",
            "line 2: recorder.snap: the flight recorder of a running fabric stays",
        ),
        (
            "[[cable]]\nname = \"iksb99\"\nstate = \"down\"\n",
            "there is no cable \"iksb99\"",
        ),
    ] {
        let answer = apply(&host, text);
        assert!(answer.refusal().contains(says), "{answer:?}");
    }
    let absent = host.ask(&["apply", "-c", "/nonexistent.toml"]);
    assert!(
        absent
            .refusal()
            .contains("cannot read the configuration /nonexistent.toml")
    );
    let nothing = host.ask(&["apply"]);
    assert!(
        nothing.refusal().contains("name a file with -c"),
        "{nothing:?}"
    );
    before.assert_unchanged(&host.settled_state(), "after refusals");
    fabric.end();
    let nobody = host.ask(&["apply", "--set", "topology.racks=4"]);
    assert!(nobody.refusal().contains("no fabric"), "{nobody:?}");
}

#[test]
fn devices_are_for_root_and_cables_for_the_owner() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("apply-own");
    let owner = format!("owner={USER}");
    let fabric = host.run(&["--set", &owner]);
    let before = host.settled_state();
    let as_user = |text: &str| {
        let file = file(&format!("owner = {USER}\n{text}"));
        let mut command: Command = host.netns.command("setpriv");
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"]);
        command
            .arg(ikv_tests::ikv_fabric())
            .arg("--socket")
            .arg(host.socket());
        Answer::of(command.args(["apply", "-c"]).arg(file.as_os_str()))
    };
    let answer = as_user(&shape(4, 23));
    assert!(
        answer.refusal().contains(
            "needs root, because it makes or removes network devices: use `sudo ikv-fabric apply`"
        ),
        "{answer:?}"
    );
    before.assert_unchanged(&host.settled_state(), "after a refusal");
    let answer = as_user(
        "[[cable]]\nname = \"iksb12\"\nstate = \"down\"\n[[cable]]\nends = [\"leaf1:u3\", \"leaf2:u3\"]\n",
    );
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert_eq!(host.json(&["cables", "iksb12"])[0]["state"], "down");
    assert!(cable_names(&host).contains(&"ikcb1".to_owned()));
    fabric.end();
}

#[test]
fn what_fails_in_the_middle_is_taken_back() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("apply-undo");
    let clean = host.state();
    let fabric = host.run(&[]);
    // Somebody's device is in the way of a tap, then somebody's file in that of a socket.
    host.netns
        .ip("link add ikvm4-9-1 type veth peer name other");
    host.netns.ip("link set ikvm4-9-1 up");
    host.netns.ip("link set other up");
    let before = host.settled_state();
    let answer = apply(&host, &shape(4, 23));
    assert!(
        answer
            .refusal()
            .starts_with("nothing was applied: cannot create 92 taps"),
        "{answer:?}"
    );
    assert!(answer.refusal().contains("ikvm4-9-1"), "{answer:?}");
    before.assert_unchanged(&host.settled_state(), "a tap could not be made");
    host.netns.ip("link del ikvm4-9-1");

    let warm = under_traffic(&host, ["ikls1-4", "ikvm1-4-1"], || {});
    let before = host.settled_state();
    let in_the_way = host.socket().with_file_name("vhost").join("ikls8-3.sock");
    std::fs::write(&in_the_way, "").unwrap();
    let own = "[[cable]]\nends = [\"leaf1:u3\", \"leaf3:u5\"]\n";
    let sent = under_traffic(&host, ["ikls1-4", "ikvm1-4-1"], || {
        let answer = apply(&host, &format!("{}{own}", shape(4, 23)));
        assert!(answer.refusal().contains("ikls8-3.sock"), "{answer:?}");
    });
    std::fs::remove_file(&in_the_way).unwrap();
    before.assert_unchanged(&host.settled_state(), "a socket could not be made");
    assert_eq!(cable_names(&host), planned(&host, ""));
    assert_eq!(
        host.json(&["cables", "ikeb1-4"])[0]["lanes"][0]["frames_out"],
        warm[0] + sent[0]
    );
    // The cables that were taken out for it work again, by taps as by sockets.
    let pair = ["ikls1-3", "ikvm1-3-1"].map(|end| host.netns.enter(|| Nic::plain(end)));
    pair[0].send([0; 10], &[3; 60]);
    assert_eq!(pair[1].receive().1, [3; 60]);
    drop(pair);
    applied(&host, &format!("{}{own}", shape(4, 23)));
    fabric.end();
    clean.assert_unchanged(&host.state(), "after the end");
}

#[test]
fn of_two_at_once_each_is_done_whole_or_refused() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("apply-two");
    let fabric = host.run(&["--set", "topology.num_u=5"]);
    for round in 0..5 {
        let files = [2, 4].map(|racks| file(&shape(racks, 5)));
        let mut both = files.each_ref().map(|file| {
            let mut command = host.command(&["apply", "-c", file.to_str().unwrap()]);
            command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null());
            command.spawn().unwrap()
        });
        let codes = both
            .each_mut()
            .map(|child| ended(child, SOON).unwrap().code());
        assert!(codes.contains(&Some(0)), "round {round}: {codes:?}");
        let now = cable_names(&host);
        let either = [2, 4].map(|racks| planned(&host, &shape(racks, 5)));
        assert!(either.contains(&now), "round {round}: {now:?}");
    }
    fabric.end();
}

#[test]
fn what_apply_made_is_taken_away_after_a_kill_too() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("apply-kill");
    let before = host.state();
    for way in ["clean", "run"] {
        let mut fabric = host.run(&["--set", "topology.num_u=5"]);
        applied(&host, &shape(5, 6));
        applied(&host, &shape(4, 7));
        fabric.signal(rustix::process::Signal::KILL);
        fabric.wait_end();
        if way == "clean" {
            let cleaned = host.ask(&["clean"]);
            assert_eq!(cleaned.code, Some(0), "{cleaned:?}");
        } else {
            host.run(&[]).end();
        }
        before.assert_unchanged(&host.state(), way);
    }
}

#[test]
fn the_recorder_keeps_what_it_has_of_cables_that_stay() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("apply-rec");
    let fabric = host.run(&[]);
    let lanes = |host: &PanelHost| host.json(&["recorder", "status"])["lanes"].clone();
    let pair = ["ikls1-3", "ikvm1-3-1"].map(|end| host.netns.enter(|| Nic::plain(end)));
    pair[0].send([0; 10], &[0x42; 60]);
    pair[1].receive();
    applied(&host, &shape(2, 23));
    assert_eq!(lanes(&host), 2 * 95);
    applied(&host, &shape(4, 23));
    assert_eq!(lanes(&host), 2 * 187);
    let new = ["ikls8-3", "ikvm4-3-2"].map(|end| host.netns.enter(|| Nic::plain(end)));
    new[0].send([0; 10], &[0x43; 60]);
    new[1].receive();
    let file = host.folder().join("dump.pcapng");
    let dumped = host.ask(&["recorder", "dump", "-w", file.to_str().unwrap()]);
    assert_eq!(dumped.code, Some(0), "{dumped:?}");
    let dump = std::fs::read(&file).unwrap();
    for byte in [0x42u8, 0x43] {
        let frame = [byte; 60];
        let found = dump.windows(60).filter(|window| *window == frame).count();
        assert_eq!(found, 1, "the frame of {byte:#x} is in the dump once");
    }
    fabric.end();
}
