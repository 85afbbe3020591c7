//! The client against fake agents: an honest one, and guests of ill will.

use std::sync::Arc;

use tempfile::TempDir;
use tokio::io::AsyncBufReadExt;
use tokio::net::UnixListener;

use super::*;

const LIMITS: Limits = Limits {
    time: Duration::from_secs(5),
    output: 1 << 20,
};

/// What a fake agent does with a request.
enum Reply {
    /// Answers a `guest-sync-delimited` as it should.
    Sync,
    /// Returns a value.
    Return(Value),
    /// Sends these bytes.
    Raw(Vec<u8>),
    /// Closes the connection.
    Close,
}
use Reply::{Close, Raw, Return, Sync};

/// Serves every connection by `reply(command, arguments)`.
fn serve(
    reply: impl Fn(&str, &Value) -> Reply + Send + std::marker::Sync + 'static,
) -> (Agent, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let reply = Arc::new(reply);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, Arc::clone(&reply)));
        }
    });
    (Agent::new(socket), dir)
}

async fn converse(
    mut stream: UnixStream,
    reply: Arc<impl Fn(&str, &Value) -> Reply + Send + std::marker::Sync>,
) {
    let (read, mut write) = stream.split();
    let mut reader = BufReader::new(read);
    let mut line = Vec::new();
    while reader
        .read_until(b'\n', &mut line)
        .await
        .is_ok_and(|n| n > 0)
    {
        let request: Value =
            serde_json::from_slice(line.strip_prefix(b"\xff").unwrap_or(&line)).unwrap();
        line.clear();
        let command = request["execute"].as_str().unwrap();
        let bytes = match reply(command, &request["arguments"]) {
            Sync => synced(&request["arguments"]),
            Return(value) => answer(&value),
            Raw(bytes) => bytes,
            Close => return,
        };
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

fn answer(value: &Value) -> Vec<u8> {
    format!("{}\n", json!({ "return": value })).into_bytes()
}

fn synced(arguments: &Value) -> Vec<u8> {
    [&[0xff], answer(&arguments["id"]).as_slice()].concat()
}

/// Syncs honestly, starts every command as pid 7, and reports `status` of it.
fn reporting(status: Value) -> (Agent, TempDir) {
    serve(move |command, _| match command {
        "guest-sync-delimited" => Sync,
        "guest-exec" => Return(json!({ "pid": 7 })),
        _ => Return(status.clone()),
    })
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(Into::into).collect()
}

#[tokio::test]
async fn runs_a_command_to_its_end() {
    let looks = AtomicI64::new(0);
    let (agent, _dir) = serve(move |command, arguments| match command {
        "guest-sync-delimited" => Sync,
        "guest-exec" => {
            assert_eq!(arguments["path"], "cat");
            assert_eq!(arguments["arg"], json!(["-n", "-"]));
            assert_eq!(arguments["input-data"], STANDARD.encode("in"));
            assert_eq!(arguments["capture-output"], true);
            Return(json!({ "pid": 7 }))
        }
        "guest-exec-status" if looks.fetch_add(1, Ordering::Relaxed) < 3 => {
            assert_eq!(arguments["pid"], 7);
            Return(json!({ "exited": false }))
        }
        _ => Return(json!({
            "exited": true, "exitcode": 3, "out-data": STANDARD.encode("out\0"),
            "err-data": STANDARD.encode("err"), "out-truncated": true,
        })),
    });
    let output = agent.exec(&words("cat -n -"), b"in", LIMITS).await.unwrap();
    let expected = ExecOutput {
        status: ExitStatus::Code(3),
        stdout: b"out\0".to_vec(),
        stderr: b"err".to_vec(),
        truncated: true,
    };
    assert_eq!(output, expected);
}

#[tokio::test]
async fn reports_the_signal_that_ended_a_command() {
    let (agent, _dir) = reporting(json!({ "exited": true, "signal": 15 }));
    let output = agent.exec(&words("x"), b"", LIMITS).await.unwrap();
    assert_eq!(output.status, ExitStatus::Signal(15));
    assert_eq!(output.status.shell_code(), 143);
}

#[tokio::test]
async fn stale_answers_before_the_sync_are_skipped() {
    let (agent, _dir) = serve(|command, arguments| {
        let stale = b"{\"return\": {\"pid\": 666}}\n\xff{\"return\": 424242}\n{\"error\": {}}\n";
        match command {
            "guest-sync-delimited" => Raw([&stale[..], &synced(arguments)].concat()),
            _ => Return(json!({})),
        }
    });
    agent.ping(LIMITS.time).await.unwrap();
}

#[tokio::test]
async fn callers_queue_and_a_closed_connection_is_opened_again() {
    let pings = AtomicI64::new(0);
    let (agent, _dir) = serve(move |command, _| match command {
        "guest-sync-delimited" => Sync,
        _ if pings.fetch_add(1, Ordering::Relaxed) == 1 => Close,
        _ => Return(json!({})),
    });
    let agent = &agent;
    let outcomes = futures_util::future::join_all((0..6).map(|_| agent.ping(LIMITS.time))).await;
    assert_eq!(
        outcomes.iter().filter(|outcome| outcome.is_err()).count(),
        1,
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_and_the_next_one_works() {
    let (sender, mut killed) = tokio::sync::mpsc::unbounded_channel();
    let (agent, _dir) = serve(move |command, arguments| match command {
        "guest-sync-delimited" => Sync,
        "guest-exec" => {
            if arguments["path"] == "sh" {
                sender.send(arguments["arg"][3].clone()).unwrap();
            }
            Return(json!({ "pid": 7 }))
        }
        "guest-ping" => Return(json!({})),
        _ => Return(json!({ "exited": false })),
    });
    let limits = Limits {
        time: Duration::from_millis(60),
        ..LIMITS
    };
    let error = agent
        .exec(&words("sleep inf"), b"", limits)
        .await
        .unwrap_err();
    assert!(matches!(error, AgentError::Timeout(_)), "{error}");
    assert_eq!(killed.recv().await.unwrap(), "7");
    agent.ping(LIMITS.time).await.unwrap();
    // A caller that goes, too, takes its command along.
    let agent = Arc::new(agent);
    let run = agent.exec_for_a_caller(words("sleep inf"), Vec::new(), LIMITS);
    let gone = tokio::time::timeout(Duration::from_millis(60), run).await;
    assert!(gone.is_err(), "{gone:?}");
    assert_eq!(killed.recv().await.unwrap(), "7");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_from_one_that_cannot_run() {
    let refusing = |why: &'static str| {
        serve(move |command, _| match command {
            "guest-sync-delimited" => Sync,
            _ => Raw(format!("{{\"error\": {{\"desc\": \"{why}\"}}}}\n").into_bytes()),
        })
    };
    for (why, said) in [
        (
            "Guest agent command failed, error was 'Failed to execute child process x (No such file or directory)'",
            "there is no program \"x\" in the guest",
        ),
        (
            "Failed to execute child process x (Permission denied)",
            "\"x\" in the guest is not a program that can be run",
        ),
        ("busy", "the guest agent refused: busy"),
    ] {
        let (agent, _dir) = refusing(why);
        let error = agent.exec(&words("x"), b"", LIMITS).await.unwrap_err();
        assert_eq!(error.to_string(), said);
    }
}

#[tokio::test]
async fn a_dropped_request_does_not_shift_the_answers() {
    let (agent, _dir) = serve(|command, _| match command {
        "guest-sync-delimited" => Sync,
        "guest-exec" => Return(json!({ "pid": 9 })),
        "guest-ping" => Raw(Vec::new()),
        _ => Return(json!({ "exited": true, "exitcode": 0 })),
    });
    let dropped = agent.ping(Duration::from_millis(30)).await.unwrap_err();
    assert!(matches!(dropped, AgentError::Timeout(_)));
    let output = agent.exec(&words("true"), b"", LIMITS).await.unwrap();
    assert_eq!(output.status, ExitStatus::Code(0));
}

#[tokio::test]
async fn hostile_answers_become_errors() {
    for (status, message) in [
        (json!({ "exited": true }), "neither exit code nor signal"),
        (
            json!({ "exited": true, "signal": 4096 }),
            "neither exit code nor signal",
        ),
        (json!({ "exited": true, "exitcode": 1e30 }), "invalid type"),
        (
            json!({ "exited": true, "exitcode": 0, "out-data": "%%" }),
            "output: Invalid",
        ),
        (json!({ "exited": "yes\u{1b}[2J" }), "\\u{1b}"),
        (json!([]), "cannot be read"),
    ] {
        let (agent, _dir) = reporting(status);
        let error = agent
            .exec(&words("x"), b"", LIMITS)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{error}");
        assert!(!error.contains('\u{1b}'), "{error}");
    }
}

#[tokio::test]
async fn hostile_lines_are_cut_off() {
    let deep = format!("{{\"return\": {}\n", "[".repeat(50_000));
    let long = format!("{{\"return\": \"{}\"}}\n", "x".repeat(SHORT));
    for bytes in [
        deep,
        long,
        "\u{0}\n".into(),
        "{\"error\": 7}\n".into(),
        "null\n".into(),
    ] {
        let (agent, _dir) = serve(move |command, _| match command {
            "guest-sync-delimited" => Sync,
            _ => Raw(bytes.clone().into_bytes()),
        });
        let error = agent.ping(LIMITS.time).await.unwrap_err();
        assert!(matches!(error, AgentError::Malformed(_)), "{error}");
    }
    let (agent, _dir) = reporting(json!({
        "exited": true, "exitcode": 0, "out-data": STANDARD.encode(vec![b'x'; 300_000])
    }));
    let small = Limits {
        output: 100_000,
        ..LIMITS
    };
    let error = agent
        .exec(&words("x"), b"", small)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("a line of more than"), "{error}");
    agent
        .exec(&words("x"), b"", LIMITS)
        .await
        .expect("the next request starts afresh");
}

#[tokio::test]
async fn an_agent_that_never_syncs_is_bounded_in_time() {
    let (agent, _dir) = serve(|_, _| Raw(b"\xff{\"return\": -1}\n".to_vec()));
    let error = agent.ping(Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, AgentError::Timeout(_)), "{error}");
}

#[tokio::test]
async fn our_own_mistakes_are_named() {
    let (agent, _dir) = serve(|command, _| match command {
        "guest-sync-delimited" => Sync,
        _ => {
            Raw(b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\u0007pe\"}}\n".to_vec())
        }
    });
    let error = agent.exec(&[], b"", LIMITS).await.unwrap_err().to_string();
    assert_eq!(error, "no command was given");
    let error = agent
        .exec(&words("x"), &vec![0; MAX_STDIN + 1], LIMITS)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("of stdin"), "{error}");
    let error = agent
        .exec(&words("x"), b"", LIMITS)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(error, "the guest agent refused: no\\u{7}pe");
    let gone = Agent::new("/nonexistent/agent.sock".into());
    let error = gone.ping(LIMITS.time).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot reach the guest agent"), "{error}");
}

#[tokio::test]
async fn a_file_is_read_in_pieces_and_closed() {
    let closed = Arc::new(AtomicI64::new(0));
    let (pieces, closes) = (AtomicI64::new(0), closed.clone());
    let (agent, _dir) = serve(move |command, arguments| match command {
        "guest-sync-delimited" => Sync,
        "guest-file-open" => {
            assert_eq!(arguments["path"], "/proc/net/tcp6");
            Return(json!(1000))
        }
        "guest-file-read" => {
            assert_eq!(arguments["handle"], 1000);
            let last = pieces.fetch_add(1, Ordering::Relaxed) == 1;
            Return(json!({ "count": 2, "buf-b64": STANDARD.encode("ab"), "eof": last }))
        }
        "guest-file-close" => {
            closes.fetch_add(1, Ordering::Relaxed);
            Return(json!({}))
        }
        other => panic!("{other}"),
    });
    let read = agent.read("/proc/net/tcp6", LIMITS).await.unwrap();
    assert_eq!(read, b"abab");
    assert_eq!(closed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_file_without_an_end_is_refused_and_closed() {
    for piece in [
        json!({ "count": 40_000, "buf-b64": STANDARD.encode(vec![b'x'; 40_000]), "eof": false }),
        json!({ "count": 0, "buf-b64": "", "eof": false }),
    ] {
        let closed = Arc::new(AtomicI64::new(0));
        let closes = closed.clone();
        let (agent, _dir) = serve(move |command, _| match command {
            "guest-sync-delimited" => Sync,
            "guest-file-open" => Return(json!(1000)),
            "guest-file-read" => Return(piece.clone()),
            _ => {
                closes.fetch_add(1, Ordering::Relaxed);
                Return(json!({}))
            }
        });
        let small = Limits {
            output: 100_000,
            ..LIMITS
        };
        let error = agent.read("/x", small).await.unwrap_err().to_string();
        assert!(error.contains("more than 100000 bytes"), "{error}");
        assert_eq!(closed.load(Ordering::Relaxed), 1);
    }
}
