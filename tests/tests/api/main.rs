//! The API's socket, used by clients that are broken, slow, hostile, or that vanish: the fabric
//! refuses each with a sentence or disconnects it, and serves the others as before.
#![allow(clippy::unwrap_used)]

mod largest_fabric;
mod malformed;

use std::path::Path;
use std::time::{Duration, Instant};

use api::routes;
use ikv_tests::panel::{PanelFabric, PanelHost};
use ikv_tests::patience::{SOON, ensure, until};
use ikv_tests::process::{descriptors, resident_kib, threads};
use ikv_tests::raw_api::{RawClient, Reply, request, request_with};
use ikv_tests::{Dice, Flow, figure, have_root};
use malformed::{KINDS, Malformed};
use serde_json::{Value, json};

/// Requests in total, and clients that send them at the same time.
const REQUESTS: usize = 1000;
const CLIENTS: usize = 4;

/// KiB by which the fabric's memory may grow meanwhile: permanently, and at its peak.
const GROWS: u64 = 16 << 10;
const SWELLS: u64 = 64 << 10;

/// Interval between the frames that flow over cable ikeb1-3.
const PACE: Duration = Duration::from_millis(2);

/// How long the API waits for a slow client, as its documentation says, and the delay that a busy
/// machine may add.
const PATIENCE: Duration = Duration::from_secs(10);
const LATE: Duration = Duration::from_secs(10);

/// Clients that may be connected at the same time, as the API's documentation says.
const MOST_CLIENTS: usize = 128;

/// A fabric, a flow of frames over one of its cables, and the resources that it used at first.
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
        // The first request of each kind allocates what the fabric then keeps: that is not counted.
        for path in [
            routes::STATUS.path(""),
            routes::CABLES.path(""),
            routes::TOPOLOGY.path(""),
            routes::RECORDER.path(""),
            routes::OPENAPI.path(""),
        ] {
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

    /// Asserts that no frame was lost, no cable changed, and all resources were released.
    fn unharmed(self, what: &str) {
        let (host, pid) = (self.fabric.host(), self.fabric.pid());
        let status = host.json(&["status"]);
        assert_eq!(
            (&status["ready"], &status["cables"]),
            (&json!(true), &json!(141))
        );
        self.flow.end().assert_complete(what);
        let cables = host.json(&["cables"]);
        for cable in cables.as_array().unwrap() {
            assert_eq!(cable["state"], "up", "{what}: {cable}");
            let lanes = cable["lanes"].as_array().unwrap();
            let idle = |lane: &Value| lane["drops"] == json!({}) && lane["impairment"].is_null();
            assert!(lanes.iter().all(idle), "{what}: {cable}");
        }
        until("the clients' resources to be released", SOON, || {
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

/// The count once it has stayed the same for 300 ms: connections end shortly after their answers.
fn settled(count: impl Fn() -> usize) -> usize {
    let mut last = (count(), Instant::now());
    until("the count to settle", SOON, || {
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
fn malformed_requests_do_no_harm() {
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

/// Sends a malformed request and asserts that it is refused, with a sentence if it is HTTP.
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
        // A client that keeps sending after the refusal may be disconnected before it reads it.
        Reply::Closed => assert!(
            !request.is_http || !taken,
            "{what}: closed without an answer"
        ),
    }
}

/// Asserts that the body is an error whose sentence is safe to print on a terminal.
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

/// What a slow client sends before it stalls or continues with a byte at a time.
fn beginnings() -> [(&'static str, String); 5] {
    let (status, state) = (routes::STATUS.path(""), routes::CABLE_STATE.path("ikeb1-3"));
    let batch = routes::CABLE_BATCH.path("");
    let json = "HTTP/1.1\r\nhost: f\r\ncontent-type: application/json";
    [
        ("nothing", String::new()),
        (
            "half a line",
            format!("GET {}", status.trim_end_matches("tus")),
        ),
        ("half a head", format!("GET {status} HTTP/1.1\r\nhost: f")),
        (
            "a head without its body",
            format!("PUT {state} {json}\r\ncontent-length: 1000\r\n\r\n"),
        ),
        (
            "a chunk without its end",
            format!("POST {batch} {json}\r\ntransfer-encoding: chunked\r\n\r\nfff\r\n"),
        ),
    ]
}

#[test]
fn slow_clients_are_disconnected_and_do_not_delay_others() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("slow");
    let before = host.state();
    let victim = Victim::new(&host);
    let socket = host.socket();
    let beginnings = beginnings();
    std::thread::scope(|scope| {
        let mut slow = Vec::new();
        for (what, beginning) in &beginnings {
            for trickles in [false, true] {
                let socket = &socket;
                slow.push(
                    scope
                        .spawn(move || (what, trickles, disconnected(socket, beginning, trickles))),
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

/// Sends the beginning, and then a byte every 200 ms if it `trickles`. Returns the reply and when
/// it came.
fn disconnected(socket: &Path, beginning: &str, trickles: bool) -> (Reply, Duration) {
    let began = Instant::now();
    let mut client = RawClient::connect(socket);
    client.send(beginning.as_bytes());
    // This sleep is the slowness under test.
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
    let upgrade = |path: &str, body| {
        let headers =
            "content-type: application/json\r\nconnection: upgrade\r\nupgrade: ikv-capture\r\n";
        request_with("POST", path, headers, body)
    };
    let (cables, topology) = (routes::CABLES.path(""), routes::TOPOLOGY.path(""));
    let (capture, dump) = (routes::CAPTURE.path(""), routes::RECORDER_DUMP.path(""));
    let requests = [
        request("GET", &cables, ""),
        request("GET", &topology, ""),
        // Answers that fill the socket's buffer because the client does not read them.
        request("GET", &cables, "").repeat(20),
        upgrade(&capture, r#"{"cables":["ikeb1-3"]}"#),
        upgrade(&capture, r#"{"cables":[]}"#),
        upgrade(&dump, r#"{"cables":["ikeb1-3"]}"#),
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

/// The longest answer that needs no fabric: all who ask for it share its bytes.
#[test]
fn a_description_that_nobody_reads_takes_no_memory() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("unread");
    let victim = Victim::new(&host);
    let bytes = request("GET", &routes::OPENAPI.path(""), "").repeat(20);
    let clients: Vec<RawClient> = (0..MOST_CLIENTS - 8)
        .map(|_| {
            let mut client = RawClient::connect(&host.socket());
            assert!(client.send(&bytes));
            client
        })
        .collect();
    let asked = Instant::now();
    assert_eq!(host.ask(&["status"]).code, Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    drop(clients);
    victim.unharmed("a description that nobody reads");
}

#[test]
fn a_client_over_the_limit_is_refused() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("many");
    let before = host.state();
    let victim = Victim::new(&host);
    // Streams, because they have no time limit; each on another cable, because the number of
    // captures of one cable is limited.
    let names = host.json(&["cables"]);
    let stream = |number: usize| {
        let headers =
            "content-type: application/json\r\nconnection: upgrade\r\nupgrade: ikv-capture\r\n";
        let body = json!({"cables": [names[number]["name"]]}).to_string();
        request_with("POST", &routes::CAPTURE.path(""), headers, &body)
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
    until("a connection to be accepted again", SOON, || {
        let answer = host.ask(&["status"]);
        ensure(answer.code == Some(0), || answer.stderr)
    });
    victim.unharmed("too many clients");
    before.assert_unchanged(&host.state(), "too many clients");
}
