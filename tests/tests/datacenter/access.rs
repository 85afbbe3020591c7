//! Access to the switches by exec, console and ssh.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ikv_tests::patience::{ensure, until};

use super::facts::{self, SWITCHES};
use super::lab::Up;

/// Time for thousands of lines to pass through an emulated switch's log.
const FLOOD: Duration = Duration::from_secs(90);

/// Link-local address of leaf3's port 2, on spine2's NIC ens7.
const LEAF3: &str = "fe80::a00:27ff:fe06:ac72%ens7";

pub(crate) fn link_local(up: &mut Up) {
    let ping = up
        .cli
        .exec("spine2", &["ping", "-c", "1", "-W", "5", LEAF3]);
    assert!(ping.contains("1 received"), "{ping}");
    assert_eq!(
        up.cli.exec("spine2", &["ssh", LEAF3, "hostname"]),
        "leaf3\n"
    );
}

/// By name and without prompting, as root on a switch types it.
pub(crate) fn ssh_between_switches(up: &mut Up) {
    for (from, to) in [("spine1", "leaf3"), ("leaf6", "internet")] {
        let said = up
            .cli
            .exec(from, &["ssh", "-o", "BatchMode=yes", to, "hostname"]);
        assert_eq!(said, format!("{to}\n"));
    }
}

