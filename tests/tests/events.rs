//! What happens in a patch panel, as `events` shows it, and its figures, as a monitoring system reads them.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
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
use serde_json::{Value, json};

/// How soon after a command an event must be seen, as the issue demands.
const SEEN: Duration = Duration::from_secs(1);

/// The most streams of events at the same time, as the API's documentation says.
const MOST_STREAMS: usize = 64;

/// Events that the fabric keeps.
const KEPT: u64 = 1000;

const PORT: &str = "127.0.0.1:9469";

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
        (
            &["impair", "iksb12", "--clear"],
            "impairment-cleared",
            "not impaired",
        ),
        (
            &["capture", "iksb12", "--for", "1ms", &capture],
            "captured",
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
        let at = event["at"].as_str().unwrap();
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
    assert!(later[0].starts_with(third["at"].as_str().unwrap()));
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

/// The value of a sample, by its name and labels as they are written.
fn sample(page: &str, series: &str) -> Option<f64> {
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map(|value| value.parse().unwrap())
}

/// What of `cables --json` a page has otherwise.
fn differences(page: &str, cables: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut lanes, mut drops) = (0, 0);
    for cable in cables.as_array().unwrap() {
        let name = cable["name"].as_str().unwrap();
        let mut compare = |series: String, expected: &Value| {
            let found = sample(page, &series);
            if found != expected.as_f64() {
                wrong.push(format!("{series} is {found:?}, not {expected}"));
            }
        };
        let up = u64::from(cable["state"] == "up");
        compare(format!("ikv_cable_up{{cable=\"{name}\"}}"), &json!(up));
        for lane in cable["lanes"].as_array().unwrap() {
            lanes += 1;
            let end = |key: &str| lane[key].as_str().unwrap();
            let labels = format!(
                "cable=\"{name}\",from=\"{}\",to=\"{}\"",
                end("from"),
                end("to")
            );
            for (metric, key) in [
                ("ikv_lane_frames_in_total", "frames_in"),
                ("ikv_lane_in_bytes_total", "bytes_in"),
                ("ikv_lane_frames_out_total", "frames_out"),
                ("ikv_lane_held_frames", "held"),
            ] {
                compare(format!("{metric}{{{labels}}}"), &lane[key]);
            }
            for (reason, count) in lane["drops"].as_object().unwrap() {
                drops += 1;
                let series = format!("ikv_lane_drops_total{{{labels},reason=\"{reason}\"}}");
                compare(series, count);
            }
        }
    }
    for (metric, count) in [
        ("ikv_lane_frames_in_total{", lanes),
        ("ikv_lane_drops_total{", drops),
    ] {
        let found = page.lines().filter(|line| line.starts_with(metric)).count();
        if found != count {
            wrong.push(format!("{found} series of {metric}, not {count}"));
        }
    }
    wrong
}

/// Sends bytes to the port of the metrics; all that it answers until it closes the connection.
fn over_tcp(host: &PanelHost, bytes: &[u8]) -> String {
    let at: SocketAddr = PORT.parse().unwrap();
    let mut stream = host.netns.enter(|| TcpStream::connect(at)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    // It may answer, and close the connection, before it has read all of it.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(answer).unwrap(),
    }
}

fn scrape(host: &PanelHost) -> String {
    let answer = over_tcp(host, b"GET /metrics HTTP/1.1\r\nhost: f\r\n\r\n");
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("application/openmetrics-text; version=1.0.0"));
    assert!(page.ends_with("# EOF\n"));
    page.to_owned()
}

