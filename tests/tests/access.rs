//! Permissions: what needs root, and what the owner may do with the socket.
#![allow(missing_docs, clippy::unwrap_used)]

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use ikv_tests::panel::{PanelHost, as_from_a_plain_shell};
use ikv_tests::{Answer, executable_by_all, have_root};

/// Debian's uid of `nobody`; the machine need not have that account.
const NOBODY: &str = "65534";

fn as_nobody(host: &PanelHost, words: &[&str]) -> Answer {
    let mut command = host.netns.command("setpriv");
    command
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"])
        .arg(executable_by_all(host.folder()))
        .arg("--socket")
        .arg(host.socket())
        .args(words);
    as_from_a_plain_shell(&mut command);
    Answer::of(&mut command)
}

#[test]
fn what_of_roots_only_root_may_touch() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("nobody");
    executable_by_all(host.folder());
    let before = host.state();
    let clean = "clean needs root, because it removes network devices: use `sudo ikv-fabric clean`";
    assert_eq!(as_nobody(&host, &["clean"]).refusal(), clean);
    // An ordinary user runs a fabric, but not in root's folder.
    let run = as_nobody(&host, &["run", "--switches", "none"]);
    let says = format!(
        "cannot lock {}: Permission denied",
        host.folder().join("run").display()
    );
    assert!(run.last_sentence().contains(&says), "{run:?}");
    before.assert_unchanged(&host.state(), "an ordinary user was refused");
    for words in [
        &["topology"][..],
        &["vm-args", "rack1:u3"],
        &["run", "--help"],
    ] {
        assert_eq!(as_nobody(&host, words).code, Some(0), "{words:?}");
    }
    let check = as_nobody(&host, &["check", "--switches", "none"]);
    assert!(
        check.stdout.contains("in namespaces of this user"),
        "{check:?}"
    );
}

#[test]
fn only_the_owner_may_use_the_socket() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("owner");
    let fabric = host.run(&[]);
    let socket = host.socket().metadata().unwrap();
    assert_eq!(
        (socket.permissions().mode() & 0o777, socket.uid()),
        (0o600, 0)
    );
    let says = format!(
        "the socket {} belongs to another user",
        host.socket().display()
    );
    for words in [
        &["status"][..],
        &["cables"],
        &["cable", "ikhb", "down"],
        &["vm-args", "rack1:u3"],
    ] {
        let answer = as_nobody(&host, words);
        assert!(answer.refusal().starts_with(&says), "{answer:?}");
        assert!(answer.refusal().contains("`owner`"), "{answer:?}");
    }
    assert_eq!(host.json(&["cables", "ikhb"])[0]["state"], "up");
    fabric.end();

    // The key `owner` names the owner; without it, it is the user who called sudo.
    let fabric = host.run(&["--set", &format!("owner={NOBODY}")]);
    assert_eq!(as_nobody(&host, &["status"]).code, Some(0));
    fabric.end();
    let mut command = host.run_command(&[]);
    command.env("SUDO_UID", NOBODY);
    let mut fabric = host.spawn(command);
    fabric.wait_ready();
    assert_eq!(host.socket().metadata().unwrap().uid().to_string(), NOBODY);
    assert_eq!(as_nobody(&host, &["status"]).code, Some(0));
    fabric.end();
}
