//! Against a QEMU that answers from a script.

use super::*;
use tokio::io::AsyncBufReadExt;
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(5);
const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";

/// A QEMU that greets, accepts the capabilities, then sends `script` after each further
/// request and closes at the end of it.
async fn fake(mut stream: UnixStream, script: Vec<String>) {
    stream.write_all(GREETING.as_bytes()).await.unwrap();
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    lines.next_line().await.unwrap();
    write
        .write_all(b"{\"return\": {}, \"id\": 1}\r\n")
        .await
        .unwrap();
    for reply in script {
        if lines.next_line().await.unwrap().is_none() {
            return;
        }
        let _ = write.write_all(reply.as_bytes()).await;
    }
    let _ = lines.next_line().await;
}

async fn open(script: &[&str]) -> (Qmp, mpsc::UnboundedReceiver<Event>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    tokio::spawn(fake(
        theirs,
        script.iter().map(|s| (*s).to_owned()).collect(),
    ));
    let (sender, events) = mpsc::unbounded_channel();
    let qmp = Qmp::open(ours, LIMIT, move |event| drop(sender.send(event)))
        .await
        .unwrap();
    (qmp, events)
}

#[tokio::test]
async fn answers_and_events_find_their_way() {
    let (qmp, mut events) = open(&[concat!(
        "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}\r\n",
        "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": false, \"reason\": \"host-signal\"}}\r\n",
        "{\"event\": \"RESET\", \"data\": {}}\r\n{\"event\": \"NEW\"}\r\n",
        "{\"event\": \"DEVICE_DELETED\", \"data\": {\"path\": \"/machine/x\"}}\r\n",
        "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"nic7\", \"path\": \"/machine/y\"}}\r\n",
        "{\"event\": \"VSERPORT_CHANGE\", \"data\": {\"id\": \"agent\", \"open\": true}}\r\n",
        "{\"return\": {\"status\": \"running\"}, \"id\": 2}\r\n"
    ), "{\"id\": 3, \"error\": {\"class\": \"GenericError\", \"desc\": \"no \\u001b[1m\"}}\r\n"]).await;
    let answer = qmp.execute("query-status", None, LIMIT).await.unwrap();
    assert_eq!(answer["status"], "running");
    let expected = [
        Event::Shutdown { guest: true },
        Event::Shutdown { guest: false },
        Event::Reset,
        Event::Other("NEW".into()),
        Event::Other("DEVICE_DELETED".into()),
        Event::Deleted { id: "nic7".into() },
        Event::Port {
            id: "agent".into(),
            open: true,
        },
    ];
    for event in expected {
        assert_eq!(events.recv().await, Some(event));
    }
    let refused = qmp.set_link("nic9", false, LIMIT).await.unwrap_err();
    assert_eq!(refused.to_string(), "QEMU refused set_link: no \\u{1b}[1m");
}

#[tokio::test]
async fn a_silent_qemu_times_out_and_a_dead_one_fails_at_once() {
    let (qmp, _) = open(&[
        "",
        "{\"return\": {}, \"id\": 2}\n{\"return\": 7, \"id\": 3}\n",
    ])
    .await;
    let silent = qmp
        .execute("stop", None, Duration::from_millis(30))
        .await
        .unwrap_err();
    assert!(
        matches!(
            silent,
            QmpError::Timeout {
                command: "stop",
                ..
            }
        ),
        "{silent}"
    );
    assert_eq!(
        qmp.execute("cont", None, LIMIT).await.unwrap(),
        7,
        "late answers are dropped"
    );
    assert!(matches!(
        qmp.execute("quit", None, LIMIT).await.unwrap_err(),
        QmpError::Closed
    ));
    timeout(LIMIT, qmp.closed()).await.unwrap();
    assert!(matches!(
        qmp.execute("quit", None, LIMIT).await.unwrap_err(),
        QmpError::Closed
    ));
}

#[tokio::test]
async fn nonsense_and_endless_lines_end_the_connection() {
    let deep = format!("{}\n", "[".repeat(100_000));
    let long = format!("{}\n", "x".repeat(MAX_LINE + 1));
    for hostile in ["not json\n", &deep, &long, "{\"id\": \"two\"}\n"] {
        let (qmp, _) = open(&[hostile, ""]).await;
        let error = qmp.execute("stop", None, LIMIT).await.unwrap_err();
        assert!(matches!(error, QmpError::Closed), "{error}");
    }
}

#[tokio::test]
async fn a_socket_that_is_not_a_monitor_is_refused() {
    for (says, error) in [
        (
            "SSH-2.0-\u{1b}OpenSSH\n",
            "does not speak QMP: SSH-2.0-\\u{1b}OpenSSH",
        ),
        ("", "closed"),
    ] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(says.as_bytes()).await.unwrap();
        drop(theirs);
        let found = Qmp::open(ours, LIMIT, drop).await.unwrap_err().to_string();
        assert!(found.contains(error), "{found}");
    }
    let (ours, _silent) = UnixStream::pair().unwrap();
    let found = Qmp::open(ours, Duration::from_millis(20), drop)
        .await
        .unwrap_err();
    assert!(matches!(
        found,
        QmpError::Timeout {
            command: "greeting",
            ..
        }
    ));
}
