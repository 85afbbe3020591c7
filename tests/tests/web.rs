//! The page of a fabric: who may open it, what it does, and what nobody can do to it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ikv_tests::capturing::{Shark, have_shark};
use ikv_tests::panel::{PanelFabric, PanelHost};
use ikv_tests::patience::{SOON, output_within, until, wait_until};
use ikv_tests::process::descriptors;
use ikv_tests::web_client::{PageClient, WebAnswer, answer, have_browser, request};
use ikv_tests::{Answer, Flow, executable_by_all, have_root};
use serde_json::{Value, json};

const AT: &str = "127.0.0.1:8090";
const WEB: [&str; 2] = ["--web", AT];

/// How long a client may take to send a request, as the crate's documentation says, and the delay
/// that a busy machine may add.
const PATIENCE: Duration = Duration::from_secs(10);
const LATE: Duration = Duration::from_secs(10);

/// Time in which the page and the API answer, whatever others do to them.
const PROMPT: Duration = Duration::from_secs(5);

/// What every answer has, so that no other page can frame it, read it or run code in it.
fn assert_guarded(what: &str, answer: &WebAnswer) {
    let policy = answer.header("content-security-policy");
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(rule), "{what}: {answer:?}");
    }
    assert!(!policy.contains("unsafe"), "{what}: {policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(answer.header(name), value, "{what}: {answer:?}");
    }
}

/// A request: method, path and headers. The answer's status, and what it says.
type Row<'r> = (&'r str, &'r str, &'r [(&'r str, &'r str)], u16, &'r str);

const OWN: (&str, &str) = ("host", AT);

fn assert_row(page: &PageClient<'_>, (method, path, headers, status, says): &Row<'_>) {
    let answer = page.ask(method, path, headers, "");
    let what = format!("{method} {path} {headers:?}");
    assert_eq!(answer.status, *status, "{what}: {answer:?}");
    assert!(answer.text().contains(says), "{what}: {answer:?}");
    assert_guarded(&what, &answer);
    let token = page.query.strip_prefix("/?token=").unwrap();
    assert!(!answer.text().contains(token), "{what}");
}

#[test]
fn only_the_link_opens_the_page() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("web-door");
    let fabric = host.run(&WEB);
    let page = PageClient::open(&host);
    assert_eq!(page.at.to_string(), AT);
    let token = page.query.strip_prefix("/?token=").unwrap();
    assert_eq!(token.len(), 32);
    let zeros = format!("ikv-fabric-8090={}", "0".repeat(32));
    let zeros = ("cookie", &*zeros);
    let cookie = ("cookie", &*page.cookie);
    // It may end with any digit.
    let other_end = if token.ends_with('0') { "1" } else { "0" };
    let near = format!("/?token={}{other_end}", &token[..31]);
    let how = "`ikv-fabric web`";
    let rows: &[Row<'_>] = &[
        ("GET", "/", &[OWN], 401, how),
        ("GET", "/js/main.js", &[OWN], 401, how),
        ("GET", "/v1/status", &[OWN], 401, how),
        ("POST", "/v1/apply", &[OWN], 401, how),
        ("GET", "/nothing", &[OWN], 401, how),
        ("GET", &near, &[OWN], 401, how),
        ("GET", "/?token=", &[OWN, cookie], 401, how),
        ("GET", "/", &[OWN, zeros], 401, how),
        ("GET", "/", &[OWN, cookie], 200, "<!doctype html>"),
        ("GET", "/style.css", &[OWN, cookie], 200, "--paper"),
        ("GET", "/v1/nothing", &[OWN, cookie], 404, "no such path"),
        ("GET", "/v1/page", &[OWN, cookie], 403, how),
    ];
    for row in rows {
        assert_row(&page, row);
    }
    let greeting = page.ask("GET", &page.query, &[OWN], "");
    assert_guarded("the link", &greeting);
    assert_eq!(greeting.header("location"), "/");
    let attributes = "; Path=/; HttpOnly; SameSite=Strict";
    let given = greeting.header("set-cookie");
    assert!(given.ends_with(attributes), "{greeting:?}");
    let elsewhere = [OWN, ("sec-fetch-site", "cross-site")];
    let led = page.ask("GET", &page.query, &elsewhere, "");
    assert_guarded("a link on another site", &led);
    assert_eq!(led.status, 200, "{led:?}");
    assert!(led.text().contains("http-equiv=\"refresh\""), "{led:?}");
    // Standard error may be a log that many read.
    assert!(!fabric.stderr().contains(token));
    fabric.wait_said("`ikv-fabric web`");
    fabric.end();
}

