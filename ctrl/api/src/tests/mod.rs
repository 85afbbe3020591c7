//! Server and client together, over a socket: every request arrives as it was meant.

pub(crate) mod fake;

use model::power::PowerAction;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use model::cable_change::{CableBatch, CableState, ImpairmentChange};
use model::plugging::{PlugKind, PlugOptions, Vmm};

use super::*;
use fake::{Fake, lane, node, recorder_status};

/// A name that a path and a query can carry only if it is encoded.
const ODD: &str = "a b/c?d&e=%41é";

/// Runs `test` with a client of a fake fabric; what the fabric was asked meanwhile.
fn with_client(test: impl AsyncFnOnce(&Client)) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let fake = Arc::new(Fake::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = UnixListener::bind(&socket).unwrap();
        let client = Client::new(&socket);
        tokio::select! {
            never = serve(listener, fake.clone()) => match never {},
            () = test(&client) => {}
        }
    });
    fake.asked.lock().unwrap().clone()
}

async fn read_all(mut stream: impl AsyncRead + Unpin) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[test]
fn every_request_arrives_as_it_was_made() {
    let asked = with_client(async |client| {
        let description: serde_json::Value = serde_json::from_str(openapi()).unwrap();
        assert_eq!(client.openapi().await.unwrap(), description);
        assert!(client.status().await.unwrap().ready);
        assert!(client.cables(&[]).await.unwrap().is_empty());
        client.cables(&[ODD.into(), "iksb12".into()]).await.unwrap();
        let changed = client
            .set_cable_state(ODD, CableState::Blackhole)
            .await
            .unwrap();
        assert_eq!(
            (&*changed.name, changed.state),
            (ODD, CableState::Blackhole)
        );
        let change = ImpairmentChange {
            clear: true,
            ..ImpairmentChange::default()
        };
        assert_eq!(client.impair(ODD, &change).await.unwrap()[1], lane(ODD));
        assert_eq!(client.impairments().await.unwrap(), [lane("iksb12")]);
        let batch = CableBatch::of("iksb12", change);
        assert_eq!(client.change_cables(&batch).await.unwrap().at_ns, 7);
        let request = ApplyRequest {
            dry_run: true,
            ..ApplyRequest::default()
        };
        assert!(!client.apply(&request).await.unwrap().applied);
        assert!(client.positions().await.unwrap().places.is_empty());
        assert!(client.learned_positions().await.unwrap().notes.is_empty());
        assert_eq!(client.stop().await.unwrap().pid, 7);
        let options = PlugOptions {
            nic: PlugKind::VhostUser,
            tcg: true,
            memory_mib: 512,
            vmm: Vmm::Libvirt,
        };
        assert_eq!(
            client.vm_args("rack1:u3", &options).await.unwrap(),
            ["-nodefaults"]
        );
        let exec = ExecRequest {
            argv: vec!["ls".into(), "/".into()],
            stdin: String::new(),
        };
        assert_eq!(client.exec("leaf1", &exec).await.unwrap().status, 3);
        assert_eq!(
            client.power("leaf1", PowerAction::Cycle).await.unwrap(),
            node()
        );
        assert!(client.page().await.unwrap().link.ends_with("token=0"));
        assert_eq!(client.recorder().await.unwrap(), recorder_status());
        client.set_triggers(vec![Trigger::Bgp {}]).await.unwrap();
    });
    insta::assert_snapshot!(asked.join("\n"), @r#"
    status
    cables []
    cables ["a b/c?d&e=%41é", "iksb12"]
    a b/c?d&e=%41é blackhole
    impair a b/c?d&e=%41é, clear: true
    impairments
    1 changes
    apply, dry run: true, this user: true
    positions, learned: false
    positions, learned: true
    stop, this user: true
    vm-args rack1:u3 PlugOptions { nic: VhostUser, tcg: true, memory_mib: 512, vmm: Libvirt }
    exec leaf1 ["ls", "/"]
    power leaf1 Cycle
    page
    recorder
    triggers [Bgp]
    "#);
}

#[test]
fn streams_carry_what_the_backend_sends() {
    let asked = with_client(async |client| {
        let mut console = client.console("leaf1").await.unwrap();
        console.write_all(b"ls\n").await.unwrap();
        let mut echo = [0; 3];
        console.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"ls\n");
        let everything = CaptureRequest::default();
        let now = read_all(client.capture(&everything).await.unwrap()).await;
        assert!(now.ends_with("}\nnow"), "{now}");
        let recent = DumpRequest {
            last_ms: Some(5),
            ..DumpRequest::default()
        };
        let before = read_all(client.recorder_dump(&recent).await.unwrap()).await;
        assert!(before.ends_with("}\nbefore"), "{before}");
        let kept = read_all(client.kept_dump("001-down").await.unwrap()).await;
        assert!(kept.ends_with("}\nkept"), "{kept}");
    });
    assert_eq!(
        asked,
        [
            "console leaf1",
            "capture []",
            "dump Some(5)",
            "kept 001-down"
        ]
    );
}