#[test]
fn metrics_have_the_values_of_cables() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("metrics");
    let fabric = host.run(&["--metrics"]);
    fabric.wait_said(&format!("metrics: http://{PORT}/metrics"));
    let [near, far] = host
        .netns
        .enter(|| ["ikls1-3", "ikvm1-3-1"].map(Nic::plain));
    let frame = [0xff; 60];
    command(
        &host,
        &["impair", "iksb12", "--delay", "10ms", "--loss", "1%"],
    );
    for _ in 0..9 {
        near.send([0; 10], &frame);
        assert_eq!(far.receive().1, frame);
    }
    command(&host, &["cable", "ikeb1-3", "blackhole"]);
    far.send([0; 10], &frame);
    wait_until("the frame to vanish", SOON, || {
        let lanes = &host.json(&["cables", "ikeb1-3"])[0]["lanes"];
        lanes[1]["drops"]["blackhole"] == 1
    });
    let client = Client::new(host.socket());
    // The host's own link has frames of the kernel now and then.
    let page = until("the same values", SOON, || {
        let cables = host.json(&["cables"]);
        let page = block_on(client.metrics()).unwrap();
        let wrong = [&page, &scrape(&host)].map(|page| differences(page, &cables));
        ensure(wrong.iter().all(Vec::is_empty), || format!("{wrong:?}"))?;
        Ok(page)
    });
    let lane = r#"{cable="iksb12",from="ikst12",to="iklt11"}"#;
    assert_eq!(
        sample(&page, &format!("ikv_lane_delay_seconds{lane}")),
        Some(0.01)
    );
    assert_eq!(
        sample(&page, &format!("ikv_lane_loss_ratio{lane}")),
        Some(0.01)
    );
    let lane = r#"{cable="ikeb1-3",from="ikls1-3",to="ikvm1-3-1"}"#;
    assert_eq!(
        sample(&page, &format!("ikv_lane_frames_out_total{lane}")),
        Some(9.0)
    );
    assert!(sample(&page, r#"ikv_worker_busy_seconds_total{worker="0"}"#).is_some());

    let times = (0..10).map(|_| {
        let began = Instant::now();
        block_on(client.metrics()).unwrap();
        began.elapsed()
    });
    let best = times.min().unwrap();
    figure(
        "metrics of 141 cables over the socket, best of 10",
        &format!("{best:?}, {} bytes (wanted: 5 ms, 200 kB)", page.len()),
    );
    assert!(page.len() < 200_000, "{}", page.len());
    // Not optimised, and other tests use the CPUs at the same time.
    assert!(best < Duration::from_millis(200), "{best:?}");
    drop([near, far]);
    fabric.end();
}

#[test]
fn the_port_of_the_metrics_has_nothing_else() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("metrics-port");
    let fabric = host.run(&["--metrics", PORT]);
    for (line, status) in [
        ("GET /v1/status", 404),
        ("GET /v1/events", 404),
        ("GET /", 404),
        ("PUT /v1/cables/iksb12/state", 404),
        ("POST /metrics", 405),
        ("DELETE /metrics", 405),
        ("nonsense", 400),
    ] {
        let answer = over_tcp(
            &host,
            format!("{line} HTTP/1.1\r\nhost: f\r\n\r\n").as_bytes(),
        );
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{line}: {answer}");
    }
    assert_eq!(host.json(&["cables", "iksb12"])[0]["state"], "up");
    let huge = format!(
        "GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    assert!(!over_tcp(&host, huge.as_bytes()).contains(" 200 "));

    // Clients that say nothing, never come to an end, or never read are disconnected.
    let at: SocketAddr = PORT.parse().unwrap();
    let beginnings = [
        "",
        "GET /metrics HTTP/1.1\r\nx",
        "GET /metrics HTTP/1.1\r\nhost: f\r\n\r\n",
    ];
    let slow: Vec<_> = (0..30)
        .map(|number| {
            let mut stream = host.netns.enter(|| TcpStream::connect(at)).unwrap();
            let beginning = beginnings[number % beginnings.len()];
            stream.write_all(beginning.as_bytes()).unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    scrape(&host);
    figure(
        "metrics behind 30 slow clients",
        &format!("{:?}", began.elapsed()),
    );
    command(&host, &["status"]);
    drop(slow);
    fabric.end();
}

#[test]
fn a_port_that_is_taken_is_said_before_anything_is_made() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("metrics-taken");
    let before = host.state();
    let _other = host.netns.enter(|| TcpListener::bind(PORT)).unwrap();
    let refused = host.ask(&["run", "--switches", "none", "--metrics"]);
    let sentence = refused.refusal();
    assert!(
        sentence.contains(PORT) && sentence.contains("ss -tlnp"),
        "{sentence}"
    );
    before.assert_unchanged(&host.state(), "a port that is taken");
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
    assert_eq!(sample(&page, "ikv_cable_up{cable=\"wire\"}"), Some(0.0));
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&wire),
        rustix::process::Signal::INT,
    )
    .unwrap();
    assert!(ended(&mut wire, SOON).is_some(), "it ends");
}
