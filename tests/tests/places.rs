//! Who is plugged in where (`places`), the fabric on the whole terminal (`top`), and its end from
//! another terminal (`stop`).
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;

use ikv_tests::panel::{PanelHost, as_from_a_plain_shell};
use ikv_tests::patience::{SOON, ensure, until};
use ikv_tests::{Answer, Nic, Pty, executable_by_all, have_root};
use rustix::process::Signal;
use serde_json::Value;

/// The uid of a user of this machine, who need not have an account.
const USER: u32 = 54_321;

/// How long after somebody has plugged in it may take until all see it.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The same right after somebody has left: the kernel reports a link's carrier once a second at most.
const AFTER_A_CHANGE: Duration = Duration::from_secs(5);

/// How long `top` may take until it is drawn.
const DRAWN: Duration = Duration::from_secs(2);

/// `ikv-fabric WORD…` as another user.
fn command_of(host: &PanelHost, user: u32, words: &[&str]) -> Command {
    let user = user.to_string();
    let mut command = host.netns.command("setpriv");
    command
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"])
        .arg(executable_by_all(host.folder()))
        .arg("--socket")
        .arg(host.socket())
        .args(words);
    as_from_a_plain_shell(&mut command);
    command
}

fn places(host: &PanelHost) -> Vec<Value> {
    let answer = host.json(&["places"]);
    answer["places"].as_array().unwrap().clone()
}

#[test]
fn whoever_is_plugged_in_is_listed_until_they_leave() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("places");
    let fabric = host.run(&[]);
    assert_eq!(places(&host), Vec::<Value>::new());
    let empty = host.ask(&["places"]);
    assert!(empty.stdout.contains("nobody is plugged in"), "{empty:?}");

    let nic = host.netns.enter(|| Nic::plain("ikvm1-3-1"));
    let place = until("the place to be listed", AT_ONCE, || {
        let places = places(&host);
        places.first().cloned().ok_or_else(|| "none".into())
    });
    assert_eq!(place["name"], "ikvm1-3-1");
    assert_eq!(
        (&place["rack"], &place["u"]),
        (&Value::from(1), &Value::from(3))
    );
    assert_eq!(place["held"], "tap");
    let since = place["since_ns"].as_u64().unwrap();
    assert!(
        place.get("guest").is_none(),
        "there is no leaf to ask: {place}"
    );
    let table = host.ask(&["places"]).stdout;
    assert!(
        table.contains("rack1:u3") && table.contains("tap"),
        "{table}"
    );
    assert_eq!(places(&host)[0]["since_ns"].as_u64(), Some(since));

    drop(nic);
    until("the place to be free", AFTER_A_CHANGE, || {
        let places = places(&host);
        ensure(places.is_empty(), || format!("{places:?}"))
    });
    let again = host.netns.enter(|| Nic::plain("ikvm1-3-1"));
    let later = until("the place to be listed again", AFTER_A_CHANGE, || {
        let first = places(&host).first().cloned();
        first.ok_or_else(|| "none".into())
    });
    assert!(later["since_ns"].as_u64().unwrap() > since, "{later}");
    drop(again);
    fabric.end();
}

#[test]
fn a_fabric_is_ended_from_another_terminal_and_leaves_nothing() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("stop");
    let before = host.state();
    let mut fabric = host.run(&[]);
    let stopped = host.ask(&["stop"]);
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    assert!(stopped.stdout.contains("has ended"), "{stopped:?}");
    assert_eq!(fabric.wait_end().code(), Some(0), "{}", fabric.stderr());
    let said = fabric.stderr();
    assert!(
        said.contains("the user with uid 0 has asked for it"),
        "{said}"
    );
    before.assert_unchanged(&host.state(), "stop");
    let nothing = host.ask(&["stop"]);
    assert!(
        nothing.refusal().contains("no fabric runs at"),
        "{nothing:?}"
    );

    let mut fabric = host.run(&[]);
    let answer = host.json(&["stop"]);
    assert_eq!(answer["ended"], true);
    assert_eq!(fabric.wait_end().code(), Some(0));
}

#[test]
fn nobody_but_the_owner_and_root_ends_a_fabric() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("stopper");
    let mut fabric = host.run(&["--set", &format!("owner={USER}")]);
    let stranger = Answer::of(&mut command_of(&host, USER + 1, &["stop"]));
    assert!(
        stranger.refusal().contains("belongs to another user"),
        "{stranger:?}"
    );
    assert_eq!(host.json(&["status"])["ready"], true);
    let owner = Answer::of(&mut command_of(&host, USER, &["stop"]));
    assert_eq!(owner.code, Some(0), "{owner:?}");
    assert_eq!(fabric.wait_end().code(), Some(0), "{}", fabric.stderr());
}