#[test]
fn other_pages_and_other_names_open_nothing() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("web-origin");
    let fabric = host.run(&WEB);
    let page = PageClient::open(&host);
    let cookie = ("cookie", &*page.cookie);
    let evil = ("host", "evil.example:8090");
    let from_evil = ("origin", "http://evil.example");
    let near = ("origin", "http://127.0.0.1:9999");
    let null = ("origin", "null");
    let same_site = ("sec-fetch-site", "same-site");
    let cut = "/v1/cables/iksb12/state";
    let rows: &[Row<'_>] = &[
        ("GET", "/", &[cookie], 403, "its own address"),
        ("GET", "/", &[evil, cookie], 403, "its own address"),
        ("GET", &page.query, &[evil], 403, "its own address"),
        ("PUT", cut, &[OWN, from_evil, cookie], 403, "another page"),
        ("PUT", cut, &[OWN, near, cookie], 403, "another page"),
        (
            "GET",
            "/v1/status",
            &[OWN, null, cookie],
            403,
            "another page",
        ),
        (
            "GET",
            "/v1/status",
            &[OWN, same_site, cookie],
            403,
            "another page",
        ),
        (
            "GET",
            "/v1/status",
            &[("host", "localhost:8090"), cookie],
            200,
            "\"ready\":true",
        ),
    ];
    for row in rows {
        assert_row(&page, row);
    }
    assert_eq!(host.json(&["cables", "iksb12"])[0]["state"], "up");
    fabric.end();
}

#[test]
fn the_link_is_for_this_machine_and_for_the_owner() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("web-link");
    for at in ["0.0.0.0:8090", "[::]:8090", "192.0.2.1:8090"] {
        let answer = Answer::of(&mut host.run_command(&["--web", at]));
        let says = "the page is for this machine alone: name an address such as 127.0.0.1:8090";
        assert!(answer.refusal().starts_with(says), "{at}: {answer:?}");
    }
    let fabric = host.run(&WEB);
    let taken = host.command_at(&host.folder().join("other/control.sock"), &[]);
    let taken = Answer::of({ taken }.args(["run", "--switches", "none", "--web", AT]));
    let says = format!("the page cannot listen at {AT}: ");
    assert!(taken.refusal().starts_with(&says), "{taken:?}");
    let mut other = host.netns.command("setpriv");
    other
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(executable_by_all(host.folder()))
        .arg("--socket")
        .arg(host.socket())
        .arg("web");
    let other = Answer::of(&mut other);
    assert_eq!((other.code, &*other.stdout), (Some(1), ""), "{other:?}");
    fabric.end();
    let fabric = host.run(&[]);
    let none = host.ask(&["web"]);
    assert!(none.refusal().contains("run --web"), "{none:?}");
    assert!(!listens(&host));
    fabric.end();
}

fn listens(host: &PanelHost) -> bool {
    host.netns.enter(|| TcpStream::connect(AT)).is_ok()
}

