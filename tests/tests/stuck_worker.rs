//! A worker that does not come back from a system call: the API still answers and says so, the command
//! that needs the worker fails in one sentence, and Ctrl-C ends the fabric. And a guest cannot bring a
//! worker to that.
#![allow(missing_docs, clippy::unwrap_used)]

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use guest::{Guest, GuestOptions};
use ikv_tests::panel::PanelHost;
use ikv_tests::patience::{SOON, wait_for, wait_until};
use ikv_tests::raw_api::{RawClient, Reply};
use ikv_tests::{Netns, figure, have_root};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};
use serde_json::Value;

const QUICK: Duration = Duration::from_millis(100);
const END: Duration = Duration::from_secs(3);

/// The number of a process's descriptor of a tap.
fn tap_descriptor(pid: u32) -> i32 {
    let folder = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let mut entries = folder.map(|entry| entry.unwrap());
    let is_tap = |entry: &std::fs::DirEntry| {
        let info = std::fs::read_to_string(entry.path()).unwrap_or_default();
        info.contains("iff:")
    };
    let found = entries.find(is_tap).expect("the host's tap is open");
    found.file_name().to_string_lossy().parse().unwrap()
}

/// Makes every read of the fabric's tap wait for a frame, by the flag that all its descriptors share.
fn let_reads_block(pid: u32) -> OwnedFd {
    let process = Pid::from_raw(pid.cast_signed()).unwrap();
    let process = pidfd_open(process, PidfdFlags::empty()).unwrap();
    let tap = pidfd_getfd(&process, tap_descriptor(pid), PidfdGetfdFlags::empty()).unwrap();
    let flags = fcntl_getfl(&tap).unwrap();
    fcntl_setfl(&tap, flags - OFlags::NONBLOCK).unwrap();
    tap
}

/// Sends a frame into the host's end, so that its worker reads the tap until nothing waits.
fn send_frame(netns: &Netns, peer: &str) {
    let mut ping = netns.command("ping");
    ping.args(["-c", "1", "-W", "1", peer])
        .stdout(Stdio::null());
    let _ = ping.status().unwrap();
}

/// The median time of 11 answers.
fn answer_time(host: &PanelHost) -> Duration {
    let mut times: Vec<_> = (0..11)
        .map(|_| {
            let began = Instant::now();
            let mut client = RawClient::connect(&host.socket());
            client.send(b"GET /v1/status HTTP/1.1\r\nHost: fabric\r\n\r\n");
            let reply = client.reply();
            assert!(matches!(reply, Reply::Answer(200, _)), "{reply:?}");
            began.elapsed()
        })
        .collect();
    times.sort();
    times[5]
}

#[test]
fn a_stuck_worker_blocks_neither_the_api_nor_the_end() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("stuck");
    let before = host.state();
    let fabric = host.run(&["--workers", "1"]);
    drop(let_reads_block(fabric.pid()));
    send_frame(&host.netns, "192.168.96.2");

    let mut cut = host.command(&["cable", "spine1:2", "down"]);
    let cut: &mut Command = cut.stdout(Stdio::null()).stderr(Stdio::piped());
    let cut = cut.spawn().unwrap();
    let took = answer_time(&host);
    assert!(took < QUICK, "an answer took {took:?}");
    let cut = cut.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&cut.stderr);
    assert_eq!(cut.status.code(), Some(1), "{said}");
    assert!(said.contains("worker 0 does not answer"), "{said}");
    wait_until("the API to answer as before", SOON, || {
        host.json(&["cables", "spine1:2"])[0]["state"] == "up"
    });

    // A second Ctrl-C changes nothing.
    fabric.signal(Signal::INT);
    let took = fabric.end();
    assert!(took < END, "the end took {took:?}");
    before.assert_unchanged(&host.state(), "a worker was stuck");
}

/// What `status` says is wrong, and whether the fabric is ready.
fn problems(host: &PanelHost) -> (bool, String) {
    // Exit status 1 says that it is not ready.
    let answer = host.ask(&["--json", "status"]);
    let status: Value = serde_json::from_str(&answer.stdout).unwrap();
    let problems = status["problems"].as_array().cloned().unwrap_or_default();
    let problems: Vec<_> = problems.iter().filter_map(Value::as_str).collect();
    (status["ready"] == true, problems.join("; "))
}

#[test]
fn a_worker_that_hangs_is_named_until_it_goes_on() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("hangs");
    let fabric = host.run(&["--workers", "1"]);
    let tap = let_reads_block(fabric.pid());
    let began = Instant::now();
    send_frame(&host.netns, "192.168.96.2");
    let said = wait_for("status to name the worker", SOON, || {
        match problems(&host) {
            (false, said) if !said.is_empty() => Some(said),
            _ => None,
        }
    });
    figure(
        "a worker that hangs is named",
        &format!("after {:?}", began.elapsed()),
    );
    let sentence = "worker 0 makes no progress with frames that entered cable ";
    assert!(said.starts_with(sentence), "{said}");
    fabric.wait_said(sentence);
    // Nobody waits for it any more.
    let began = Instant::now();
    let cut = host.ask(&["cable", "spine1:2", "down"]);
    let took = began.elapsed();
    assert_eq!(cut.code, Some(1));
    assert!(
        cut.stderr.contains("worker 0 does not answer"),
        "{}",
        cut.stderr
    );
    assert!(took < Duration::from_secs(1), "the refusal took {took:?}");

    fcntl_setfl(&tap, fcntl_getfl(&tap).unwrap() | OFlags::NONBLOCK).unwrap();
    wait_until("the worker to go on", SOON, || {
        send_frame(&host.netns, "192.168.96.2");
        problems(&host) == (true, String::new())
    });
    fabric.wait_said("worker 0 goes on");
    // The command that nobody waited for has taken effect, and another one does.
    assert_eq!(host.ask(&["cable", "spine1:2", "up"]).code, Some(0));
    let took = fabric.end();
    assert!(took < END, "the end took {took:?}");
}

/// A front end's call eventfd that blocks and is full would have a write(2) sleep for ever.
#[test]
fn a_guest_cannot_make_a_worker_wait() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("jams");
    let before = host.state();
    let fabric = host.run(&["--workers", "1"]);
    let folder = host.socket().parent().unwrap().join("vhost");
    let plug = |end: &str| {
        let socket = folder.join(format!("{end}.sock"));
        Guest::connect(&socket, &GuestOptions::default()).unwrap()
    };
    let mut guest = plug("ikvm1-3-1");
    let jams = [0, 1].map(|index| guest.jam(index).unwrap());
    let carried = || {
        let report = host.json(&["cables", "ikvm1-3-1"]);
        let lanes = report[0]["lanes"].as_array().unwrap().clone();
        lanes
            .iter()
            .filter_map(|lane| lane["frames_in"].as_u64())
            .sum::<u64>()
    };
    wait_until("frames of the guest", SOON, || {
        guest
            .queue(1)
            .send(1, |out| out.frame(&[0x77; 60]))
            .unwrap();
        carried() > 2
    });
    assert_eq!(problems(&host), (true, String::new()));
    assert_eq!(host.ask(&["cable", "spine1:2", "down"]).code, Some(0));
    let took = fabric.end();
    assert!(took < END, "the end took {took:?}");
    drop(jams);
    before.assert_unchanged(&host.state(), "a guest jammed its eventfds");
}
