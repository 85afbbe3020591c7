//! What happens in a patch panel, as `events` shows it, also to readers that are slow or many.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::{Client, routes};
use ikv_tests::panel::{PanelFabric, PanelHost};
use ikv_tests::patience::{SOON, ended, ensure, until, wait_until};
use ikv_tests::process::{descriptors, resident_kib};
use ikv_tests::raw_api::{RawClient, Reply, request};
use ikv_tests::{Nic, block_on, figure, have_root};
use model::cable_change::{CableBatch, CableChange, CableState};
use serde_json::Value;

/// How soon after a command an event must be seen, as the issue demands.
const SEEN: Duration = Duration::from_secs(1);

/// The most streams of events at the same time, as the API's documentation says.
const MOST_STREAMS: usize = 64;

/// Events that the fabric keeps.
const KEPT: u64 = 1000;

/// A running `ikv-fabric events --json`, and what it has printed.
struct Follower {
    child: Child,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Follower {
    fn start(host: &PanelHost) -> Self {
        let mut command = host.command(&["--json", "events", "--since", "0"]);
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.stdin(Stdio::null()).spawn().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stdout, kept) = (child.stdout.take().unwrap(), seen.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap();
                kept.lock().unwrap().push(event);
            }
        });
        Follower { child, seen }
    }

    fn all(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits for the next event of this kind about this subject, after the first `known` events.
    fn sees(&self, known: usize, kind: &str, subject: &str) -> Value {
        let what = format!("{kind} {subject}");
        until(&what, SEEN, || {
            let all = self.all();
            let mut new = all.iter().skip(known);
            let found = new.find(|event| event["kind"] == kind && event["subject"] == subject);
            found.cloned().ok_or_else(|| format!("{all:?}"))
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It has usually ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(host: &PanelHost, words: &[&str]) {
    let answer = host.ask(words);
    assert_eq!(answer.code, Some(0), "{words:?}: {answer:?}");
}

#[test]
fn what_happens_is_seen_within_a_second() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("events");
    let fabric = host.run(&[]);
    let follower = Follower::start(&host);
    until("the first event", SOON, || {
        let all = follower.all();
        let is_ready = all.iter().any(|event| event["kind"] == "ready");
        ensure(is_ready, || format!("{all:?}"))
    });
    let file = host.folder().join("frames.pcapng");
    let capture = format!("-w{}", file.display());
    for (words, kind, says) in [
        (&["cable", "iksb12", "down"][..], "carrier", "was cut"),
        (
            &["cable", "spine1:2", "up"],
            "carrier",
            "passes frames again",
        ),
        (
            &["impair", "iksb12", "--delay", "10ms"],
            "impaired",
            "both ways: delay 10ms",
        ),
        (&["impair", "iksb12", "--clear"], "impaired", "not impaired"),
        (
            &["capture", "iksb12", "--for", "1ms", &capture],
            "capture",
            "a capture of cable iksb12",
        ),
    ] {
        let known = follower.all().len();
        command(&host, words);
        let event = follower.sees(known, kind, "iksb12");
        let text = event["text"].as_str().unwrap();
        assert!(text.contains(says), "{event}");
    }
    plugging_is_seen(&host, &follower);

    // The same state again is no event.
    let known = follower.all().len();
    command(&host, &["cable", "iksb12", "up"]);
    command(&host, &["cable", "iksb13", "down"]);
    follower.sees(known, "carrier", "iksb13");
    let events = follower.all();
    let new = events.iter().skip(known);
    assert_eq!(new.filter(|it| it["subject"] == "iksb12").count(), 0);

    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["id"], number as u64 + 1, "{event}");
        let at = event["time"].as_str().unwrap();
        assert_eq!((at.len(), &at[19..20], &at[23..]), (24, ".", "Z"), "{at}");
    }
    kept_events_are_shown(&host, &events);
    the_end_is_a_sentence(fabric, follower);
}

fn plugging_is_seen(host: &PanelHost, follower: &Follower) {
    let known = follower.all().len();
    let nic = host.netns.enter(|| Nic::plain("ikvm1-3-1"));
    let event = follower.sees(known, "plugged", "rack1:u3:1");
    assert!(event["text"].as_str().unwrap().contains("ikvm1-3-1"));
    drop(nic);
    follower.sees(known, "unplugged", "rack1:u3:1");
}

/// Commands that do not follow show the same, from where they are told to.
fn kept_events_are_shown(host: &PanelHost, events: &[Value]) {
    let lines = |words: &[&str]| {
        let answer = host.ask(&[&["events", "--no-follow"], words].concat());
        assert_eq!((answer.code, &*answer.stderr), (Some(0), ""), "{answer:?}");
        answer.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = lines(&["--json"]);
    let all: Vec<Value> = all
        .iter()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    assert_eq!(&all[..events.len()], events);
    let later = lines(&["--since", "2"]);
    assert!(later.len() >= events.len() - 2, "{later:?}");
    let third = &events[2];
    assert!(later[0].starts_with(third["time"].as_str().unwrap()));
    assert!(later[0].contains(third["text"].as_str().unwrap()));
}

fn the_end_is_a_sentence(fabric: PanelFabric<'_>, mut follower: Follower) {
    fabric.end();
    let status = ended(&mut follower.child, SOON).expect("it ends with the fabric");
    assert_eq!(status.code(), Some(1));
    let mut said = String::new();
    let stderr = follower.child.stderr.as_mut().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("ikv-fabric: the fabric at "), "{said}");
    assert_eq!(
        (said.matches('\n').count(), said.contains("has ended")),
        (1, true)
    );
}

/// Changes the state of all 141 cables, so that there are as many events.
fn change_all(client: &Client, state: CableState) {
    let change = |cable: &str| CableChange {
        cable: cable.into(),
        state: Some(state),
        impair: None,
    };
    let changes = ["host", "spine1", "spine2", "rack1", "rack2", "rack3"].map(change);
    let batch = CableBatch {
        changes: changes.into(),
    };
    block_on(client.change_cables(&batch)).unwrap();
}

/// A client that asks for all events and does not read its answer.
fn slow_reader(host: &PanelHost) -> UnixStream {
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    let path = routes::EVENTS.path("");
    let line = format!("GET {path}?since=0 HTTP/1.1\r\nhost: f\r\nconnection: close\r\n\r\n");
    stream.write_all(line.as_bytes()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

#[test]
fn a_reader_that_is_too_slow_is_told_so_and_holds_nobody_up() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("slow-events");
    let fabric = host.run(&[]);
    let client = Client::new(host.socket());
    change_all(&client, CableState::Blackhole);
    let [before, _] = resident_kib(fabric.pid());
    let mut slow: Vec<_> = (0..8).map(|_| slow_reader(&host)).collect();
    let newest = || {
        let answer = host.ask(&["--json", "events", "--no-follow"]);
        let last: Value = serde_json::from_str(answer.stdout.lines().last().unwrap()).unwrap();
        last["id"].as_u64().unwrap()
    };
    // More than a socket's buffer and the ring have room for.
    while newest() < 12 * KEPT {
        let asked = Instant::now();
        change_all(&client, CableState::Up);
        change_all(&client, CableState::Blackhole);
        assert_eq!(host.ask(&["status"]).code, Some(0));
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    }
    let [after, _] = resident_kib(fabric.pid());
    let grown = after.saturating_sub(before);
    figure(
        "events that nobody reads, 8 clients",
        &format!("{grown} KiB"),
    );
    assert!(grown < 8 << 10, "{grown} KiB");
    for mut reader in slow.drain(..) {
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let data = answer
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        let data: Vec<Value> = data.map(|it| serde_json::from_str(it).unwrap()).collect();
        let (lagged, events) = data.split_last().unwrap();
        assert_eq!(answer.matches("\nevent: lagged\n").count(), 1);
        let last = events.last().unwrap()["id"].as_u64().unwrap();
        let [missed, since] = ["missed", "since"].map(|key| lagged[key].as_u64().unwrap());
        assert!(missed > 0 && last + missed == since, "{last} and {lagged}");
        assert_eq!(events.len() as u64, last, "none is missing before");
    }
    fabric.end();
}

#[test]
fn too_many_streams_are_refused_with_a_sentence() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("many-events");
    let fabric = host.run(&[]);
    let idle = descriptors(fabric.pid());
    let ask = || {
        let mut client = RawClient::connect(&host.socket());
        assert!(client.send(&request("GET", &routes::EVENTS.path(""), "")));
        let reply = client.reply();
        (client, reply)
    };
    let clients: Vec<_> = (0..100).map(|_| ask()).collect();
    for (number, (_, reply)) in clients.iter().enumerate() {
        match reply {
            Reply::Answer(200, _) => assert!(number < MOST_STREAMS, "{number}"),
            Reply::Answer(503, body) => {
                assert!(number >= MOST_STREAMS, "{number}");
                let failure: Value = serde_json::from_str(body).unwrap();
                let sentence = failure["error"].as_str().unwrap();
                assert!(sentence.contains("64 clients at once"), "{sentence}");
            }
            other => panic!("{number}: {other:?}"),
        }
    }
    let refused = host.ask(&["events"]);
    assert!(refused.refusal().contains("64 clients"), "{refused:?}");
    command(&host, &["status"]);
    drop(clients);
    until("their places to be free", SOON, || {
        let (_client, reply) = ask();
        ensure(matches!(reply, Reply::Answer(200, _)), || {
            format!("{reply:?}")
        })
    });
    until("their descriptors to be closed", SOON, || {
        let now = descriptors(fabric.pid());
        ensure(now <= idle, || format!("{now}, not {idle}"))
    });
    fabric.end();
}

/// A fabric of one wire has both, too.
#[test]
fn a_single_wire_has_events_and_metrics() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("wire-events");
    let mut command: Command = host.command(&["patch", "tap:ika", "tap:ikb"]);
    let mut wire = command.stderr(Stdio::null()).spawn().unwrap();
    wait_until("the wire", SOON, || host.ask(&["status"]).code == Some(0));
    host.json(&["cable", "wire", "down"]);
    let events = host.ask(&["events", "--no-follow"]).stdout;
    assert!(events.contains("cable wire was cut"), "{events}");
    let page = block_on(Client::new(host.socket()).metrics()).unwrap();
    assert!(
        page.contains("\nikv_cable_up{cable=\"wire\"} 0\n"),
        "{page}"
    );
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&wire),
        rustix::process::Signal::INT,
    )
    .unwrap();
    assert!(ended(&mut wire, SOON).is_some(), "it ends");
}