#[test]
fn what_the_page_changes_is_changed() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("web-change");
    let fabric = host.run(&WEB);
    let page = PageClient::open(&host);
    let path = "/v1/cables/iksb12/state";
    let cut = page.call("PUT", path, r#"{"state":"down"}"#);
    assert_eq!(cut.status, 200, "{cut:?}");
    assert_eq!(host.json(&["cables", "iksb12"])[0]["state"], "down");
    let up = page.call("PUT", path, r#"{"state":"up"}"#);
    assert_eq!(up.status, 200, "{up:?}");

    let impair = "/v1/cables/iksb12/impairment";
    let set = r#"{"from":"ikst12","set":{"delay":"5ms","loss":"1%"}}"#;
    assert_eq!(page.call("PUT", impair, set).status, 200);
    let lanes = &host.json(&["cables", "iksb12"])[0]["lanes"];
    let impairment = &lanes[0]["impairment"];
    assert_eq!(
        (&impairment["delay"], &impairment["loss"]),
        (&json!("5ms"), &json!("1%"))
    );
    assert!(lanes[1]["impairment"].is_null());
    let wrong = page.call("PUT", impair, r#"{"set":{"delay":"soon"}}"#);
    assert_eq!(wrong.status, 422, "{wrong:?}");
    assert!(wrong.text().contains("delay"), "{wrong:?}");
    assert_eq!(page.call("PUT", impair, r#"{"clear":true}"#).status, 200);
    let lanes = &host.json(&["cables", "iksb12"])[0]["lanes"];
    assert!(lanes[0]["impairment"].is_null(), "{lanes}");
    fabric.end();
}

#[test]
fn a_capture_is_downloaded_as_a_file() {
    if !have_root() || !have_shark() {
        return;
    }
    let host = PanelHost::new("web-capture");
    let fabric = host.run(&WEB);
    let page = PageClient::open(&host);
    let flow = Flow::start(
        &host.netns,
        "ikls1-3",
        "ikvm1-3-1",
        Duration::from_millis(2),
    );
    let began = Instant::now();
    let file = page.call("GET", "/v1/cables/rack1:u3:1/capture?seconds=1", "");
    let took = began.elapsed();
    flow.end().assert_complete("a download");
    assert_eq!(file.status, 200);
    assert!(took < SOON, "{took:?}");
    assert_guarded("a capture", &file);
    assert_eq!(
        file.header("content-disposition"),
        "attachment; filename=\"ikeb1-3.pcapng\""
    );
    let path = host.folder().join("page.pcapng");
    std::fs::write(&path, &file.body).unwrap();
    let shark = Shark::of(&path);
    assert!(shark.count() > 100, "{}", shark.info());
    for (query, status) in [
        ("seconds=0", 400),
        ("seconds=301", 400),
        ("mebibytes=9999", 400),
    ] {
        let path = format!("/v1/cables/ikeb1-3/capture?{query}");
        assert_eq!(page.call("GET", &path, "").status, status, "{query}");
    }
    assert_eq!(page.call("GET", "/v1/cables/none/capture", "").status, 404);
    fabric.end();
}

/// Asks the page and the API's socket: both must answer at once.
fn assert_prompt(page: &PageClient<'_>, host: &PanelHost, what: &str) {
    let asked = Instant::now();
    let answer = page.call("GET", "/v1/cables?name=iksb12", "");
    assert_eq!(answer.status, 200, "{what}: {answer:?}");
    assert_eq!(host.ask(&["status"]).code, Some(0), "{what}");
    let took = asked.elapsed();
    assert!(took < PROMPT, "{what}: {took:?}");
}

/// Waits until the fabric has as many descriptors as before.
fn assert_released(fabric: &PanelFabric<'_>, before: usize) {
    until("the connections to be closed", SOON, || {
        let now = descriptors(fabric.pid());
        (now <= before)
            .then_some(())
            .ok_or_else(|| format!("{now} descriptors, {before} before"))
    });
}

#[test]
fn idle_and_slow_clients_keep_nobody_out() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("web-slow");
    let fabric = host.run(&WEB);
    let page = PageClient::open(&host);
    assert_prompt(&page, &host, "at first");
    let before = descriptors(fabric.pid());

    // More than there are places, without a word, or with half of one.
    let beginnings = ["", "GET / HT", "GET / HTTP/1.1\r\nhost: a\r\n"];
    let mut strangers: Vec<TcpStream> = Vec::new();
    for number in 0..300 {
        let mut stream = page.connect();
        let _ = stream.write_all(beginnings[number % 3].as_bytes());
        strangers.push(stream);
        if number % 50 == 0 {
            assert_prompt(&page, &host, &format!("{number} strangers"));
        }
    }
    let now = descriptors(fabric.pid());
    assert!(now < before + 140, "{now} descriptors, {before} before");
    // A byte now and then keeps no connection longer than its time.
    let slowest = page.connect();
    let began = Instant::now();
    let mut trickle = slowest.try_clone().unwrap();
    while began.elapsed() < PATIENCE + LATE && trickle.write_all(b"x").is_ok() {
        // This sleep is the slowness under test.
        std::thread::sleep(Duration::from_millis(200));
        assert_prompt(&page, &host, "a trickle");
    }
    assert!(began.elapsed() < PATIENCE + LATE, "{:?}", began.elapsed());
    drop(strangers);
    assert_released(&fabric, before);
    fabric.end();
}

#[test]
fn a_flood_of_connections_keeps_nobody_out() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("web-flood");
    let fabric = host.run(&WEB);
    let page = PageClient::open(&host);
    assert_prompt(&page, &host, "at first");
    let before = descriptors(fabric.pid());
    let over = AtomicBool::new(false);
    let number = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            host.netns.enter(|| {
                let mut held = std::collections::VecDeque::new();
                while !over.load(Ordering::Relaxed) {
                    held.extend(TcpStream::connect(AT));
                    number.fetch_add(1, Ordering::Relaxed);
                    if held.len() > 100 {
                        held.pop_front();
                    }
                }
            });
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for ask in 0..20 {
                assert_prompt(&page, &host, &format!("flooded, {ask}"));
            }
            wait_until("more connections than there is room for", SOON, || {
                number.load(Ordering::Relaxed) > 200
            });
            assert_prompt(&page, &host, "after the flood");
        }));
        over.store(true, Ordering::Relaxed);
        flood.join().unwrap();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    assert_released(&fabric, before);
    fabric.end();
}

