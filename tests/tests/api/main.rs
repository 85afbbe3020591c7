//! The API's socket in the hands of clients that are broken, slow, gone, or mean harm: each is
//! refused in words or cut off, and nobody else notices.
#![allow(clippy::unwrap_used)]

mod malformed;

use std::path::Path;
use std::time::{Duration, Instant};

use ikv_tests::panel::{PanelFabric, PanelHost};
use ikv_tests::patience::{SOON, ensure, until};
use ikv_tests::process::{descriptors, resident_kib, threads};
use ikv_tests::raw_api::{RawClient, Reply, request, request_with};
use ikv_tests::{Dice, Flow, figure, have_root};
use malformed::{KINDS, Malformed};
use serde_json::{Value, json};

/// Requests in all, and clients that send them at the same time.
const REQUESTS: usize = 1000;
const CLIENTS: usize = 4;

/// What the fabric's memory may grow by in the meantime, KiB: for good, and for a moment.
const GROWS: u64 = 16 << 10;
const SWELLS: u64 = 64 << 10;

/// Frames pass on cable ikeb1-3, one each so often.
const PACE: Duration = Duration::from_millis(2);

/// A slow client's time, by the API's documentation, and what a busy machine adds.
const PATIENCE: Duration = Duration::from_secs(10);
const LATE: Duration = Duration::from_secs(10);

/// The most that may be connected, by the API's documentation.
const MOST_CLIENTS: usize = 128;

/// A fabric, and frames that pass on one of its cables.
struct Victim<'h> {
    fabric: PanelFabric<'h>,
    flow: Flow,
    memory: [u64; 2],
    descriptors: usize,
    threads: usize,
}

impl<'h> Victim<'h> {
    fn new(host: &'h PanelHost) -> Self {
        let fabric = host.run(&[]);
        let flow = Flow::start(&host.netns, "ikls1-3", "ikvm1-3-1", PACE);
        // What the first requests of each kind take up for good is not theirs.
        for route in ["status", "cables", "topology", "recorder"] {
            let path = format!("/v1/{route}");
            let mut client = RawClient::connect(&host.socket());
            client.send(&request_with("GET", &path, "connection: close\r\n", ""));
            assert!(matches!(client.reply(), Reply::Answer(200, _)), "{path}");
        }
        let pid = fabric.pid();
        Victim {
            flow,
            memory: resident_kib(pid),
            descriptors: settled(|| descriptors(pid)),
            threads: settled(|| threads(pid)),
            fabric,
        }
    }

    /// Nobody noticed, and the host is `before` again once it has ended.
    fn unharmed(self, what: &str) {
        let (host, pid) = (self.fabric.host(), self.fabric.pid());
        let status = host.json(&["status"]);
        assert_eq!(
            (&status["ready"], &status["cables"]),
            (&json!(true), &json!(141))
        );
        self.flow.end().assert_whole(what);
        let cables = host.json(&["cables"]);
        for cable in cables.as_array().unwrap() {
            assert_eq!(cable["state"], "up", "{what}: {cable}");
            let lanes = cable["lanes"].as_array().unwrap();
            let idle = |lane: &Value| lane["drops"] == json!({}) && lane["impairment"].is_null();
            assert!(lanes.iter().all(idle), "{what}: {cable}");
        }
        until("what clients took up to be given back", SOON, || {
            let now = (descriptors(pid), threads(pid));
            ensure(now == (self.descriptors, self.threads), || {
                format!(
                    "{now:?} descriptors and threads, not {:?}",
                    (self.descriptors, self.threads)
                )
            })
        });
        let [grown, swollen] =
            [0, 1].map(|at| resident_kib(pid)[at].saturating_sub(self.memory[at]));
        figure(
            &format!("memory of the fabric after {what}"),
            &format!("{grown} KiB more, {swollen} KiB at the highest"),
        );
        assert!(
            grown < GROWS && swollen < SWELLS,
            "{grown} KiB, {swollen} KiB at the highest"
        );
        assert_eq!(self.fabric.stderr().matches("panicked").count(), 0);
        self.fabric.end();
    }
}

/// A number that has stayed the same for a while: connections end a moment after their answers.
fn settled(count: impl Fn() -> usize) -> usize {
    let mut last = (count(), Instant::now());
    until("a number that stays", SOON, || {
        let now = count();
        if now != last.0 {
            last = (now, Instant::now());
        }
        ensure(last.1.elapsed() > Duration::from_millis(300), || {
            now.to_string()
        })
    });
    last.0
}

#[test]
fn a_thousand_malformed_requests_harm_nobody() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("malformed");
    let before = host.state();
    let victim = Victim::new(&host);
    let socket = host.socket();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let socket = &socket;
            scope.spawn(move || {
                for number in (client..REQUESTS).step_by(CLIENTS) {
                    let (kind, make) = KINDS[number % KINDS.len()];
                    refused(
                        socket,
                        &format!("{kind}, seed {number}"),
                        &make(&mut Dice(number as u64)),
                    );
                }
            });
        }
    });
    let took = began.elapsed().as_secs_f64();
    figure(
        &format!("{REQUESTS} malformed requests"),
        &format!("{took:.1} s"),
    );
    victim.unharmed("malformed requests");
    before.assert_unchanged(&host.state(), "malformed requests");
}

/// Sends it, and is refused: in words, where it is HTTP.
fn refused(socket: &Path, what: &str, request: &Malformed) {
    let mut client = RawClient::connect(socket);
    let taken = client.send(&request.bytes);
    if request.finished {
        client.finish();
    }
    match client.reply() {
        Reply::Answer(status, body) => {
            assert!((400..500).contains(&status), "{what}: {status} {body}");
            if request.is_http {
                assert_says_why(what, &body);
            }
        }
        // Whoever goes on sending what is refused already may miss the refusal.
        Reply::Closed => assert!(!request.is_http || !taken, "{what}: closed without a word"),
    }
}