/// The names of the cables that are cut.
fn cut(host: &PanelHost) -> Vec<String> {
    let cables = host.json(&["cables"]);
    let cables = cables.as_array().unwrap().iter();
    let cut = cables.filter(|cable| cable["state"] == "down");
    cut.map(|cable| cable["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn top_draws_cuts_and_gives_the_terminal_back() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("top");
    let fabric = host.run(&[]);
    let second = host.json(&["cables"])[1]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut top = Pty::start(host.command(&["top"]));
    top.wait_written("Cables 141", DRAWN);
    top.wait_written(&second, DRAWN);
    // Down, then c.
    top.types("\x1b[B");
    top.types("c");
    until("the cable to be cut", SOON, || {
        let cut = cut(&host);
        ensure(cut == [second.clone()], || format!("{cut:?}"))
    });
    top.wait_written(&format!("{second} is down"), SOON);
    top.types("idelay 5ms\r");
    until("the cable to be impaired", SOON, || {
        let report = host.json(&["cables", &second]);
        let delay = &report[0]["lanes"][0]["impairment"]["delay"];
        ensure(delay.is_string(), || format!("{report}"))
    });
    top.types("u");
    until("the cable to be mended", SOON, || {
        let cut = cut(&host);
        ensure(cut.is_empty(), || format!("{cut:?}"))
    });
    leaves(&mut top, "q", None);
    fabric.end();
}

/// Leaves by keys or a signal; the terminal must be as a program finds it.
fn leaves(top: &mut Pty, keys: &str, signal: Option<Signal>) {
    let raw = top.settings();
    assert!(
        !raw.local_modes
            .contains(rustix::termios::LocalModes::ICANON),
        "not raw"
    );
    top.types(keys);
    if let Some(signal) = signal {
        top.signal(signal);
    }
    assert_eq!(top.wait_end().code(), Some(0), "{:?}", top.written());
    given_back(top);
}

fn given_back(top: &Pty) {
    let fresh = Pty::start(Command::new("true")).settings();
    let now = top.settings();
    assert_eq!(now.local_modes, fresh.local_modes);
    assert_eq!(now.input_modes, fresh.input_modes);
    assert_eq!(now.output_modes, fresh.output_modes);
    // xterm's private modes 25 (cursor) and 1049 (alternate screen).
    top.wait_written("\x1b[?1049l", SOON);
    let written = top.written();
    let last = |on: &str, off: &str| written.rfind(on) < written.rfind(off);
    assert!(last("\x1b[?1049h", "\x1b[?1049l"), "{written:?}");
    assert!(last("\x1b[?25l", "\x1b[?25h"), "{written:?}");
}

#[test]
fn top_gives_the_terminal_back_whatever_ends_it() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("topends");
    let fabric = host.run(&[]);
    for (keys, signal) in [
        ("\x03", None),
        ("", Some(Signal::TERM)),
        ("", Some(Signal::HUP)),
    ] {
        let mut top = Pty::start(host.command(&["top"]));
        top.wait_written("Cables 141", DRAWN);
        leaves(&mut top, keys, signal);
    }
    let mut top = Pty::start(host.command(&["top"]));
    top.wait_written("Cables 141", DRAWN);
    fabric.end();
    assert_eq!(top.wait_end().code(), Some(1), "{:?}", top.written());
    given_back(&top);
    top.wait_written("has ended", SOON);
    let nowhere = host.ask(&["top"]);
    assert!(nowhere.refusal().contains("cables --watch"), "{nowhere:?}");
}

#[test]
fn top_captures_into_a_new_file() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("topcap");
    let fabric = host.run(&[]);
    let folder = tempfile::tempdir().unwrap();
    let mut command = host.command(&["top"]);
    command.current_dir(folder.path());
    let mut top = Pty::start(command);
    top.wait_written("Cables 141", DRAWN);
    top.types("p");
    // Cells that stay blank are not written, so words come one by one.
    top.wait_written("captures", SOON);
    top.types("p");
    top.wait_written("0 frames", SOON);
    leaves(&mut top, "q", None);
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let bytes = std::fs::read(files[0].as_ref().unwrap().path()).unwrap();
    // The section header block of pcapng.
    assert_eq!(bytes[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    fabric.end();
}