#[test]
fn events_and_metrics_arrive() {
    let asked = with_client(async |client| {
        let request = EventsRequest {
            since: Some(7),
            follow: false,
        };
        let mut events = client.events(&request).await.unwrap();
        let Some(Streamed::Event(event)) = events.next().await.unwrap() else {
            panic!("no event");
        };
        assert_eq!((event.id, &*event.text), (8, "é\n"));
        let last = events.next().await.unwrap();
        assert!(matches!(last, Some(Streamed::Lagged(_))), "{last:?}");
        assert_eq!(events.next().await.unwrap(), None);
        let page = client.metrics().await.unwrap();
        assert!(page.ends_with("# EOF\n"), "{page}");
    });
    assert_eq!(
        asked,
        ["events Some(7), follow: false", "cables []", "status"]
    );
}

#[test]
fn an_event_source_goes_on_after_its_last_event() {
    let asked = with_client(async |client| {
        for id in ["900", "x"] {
            let request = format!(
                "GET /v1/events?since=5 HTTP/1.1\r\nhost: f\r\nlast-event-id: {id}\r\n\
                 connection: close\r\n\r\n"
            );
            let (status, _) = raw(client, &request).await;
            assert_eq!(status, "HTTP/1.1 200 OK");
        }
        let request = "GET /v1/events?since=x HTTP/1.1\r\nhost: f\r\nconnection: close\r\n\r\n";
        let (status, body) = raw(client, request).await;
        assert_eq!(status, "HTTP/1.1 400 Bad Request");
        serde_json::from_str::<Failure>(&body).unwrap();
    });
    let expected = [
        "events Some(900), follow: true",
        "events Some(5), follow: true",
    ];
    assert_eq!(asked, expected);
}

#[test]
fn a_refusal_arrives_as_one_printable_sentence() {
    with_client(async |client| {
        let refusals = [
            client.topology().await.unwrap_err(),
            client.ssh().await.unwrap_err(),
            client.ipmi().await.unwrap_err(),
        ];
        let sentences = refusals.map(|error| match error {
            ClientError::Refused(sentence) => sentence,
            other => panic!("{other}"),
        });
        assert_eq!(sentences[1..], ["no switches", "no BMCs"]);
        assert!(sentences[0].starts_with("no topology"), "{sentences:?}");
        assert!(!sentences[0].contains('\u{1b}'), "{sentences:?}");
    });
}

/// Sends a request as text; the first line of the answer, and its last.
async fn raw(client: &Client, request: &str) -> (String, String) {
    let mut stream = UnixStream::connect(client.socket()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // A file is not text.
    let answer = String::from_utf8_lossy(&answer);
    let line = |line: Option<&str>| line.unwrap_or_default().to_owned();
    (line(answer.lines().next()), line(answer.lines().last()))
}

#[test]
fn every_route_of_the_table_has_a_handler() {
    with_client(async |client| {
        for route in routes::ALL {
            let (method, template) = (&route.method, route.template);
            let request =
                format!("{method} {template} HTTP/1.1\r\nhost: f\r\nconnection: close\r\n\r\n");
            let (status, body) = raw(client, &request.replace(['{', '}'], "")).await;
            let missing = [" 404 ", " 405 "].iter().any(|code| status.contains(code));
            assert!(
                !missing || body.contains("no switches"),
                "{method} {template}: {status} {body}"
            );
        }
    });
}

#[test]
fn what_is_not_a_request_of_this_api_is_refused_with_its_status() {
    let trials = [
        ("GET /v1/nothing", "404 Not Found"),
        ("DELETE /v1/status", "405 Method Not Allowed"),
        ("GET /v1/nodes/%ff/console", "400 Bad Request"),
        ("GET /v1/nodes/leaf1/console", "400 Bad Request"),
        ("GET /v1/cables/a/capture?seconds=0", "400 Bad Request"),
        ("GET /v1/cables/a/capture?mebibytes=1025", "400 Bad Request"),
        ("GET /v1/vm-args/rack1:u3?tcg=maybe", "400 Bad Request"),
        ("PUT /v1/nodes/leaf1/power", "415 Unsupported Media Type"),
        ("GET /v1/topology", "409 Conflict"),
        ("GET /v1/ssh", "404 Not Found"),
        ("GET /v1/ipmi", "502 Bad Gateway"),
    ];
    with_client(async |client| {
        for (request, expected) in trials {
            let request = format!("{request} HTTP/1.1\r\nhost: f\r\nconnection: close\r\n\r\n");
            let (status, body) = raw(client, &request).await;
            assert_eq!(status, format!("HTTP/1.1 {expected}"), "{request}");
            serde_json::from_str::<Failure>(&body).unwrap();
        }
    });
}
