//! A worker that does not come back from a system call: the API still answers, the command that needs
//! the worker fails in one sentence, and Ctrl-C ends the fabric.
#![allow(missing_docs, clippy::unwrap_used)]

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ikv_tests::panel::PanelHost;
use ikv_tests::patience::{SOON, wait_until};
use ikv_tests::raw_api::{RawClient, Reply};
use ikv_tests::{Netns, have_root};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

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

    let took = fabric.end();
    assert!(took < END, "the end took {took:?}");
    before.assert_unchanged(&host.state(), "a worker was stuck");
}