pub(crate) fn ssh_from_host(up: &mut Up) {
    let config = up.fabric.run_folder().join("ssh/config");
    let host = &up.fabric.site.host;
    let mut sessions = Vec::new();
    // Two at a time: a key exchange keeps one core busy.
    for pair in SWITCHES.chunks(2) {
        std::thread::scope(|scope| {
            let started: Vec<_> = pair
                .iter()
                .map(|node| {
                    let mut ssh = host.command("ssh");
                    ssh.arg("-F").arg(&config).args(["-o", "BatchMode=yes"]);
                    ssh.args([node, "cat /etc/hostname; echo $SSH_CONNECTION"]);
                    scope.spawn(move || ikv_tests::run(&mut ssh))
                })
                .collect();
            sessions.extend(
                started
                    .into_iter()
                    .map(|session| session.join().unwrap().stdout),
            );
        });
    }
    for (index, said) in sessions.iter().enumerate() {
        let said = String::from_utf8_lossy(said);
        let words: Vec<_> = said.split_whitespace().collect();
        // The name; the client's address and port; the switch's address and port.
        assert_eq!(words[0], SWITCHES[index]);
        assert_eq!(words[1], "192.168.96.1");
        assert_eq!(words[3], facts::loopback(index).to_string());
    }
    assert_eq!(up.cli.ok(&["ssh", "leaf3", "hostname"]), "leaf3\n");
    let refused = up.cli.run(&["ssh", "leaf3", "exit 3"]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
}

pub(crate) fn exec(up: &mut Up) {
    let script = "printf '[%s]' \"$@\"; cat; echo trouble >&2; exit 7";
    let arguments = ["two words", "", "-x", "*", "line\nbreak", "ä'\"$HOME"];
    let argv = ["exec", "leaf1", "--", "sh", "-c", script, "sh"];
    let mut command = up.cli.command(&[&argv[..], &arguments].concat());
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"input\0\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let expected = format!("{}input\0\n", arguments.map(|a| format!("[{a}]")).concat());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "trouble\n");
    assert_eq!(output.status.code(), Some(7));

    let killed = up
        .cli
        .run(&["exec", "leaf1", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.code, Some(128 + 9), "{killed:?}");
    let unknown = up.cli.run(&["exec", "leaf9", "--", "true"]);
    assert_eq!(
        (unknown.code, unknown.stdout.as_str()),
        (Some(1), ""),
        "{unknown:?}"
    );
    assert!(unknown.stderr.contains("leaf9"), "{unknown:?}");
    assert_eq!(up.cli.run(&["exec", "leaf1"]).code, Some(2));
}

/// The fabric asks each switch for its health every few seconds, and qemu-ga logs every question. What
/// happens must not drown in that.
pub(crate) fn log(up: &mut Up) {
    let mark = "a line of this test";
    up.cli.exec("leaf1", &["logger", "-t", "test", mark]);
    let log = up.cli.exec("leaf1", &["logread"]);
    assert!(log.contains(mark), "{log}");
    assert!(log.contains("bgpd"), "{log}");
    let polls = log.lines().filter(|line| line.contains("guest-exec"));
    assert_eq!(polls.collect::<Vec<_>>(), Vec::<&str>::new());
}

/// busybox's syslogd waits while a logread prints. With more lines than a pipe holds this must not stop
/// who logs: qemu-ga, which empties the pipe, and bgpd.
pub(crate) fn long_log(up: &mut Up) {
    let flood = |mark: &str| {
        format!(
            "i=0; while [ $i -lt 6000 ]; do i=$((i + 1)); \
             echo \"{mark} $i, longer than the pipe of a logread that nobody empties\"; \
             done | logger -t test"
        )
    };
    let sh = |script: &str| up.cli.exec("leaf1", &["sh", "-c", script]);
    sh(&flood("first"));
    until("the end of the flood in the log", FLOOD, || {
        let log = up.cli.exec("leaf1", &["logread"]);
        let is_whole = log.contains("first 6000,") && log.len() > 128 * 1024;
        ensure(is_whole, || {
            log.lines().last().unwrap_or_default().to_owned()
        })
    });
    let stuck = "logread -f | sleep 20";
    sh(&format!("({stuck}) >/dev/null 2>&1 & {}", flood("second")));
    until("the log after a logread that stood still", FLOOD, || {
        let log = up.cli.exec("leaf1", &["logread"]);
        let goes_on = ["second 6000,", "log-filter: "];
        ensure(goes_on.iter().any(|it| log.contains(it)), || {
            log.lines().last().unwrap_or_default().to_owned()
        })
    });
    assert_eq!(up.cli.node("leaf1")["bgp"]["established"], 2);
}

/// The fabric compared all switches' running configurations with their files when it was ready for the
/// first time on this image, or an earlier one did.
pub(crate) fn accepted(up: &mut Up) {
    let image = up.cli.ok(&["image", "path"]);
    let mark = Path::new(image.trim()).join("frr-configuration-accepted");
    until("the mark beside the image", FLOOD, || {
        ensure(mark.exists(), || format!("{} is missing", mark.display()))
    });
}

/// A switch's files come anew at each boot, so what vtysh could write would be lost then.
pub(crate) fn write_memory(up: &mut Up) {
    for words in ["write memory", "copy running-config startup-config"] {
        let argv = ["exec", "leaf1", "--", "vtysh", "-c", words];
        let answer = up.cli.run(&argv);
        let said = format!("{}{}", answer.stdout, answer.stderr);
        assert!(said.contains("Read-only file system"), "{answer:?}");
        assert!(!said.contains("[OK]"), "{answer:?}");
    }
}

pub(crate) fn console(up: &mut Up) {
    let mut command = up.cli.command(&["console", "leaf2"]);
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    let mut screen = child.stdout.take().unwrap();
    // Enter starts the shell, which also reads what was typed before its prompt.
    keys.write_all(b"\rcat /etc/hostname; echo $((6 * 7))x\r")
        .unwrap();
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    // The command's own limit ends this if the shell does not answer.
    let answered = loop {
        match screen.read(&mut chunk).unwrap() {
            0 => break false,
            read => seen.extend_from_slice(&chunk[..read]),
        }
        let text = String::from_utf8_lossy(&seen);
        if text.contains("leaf2\r\n42x\r\n") {
            break true;
        }
    };
    let text = String::from_utf8_lossy(&seen);
    assert!(answered, "{text}");
    assert!(
        text.contains("ikv: network after "),
        "the console keeps what the boot wrote: {text}"
    );
    keys.write_all(b"\x1d").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "Ctrl-] detaches: {output:?}");
}
