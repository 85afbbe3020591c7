//! Malformed requests by kind, generated from a seed.

use api::routes::{self, Route};
use ikv_tests::Dice;
use ikv_tests::raw_api::{request, request_with};

/// What a client sends, and how the fabric may refuse it.
pub(crate) struct Malformed {
    pub(crate) bytes: Vec<u8>,
    /// Whether it is valid HTTP, so that the refusal must have a sentence.
    pub(crate) is_http: bool,
    /// Whether the client closes its sending side afterwards.
    pub(crate) finished: bool,
}

/// A valid request.
struct Sample {
    method: String,
    path: String,
    body: &'static str,
}

fn sample<I, A>(route: &Route<I, A>, name: &str, body: &'static str) -> Sample {
    Sample {
        method: route.method().into(),
        path: route.path(name),
        body,
    }
}

impl Sample {
    fn with_query(self, query: &str) -> Self {
        let path = format!("{}?{query}", self.path);
        Sample { path, ..self }
    }
}

/// Every route with a valid body. The cable is the one over which frames flow meanwhile.
fn samples() -> Vec<Sample> {
    vec![
        sample(&routes::STATUS, "", ""),
        sample(&routes::TOPOLOGY, "", ""),
        sample(&routes::CABLES, "", "").with_query("name=ikeb1-3"),
        sample(&routes::CABLE_STATE, "ikeb1-3", r#"{"state":"up"}"#),
        sample(&routes::IMPAIRMENT, "ikeb1-3", r#"{"set":{"loss":"1%"}}"#),
        sample(&routes::IMPAIRMENTS, "", ""),
        sample(&routes::CABLE_BATCH, "", r#"{"changes":[]}"#),
        sample(&routes::APPLY, "", r#"{"config":"../../etc/passwd"}"#),
        sample(&routes::POSITIONS, "", ""),
        sample(&routes::VM_ARGS, "rack1:u3", "").with_query("nic=tap"),
        sample(&routes::SSH, "", ""),
        sample(&routes::EXEC, "leaf1", r#"{"argv":["true"]}"#),
        sample(&routes::POWER, "leaf1", r#"{"action":"off"}"#),
        sample(&routes::CONSOLE, "leaf1", ""),
        sample(&routes::CAPTURE, "", r#"{"cables":["ikeb1-3"]}"#),
        sample(&routes::RECORDER, "", ""),
        sample(&routes::RECORDER_DUMP, "", r#"{"cables":["ikeb1-3"]}"#),
        sample(&routes::KEPT_DUMP, "001-down", ""),
        sample(&routes::RECORDER_TRIGGERS, "", r#"{"triggers":[]}"#),
    ]
}

/// Names with path traversal, shell metacharacters or terminal escapes.
const NAMES: &[&str] = &[
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2fetc%2fshadow",
    "..",
    "%2e%2e",
    "..%00",
    "%00",
    "%1b%5b2J%1b%5d0;owned%07",
    "%0d%0aset-cookie:x",
    "%ff%fe",
    "%e2%80%ae",
    "%",
    "%zz",
    "ikeb1-3%20",
    "-rf",
    "$(reboot)",
    "'%3bdrop",
];

/// Bodies that are meaningless, contradictory or out of range.
const BODIES: &[&str] = &[
    "",
    "null",
    "[[]]",
    "{}x",
    "{\"state\":\"sideways\"}",
    "{\"state\":\"\\u001b[31mred\\u0007\"}",
    "{\"\\u001b]0;owned\\u0007\":1}",
    "{\"state\":1e999}",
    "{\"state\":\"up\",\"more\":1}",
    "{\"set\":{\"loss\":-1}}",
    "{\"set\":{\"loss\":\"1e308%\"}}",
    "{\"set\":{\"delay\":\"99999999999999999999s\"}}",
    "{\"set\":{\"rate\":\"-5gbit\"}}",
    "{\"changes\":[{\"cable\":\"../ikhb\",\"state\":\"down\"}]}",
    "{\"changes\":[{\"cable\":\"\\u0000\",\"state\":\"down\"}]}",
    "{\"argv\":[],\"stdin\":\"not base64!\"}",
    "{\"argv\":\"true\"}",
    "{\"cables\":[\"\\u202e3-1beki\"]}",
    "{\"cables\":[\"ikeb1-3\"],\"filter\":[[5,0,0,9]]}",
    "{\"cables\":[\"ikeb1-3\"],\"snap\":-1}",
    "{\"triggers\":[{\"on\":\"match\",\"expression\":\"x\",\"filter\":[[65535,255,255,4294967295]]}]}",
    "{\"triggers\":[{\"on\":\"drops\",\"percent\":1e400}]}",
    "\u{feff}{}",
];

type Kind = fn(&mut Dice) -> Malformed;

/// Every kind of malformed request with a name for failure messages.
pub(crate) const KINDS: &[(&str, Kind)] = &[
    ("random bytes", |dice| {
        let count = 1 + dice.below(4000);
        raw(dice.bytes(count))
    }),
    ("random text with line ends", |dice| {
        let text = [
            b"GET ",
            &b"\r\n"[..],
            b"\r\n\r\n",
            b": ",
            b"HTTP/1.1",
            b"\0",
            b"x",
            b"\t",
        ];
        let parts: Vec<_> = (0..40).map(|_| dice.one_of(&text)).collect();
        raw(parts.concat())
    }),
    ("a request that breaks off", |dice| {
        let Sample { method, path, body } = one_of(dice, samples());
        let mut bytes = request(&method, &path, body);
        // Without a body, a request is complete before its last bytes: cut off more.
        let shortest = if body.is_empty() { 3 } else { 1 };
        bytes.truncate(1 + dice.below(bytes.len() - shortest));
        raw(bytes)
    }),
    ("a request with bytes changed", |dice| {
        let Sample { method, path, body } = one_of(dice, samples());
        let mut bytes = request(&method, &path, body);
        // One of the changed bytes is in the blank or the version, so the request cannot be valid.
        let end = bytes
            .windows(8)
            .position(|at| at == b"HTTP/1.1")
            .expect("every request names its version");
        bytes[end + dice.below(5)] = 0x80 | dice.roll() as u8;
        for _ in 0..dice.below(8) {
            let at = dice.below(bytes.len());
            bytes[at] ^= 1 << dice.below(8);
        }
        raw(bytes)
    }),
    ("a huge header", |dice| {
        let long = "x".repeat((150 << 10) + dice.below(200 << 10));
        raw(request_with(
            "GET",
            &routes::STATUS.path(""),
            &format!("x-long: {long}\r\n"),
            "",
        ))
    }),
    ("very many headers", |dice| {
        let many: Vec<_> = (0..200 + dice.below(800))
            .map(|number| format!("x-{number}: {number}\r\n"))
            .collect();
        raw(request_with(
            "GET",
            &routes::STATUS.path(""),
            &many.concat(),
            "",
        ))
    }),
    ("a huge path", |dice| {
        let long = "a".repeat((70 << 10) + dice.below(100 << 10));
        raw(request(
            "GET",
            &format!("{}/{long}", routes::CABLES.path("")),
            "",
        ))
    }),
    ("a huge body", |dice| {
        let Sample { method, path, .. } = one_of(dice, samples());
        let body = format!(
            "{{\"x\":\"{}\"}}",
            "y".repeat((2 << 20) + dice.below(1 << 20))
        );
        http(request(&method, &path, &body))
    }),
    ("a body of endless chunks", |dice| {
        let head = format!(
            "PUT {} HTTP/1.1\r\nhost: f\r\n\
             content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
            routes::CABLE_STATE.path("ikeb1-3")
        );
        let chunk = [&b"10000\r\n"[..], &dice.bytes(0x10000), b"\r\n"].concat();
        http([head.into_bytes(), chunk.repeat(40)].concat())
    }),
    ("lengths that contradict", |dice| {
        let lines = [
            "content-length: 5\r\ncontent-length: 6\r\n",
            "content-length: -1\r\n",
            "content-length: 99999999999999999999999\r\n",
            "content-length: 0x10\r\n",
            "transfer-encoding: gzip\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        ];
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: f\r\n{}\r\n{{}}",
            routes::CABLE_BATCH.path(""),
            dice.one_of(&lines)
        );
        raw(head.into_bytes())
    }),
    ("chunks that are none", |dice| {
        let chunks = [
            "zz\r\n",
            "ffffffffffffffffff\r\n",
            "-1\r\n",
            "5;\r\nabc\r\n",
            "0\r\nx",
        ];
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: f\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\n",
            routes::CABLE_BATCH.path("")
        );
        raw(format!("{head}{}", dice.one_of(&chunks)).into_bytes())
    }),
    ("another type of content", |dice| {
        let types = [
            "text/plain",
            "application/xml",
            "multipart/form-data",
            "",
            "\u{fc}",
        ];
        let Sample { method, path, body } = one_of(dice, with_body());
        let header = format!("content-type: {}\r\n", dice.one_of(&types));
        http(request_with(&method, &path, &header, body))
    }),
    ("JSON that is nested deeply", |dice| {
        let Sample { method, path, .. } = one_of(dice, with_body());
        let depth = 200 + dice.below(200_000);
        let open = dice.one_of(&["[", "{\"a\":", "{\"changes\":[", "{\"argv\":["]);
        let mut body = open.repeat(depth);
        body.truncate(1 << 20);
        http(request(&method, &path, &body))
    }),
    ("a body that means nothing", |dice| {
        let Sample { method, path, .. } = one_of(dice, with_body());
        http(request(&method, &path, dice.one_of(BODIES)))
    }),
    ("a method that is not for it", |dice| {
        let Sample { method, path, body } = one_of(dice, samples());
        let methods = ["DELETE", "PATCH", "OPTIONS", "TRACE", "BREW", "get"];
        let mut wrong = dice.one_of(&methods);
        if dice.below(2) == 0 {
            wrong = if method == "POST" { "PUT" } else { "POST" };
        }
        http(request(wrong, &path, body))
    }),
    ("a path that leads nowhere", |dice| {
        let status = routes::STATUS.path("");
        let base = status.trim_end_matches("status");
        let paths = vec![
            "/".into(),
            "//".into(),
            base.trim_end_matches('/').into(),
            base.into(),
            status.replace("v1", "v2"),
            format!("{status}/"),
            status.replace("status", "Status"),
            format!("{base}nodes"),
            format!("{base}..{status}"),
            format!("{base}./status"),
            "/etc/passwd".into(),
            format!("{base}/cables"),
            format!("{base}cables/ikeb1-3"),
        ];
        http(request("GET", &one_of::<String>(dice, paths), ""))
    }),
    ("a name that leads elsewhere", |dice| {
        let name = dice.one_of(NAMES);
        let samples = vec![
            sample(&routes::CABLE_STATE, name, r#"{"state":"down"}"#),
            sample(&routes::VM_ARGS, name, ""),
            sample(&routes::CABLES, "", "").with_query(&format!("name={name}")),
            sample(&routes::EXEC, name, r#"{"argv":["true"]}"#),
            sample(&routes::POWER, name, r#"{"action":"off"}"#),
            sample(&routes::CONSOLE, name, ""),
            sample(&routes::KEPT_DUMP, name, ""),
        ];
        let Sample { method, path, body } = one_of(dice, samples);
        http(request(&method, &path, body))
    }),
    ("a stream that is not asked for as one", |dice| {
        let samples = vec![
            sample(&routes::CAPTURE, "", r#"{"cables":["ikeb1-3"]}"#),
            sample(&routes::RECORDER_DUMP, "", r#"{"cables":["ikeb1-3"]}"#),
            sample(&routes::KEPT_DUMP, "001-down", ""),
        ];
        let Sample { method, path, body } = one_of(dice, samples);
        let headers = [
            "",
            "connection: upgrade\r\nupgrade: websocket\r\n",
            "connection: upgrade\r\n",
            "connection: upgrade\r\nupgrade: ikv-console\r\n",
        ];
        let headers = format!(
            "content-type: application/json\r\n{}",
            dice.one_of(&headers)
        );
        http(request_with(&method, &path, &headers, body))
    }),
    ("another protocol", |dice| {
        let greetings: [&[u8]; 5] = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
            b"{\"execute\":\"qmp_capabilities\"}\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
        ];
        raw(dice.one_of(&greetings).to_vec())
    }),
];

fn with_body() -> Vec<Sample> {
    let mut samples = samples();
    samples.retain(|sample| !sample.body.is_empty());
    samples
}

fn one_of<T>(dice: &mut Dice, mut choices: Vec<T>) -> T {
    choices.swap_remove(dice.below(choices.len()))
}

fn raw(bytes: Vec<u8>) -> Malformed {
    Malformed {
        bytes,
        is_http: false,
        finished: true,
    }
}

fn http(bytes: Vec<u8>) -> Malformed {
    Malformed {
        bytes,
        is_http: true,
        finished: false,
    }
}
