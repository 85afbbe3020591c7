//! `ikv-fabric apply` on a patch panel: racks, positions and cables come and go, and cables that
//! stay lose no frame. `apply_switches.rs` tests it with switches.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use ikv_tests::panel::PanelHost;
use ikv_tests::patience::{SOON, ended};
use ikv_tests::{Answer, Nic, TwoWayFlow, figure, have_root};
use serde_json::{Value, json};
use tempfile::TempPath;

/// The owner's uid; the machine need not have that account.
const USER: &str = "54321";

/// Frames on their way in one direction: fewer than a tap holds.
const WINDOW: u64 = 200;

/// Writes a configuration to a file that every user may read, outside the fabric's own folder.
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

/// The names of the cables that a fabric with this configuration has.
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

/// Frames flow over a cable in both directions while `work` runs. Returns how many each end has
/// sent; the other has received every one of them.
fn under_traffic(host: &PanelHost, ends: [&str; 2], work: impl FnOnce()) -> [u64; 2] {
    TwoWayFlow::plug(&host.netns, ends, WINDOW).during(work)
}

#[test]
fn adding_and_removing_a_rack_loses_no_frame_elsewhere() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("apply");
    let before = host.state();
    let fabric = host.run(&[]);
    // A device gets a route when it first has carrier: let it have carrier before the snapshot.
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

    // A new rack works like the first ones, and removing it leaves nothing behind.
    fabric.wait_said("another configuration was applied");
    assert!(
        !fabric.stderr().contains("another program"),
        "{}",
        fabric.stderr()
    );
    three.assert_unchanged(&host.settled_state(), "after a rack came and went");
    applied(&host, &shape(4, 23));
    let new = ["ikls8-23", "ikvm4-23-2"].map(|end| host.netns.enter(|| Nic::plain(end)));
    new[0].send([0; 10], &[7; 60]);
    assert_eq!(new[1].receive().1, [7; 60]);
    drop(new);
    fabric.end();
    before.assert_unchanged(&host.state(), "the fabric ended");
}

#[test]
fn positions_are_added_and_removed() {
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
fn configured_cables_are_plugged_and_impairments_set_by_hand_are_kept() {
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
fn a_dry_run_reports_the_changes_and_makes_none() {
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
fn an_invalid_configuration_is_refused_before_any_change() {
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
    assert_eq!(nothing.code, Some(0), "{nothing:?}");
    assert!(
        nothing.stdout.starts_with("nothing to change"),
        "{nothing:?}"
    );
    before.assert_unchanged(&host.settled_state(), "after refusals");
    fabric.end();
    let nobody = host.ask(&["apply", "--set", "topology.racks=4"]);
    assert!(nobody.refusal().contains("no fabric"), "{nobody:?}");
}

#[test]
fn an_owner_may_change_cables_but_not_devices() {
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
fn a_failed_apply_is_undone() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("apply-undo");
    let clean = host.state();
    let fabric = host.run(&[]);
    // A foreign device has the name of a tap; later, a foreign file that of a socket.
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
    // The cables that were unplugged meanwhile work again, both on taps and on sockets.
    let pair = ["ikls1-3", "ikvm1-3-1"].map(|end| host.netns.enter(|| Nic::plain(end)));
    pair[0].send([0; 10], &[3; 60]);
    assert_eq!(pair[1].receive().1, [3; 60]);
    drop(pair);
    applied(&host, &format!("{}{own}", shape(4, 23)));
    fabric.end();
    clean.assert_unchanged(&host.state(), "after the end");
}

#[test]
fn concurrent_applies_are_done_completely_or_refused() {
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
fn what_apply_added_is_removed_after_a_kill() {
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
fn the_recorder_keeps_frames_of_cables_that_stay() {
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
        assert_eq!(
            found, 1,
            "the frame of {byte:#x} must be in the dump exactly once"
        );
    }
    fabric.end();
}
