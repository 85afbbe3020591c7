//! The state of a fabric and of every switch, for the message of a failed test.

use std::fmt::Write;
use std::io::{Read, Write as _};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::Cli;

/// Bytes shown of the end of a console.
const TAIL: usize = 1500;

/// The state as text.
pub(crate) fn of(cli: &Cli) -> String {
    let status = cli.run(&["--json", "status"]);
    let mut text = cli.run(&["status"]).stdout + &status.stderr;
    let nodes: Vec<String> = serde_json::from_str::<serde_json::Value>(&status.stdout)
        .ok()
        .and_then(|status| {
            let names = status["nodes"].as_array()?.iter();
            Some(
                names
                    .filter_map(|node| node["name"].as_str().map(Into::into))
                    .collect(),
            )
        })
        .unwrap_or_default();
    let parts: Vec<String> = std::thread::scope(|scope| {
        let asked: Vec<_> = nodes
            .iter()
            .map(|node| scope.spawn(|| of_switch(cli, node)))
            .collect();
        asked
            .into_iter()
            .map(|part| part.join().unwrap_or_default())
            .collect()
    });
    text.extend(parts);
    text + &busy_cables(cli)
}

fn of_switch(cli: &Cli, node: &str) -> String {
    let mut text = format!("\n==== {node}\n");
    for argv in [
        &["vtysh", "-c", "show bgp summary"][..],
        &["ip", "-br", "address"],
        &["ip", "route"],
    ] {
        let said = cli.run(&[&["exec", node, "--"], argv].concat());
        let _ = writeln!(
            text,
            "-- {}\n{}{}",
            argv.join(" "),
            said.stdout,
            said.stderr
        );
    }
    let console = console(cli, node, Duration::from_secs(2));
    let start = console.len().saturating_sub(TAIL);
    let tail = String::from_utf8_lossy(&console[start..]).replace('\r', "");
    let _ = writeln!(text, "-- console\n{tail}");
    text
}

/// The output that a switch's console has kept, read for `time`.
fn console(cli: &Cli, node: &str, time: Duration) -> Vec<u8> {
    let mut command = cli.command(&["console", node]);
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let Ok(mut child) = piped.spawn() else {
        return Vec::new();
    };
    let mut output = child.stdout.take().expect("piped");
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = output.read(&mut buffer) {
            if sender.send(buffer[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + time;
    let mut kept = Vec::new();
    while let Ok(bytes) = received.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        kept.extend(bytes);
    }
    let _ = child.stdin.take().map(|mut keys| keys.write_all(b"\x1d"));
    let _ = child.wait();
    kept
}

/// The table of the cables that carried frames.
fn busy_cables(cli: &Cli) -> String {
    let said = cli.run(&["cables"]);
    let idle = |line: &str| {
        line.split_whitespace()
            .rev()
            .take(3)
            .all(|figure| figure == "0")
    };
    let busy = said.stdout.lines().filter(|line| !idle(line));
    format!("\n{}\n", busy.collect::<Vec<_>>().join("\n"))
}