#[test]
fn what_is_too_large_or_never_ends_is_refused() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("web-large");
    let fabric = host.run(&WEB);
    let page = PageClient::open(&host);
    let large = format!(r#"{{"state":"{}"}}"#, "x".repeat(3 << 20));
    let refused = page.call("PUT", "/v1/cables/iksb12/state", &large);
    assert_eq!(refused.status, 413, "{refused:?}");
    assert_guarded("a large body", &refused);

    // Without the cookie, no byte of a body is waited for.
    let mut stream = page.connect();
    let head = format!("PUT /v1/x HTTP/1.1\r\nhost: {AT}\r\ncontent-length: 1000000\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 401");

    // With it, a body that does not come is refused in time.
    let cookie = ("cookie", &*page.cookie);
    let mut stream = page.connect();
    let began = Instant::now();
    let mut asked = request(
        "PUT",
        "/v1/cables/iksb12/state",
        &[("host", AT), cookie],
        "{}",
    );
    asked.truncate(asked.len() - 1);
    stream.write_all(&asked).unwrap();
    let late = answer(&mut stream).unwrap();
    assert_eq!(late.status, 408, "{late:?}");
    assert!(began.elapsed() < PATIENCE + LATE);

    let huge = "x".repeat(64 << 10);
    let mut stream = page.connect();
    let _ = stream.write_all(&request("GET", "/", &[("host", AT), ("x", &huge)], ""));
    let refused = answer(&mut stream).map(|answer| answer.status);
    assert!(matches!(refused, None | Some(431)), "{refused:?}");
    assert_prompt(&page, &host, "afterwards");
    assert_eq!(host.json(&["cables", "iksb12"])[0]["state"], "up");
    fabric.end();
}

/// The page as a browser has it after some seconds of its own time.
fn in_browser(host: &PanelHost, link: &str) -> String {
    let profile = host.folder().join("browser");
    let mut command = host.netns.command("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--window-size=1280,900", "--virtual-time-budget=6000"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(["--dump-dom", link]);
    let output = run_browser(&mut command);
    String::from_utf8(output).unwrap()
}

fn run_browser(command: &mut Command) -> Vec<u8> {
    let output = output_within(command, 4 * SOON);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    output.stdout
}

/// The values of `data-key` that begin with `kind`.
fn keys<'p>(page: &'p str, kind: &str) -> Vec<&'p str> {
    let start = format!("data-key=\"{kind} ");
    let parts = page.split(start.as_str()).skip(1);
    parts.map(|part| part.split('"').next().unwrap()).collect()
}

/// The names of the things in a report.
fn names(things: &Value) -> Vec<&str> {
    let things = things.as_array().unwrap().iter();
    things.map(|each| each["name"].as_str().unwrap()).collect()
}

#[test]
fn a_browser_shows_every_switch_and_cable() {
    if !have_root() || !have_browser() {
        return;
    }
    let host = PanelHost::new("web-browser");
    let fabric = host.run(&WEB);
    let page = PageClient::open(&host);
    host.json(&["cable", "iksb12", "down"]);
    host.json(&["impair", "iksb23", "--delay", "5ms"]);
    let shown = in_browser(&host, &page.link());
    let topology = host.json(&["topology"]);
    for (kind, planned) in [
        ("switch", names(&topology["nodes"])),
        ("cable", names(&topology["cables"])),
    ] {
        let mut found = keys(&shown, kind);
        let mut planned = planned;
        found.sort_unstable();
        planned.sort_unstable();
        assert_eq!(found, planned, "{shown}");
    }
    assert_eq!(keys(&shown, "position").len(), 63);
    for says in [
        "Cable iksb12, spine1:2 \u{2194} leaf1:1: cut",
        "Cable iksb23, spine2:3 \u{2194} leaf2:2: impaired: delay 5ms",
        "Cable iksb13, spine1:3 \u{2194} leaf2:1: idle",
        "Position rack1:u3, free",
        "data-state=\"ready\"",
    ] {
        assert!(shown.contains(says), "{says}: {shown}");
    }
    fabric.end();
}