/// The body is a `Failure`, whose sentence may be printed.
fn assert_says_why(what: &str, body: &str) {
    let failure: Value =
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{what}: {error} in {body:?}"));
    let sentence = failure["error"]
        .as_str()
        .unwrap_or_else(|| panic!("{what}: {body}"));
    let printable = |c: char| !c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c);
    assert!(
        !sentence.is_empty() && sentence.chars().all(printable),
        "{what}: {sentence:?}"
    );
}

/// What a slow client has sent before it only trickles on, or falls silent.
const BEGINNINGS: &[(&str, &str)] = &[
    ("nothing", ""),
    ("half a line", "GET /v1/sta"),
    ("half a head", "GET /v1/status HTTP/1.1\r\nhost: f"),
    (
        "a head without its body",
        "PUT /v1/cables/ikeb1-3/state HTTP/1.1\r\nhost: f\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n",
    ),
    (
        "a chunk without its end",
        "POST /v1/step HTTP/1.1\r\nhost: f\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nfff\r\n",
    ),
];

#[test]
fn slow_clients_are_cut_off_and_others_are_answered_meanwhile() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("slow");
    let before = host.state();
    let victim = Victim::new(&host);
    let socket = host.socket();
    std::thread::scope(|scope| {
        let mut slow = Vec::new();
        for (what, beginning) in BEGINNINGS {
            for trickles in [false, true] {
                let socket = &socket;
                slow.push(
                    scope.spawn(move || (what, trickles, cut_off(socket, beginning, trickles))),
                );
            }
        }
        while !slow.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let asked = Instant::now();
            assert_eq!(host.ask(&["status"]).code, Some(0));
            assert!(
                asked.elapsed() < Duration::from_secs(5),
                "{:?}",
                asked.elapsed()
            );
        }
        for slow in slow {
            let (what, trickles, (reply, after)) = slow.join().unwrap();
            let what = format!("{what}, trickles: {trickles}");
            assert!(after < PATIENCE + LATE, "{what}: {after:?}");
            match reply {
                Reply::Answer(status, body) => {
                    assert_eq!(status, 408, "{what}: {body}");
                    assert_says_why(&what, &body);
                }
                Reply::Closed => {}
            }
        }
    });
    victim.unharmed("slow clients");
    before.assert_unchanged(&host.state(), "slow clients");
}

/// Sends the beginning and, perhaps, a byte now and then; what came of it, and when.
fn cut_off(socket: &Path, beginning: &str, trickles: bool) -> (Reply, Duration) {
    let began = Instant::now();
    let mut client = RawClient::connect(socket);
    client.send(beginning.as_bytes());
    // The pace is what is tried here.
    while trickles && began.elapsed() < PATIENCE + LATE && client.send(b"x") {
        std::thread::sleep(Duration::from_millis(200));
    }
    (client.reply(), began.elapsed())
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("vanish");
    let before = host.state();
    let victim = Victim::new(&host);
    let upgrade = |method, path, body| {
        let headers =
            "content-type: application/json\r\nconnection: upgrade\r\nupgrade: ikv-capture\r\n";
        request_with(method, path, headers, body)
    };
    let requests = [
        request("GET", "/v1/cables", ""),
        request("GET", "/v1/topology", ""),
        // Answers that fill the socket, which nobody reads.
        request("GET", "/v1/cables", "").repeat(20),
        upgrade("POST", "/v1/capture", r#"{"cables":["ikeb1-3"]}"#),
        upgrade("POST", "/v1/capture", r#"{"cables":[]}"#),
        upgrade("POST", "/v1/recorder/dump", r#"{"cables":["ikeb1-3"]}"#),
    ];
    for round in 0..10 {
        for (number, bytes) in requests.iter().enumerate() {
            let mut client = RawClient::connect(&host.socket());
            assert!(client.send(bytes));
            if (round + number) % 2 == 0 {
                let reply = client.reply();
                assert!(matches!(reply, Reply::Answer(200 | 101, _)), "{reply:?}");
            }
        }
    }
    victim.unharmed("clients that vanished");
    before.assert_unchanged(&host.state(), "clients that vanished");
}

#[test]
fn one_client_too_many_is_told_so() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("many");
    let before = host.state();
    let victim = Victim::new(&host);
    // Streams, which are not cut off. A cable takes only a few at once.
    let names = host.json(&["cables"]);
    let stream = |number: usize| {
        let headers =
            "content-type: application/json\r\nconnection: upgrade\r\nupgrade: ikv-capture\r\n";
        let body = json!({"cables": [names[number]["name"]]}).to_string();
        request_with("POST", "/v1/capture", headers, &body)
    };
    let mut clients = Vec::new();
    let refusal = until("a refusal", SOON, || {
        let mut client = RawClient::connect(&host.socket());
        client.send(&stream(clients.len()));
        match client.reply() {
            Reply::Answer(101, _) => {
                clients.push(client);
                Err(format!("{} clients are served", clients.len()))
            }
            reply => Ok(reply),
        }
    });
    let Reply::Answer(503, body) = refusal else {
        panic!("{refusal:?}")
    };
    assert_says_why("one too many", &body);
    assert_eq!(clients.len(), MOST_CLIENTS);
    let refused = host.ask(&["status"]);
    assert!(refused.refusal().contains("128 clients"), "{refused:?}");
    drop(clients);
    until("the places to be free again", SOON, || {
        let answer = host.ask(&["status"]);
        ensure(answer.code == Some(0), || answer.stderr)
    });
    victim.unharmed("too many clients");
    before.assert_unchanged(&host.state(), "too many clients");
}
