//! The flow that `converge` makes: `ping` on a switch, started through its guest agent.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::task::JoinHandle;

use api::{Client, ClientError, ExecAnswer, ExecRequest};
use model::printable;

/// ping ends by itself after this many seconds, in case this process dies before it ends it.
const LONGEST: f64 = 580.0;

/// The file in the VM that holds the process id of ping.
const PID_FILE: &str = "/run/ikv-converge.pid";

/// What ping writes to standard error is truncated to this many characters.
const LONGEST_STDERR: usize = 200;

/// A ping that runs on a switch. It runs on when this is dropped; only [`Pings::stop`] ends it.
pub(super) struct Pings {
    client: Client,
    node: String,
    /// The request that started it; `None` once ping has ended.
    running: Option<JoinHandle<Result<ExecAnswer, ClientError>>>,
}

impl Pings {
    /// Pings `to` from `node`, whose own address is `from`, once every `interval`.
    pub(super) fn start(
        client: &Client,
        node: &str,
        [from, to]: [IpAddr; 2],
        interval: Duration,
    ) -> Self {
        // Not with a deadline: then ping ends at the first error that the network reports.
        let seconds = interval.as_secs_f64();
        let count = (LONGEST / seconds).ceil();
        let script = format!(
            "echo $$ > {PID_FILE}; exec ping -n -q -c {count} -i {seconds:.3} -I {from} {to}"
        );
        let (asked, name) = (client.clone(), node.to_owned());
        Pings {
            client: client.clone(),
            node: node.to_owned(),
            running: Some(tokio::spawn(
                async move { exec(&asked, &name, &script).await },
            )),
        }
    }

    /// Waits until ping ends by itself, and returns why. Dropping the future does not end ping.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        let ended = running.await;
        self.running = None;
        let reason = match ended {
            Ok(Ok(answer)) => {
                let stderr = BASE64.decode(answer.stderr).unwrap_or_default();
                format!(
                    "{} {}",
                    answer.status,
                    printable::tail(&stderr, LONGEST_STDERR)
                )
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        anyhow::anyhow!("ping on {} has ended: {reason}", self.node)
    }

    /// Ends ping and waits for that.
    pub(super) async fn stop(self) {
        let Some(running) = self.running else { return };
        let script = format!("kill -INT $(cat {PID_FILE}); rm -f {PID_FILE}");
        // If the agent does not answer, ping ends by itself.
        if exec(&self.client, &self.node, &script).await.is_ok() {
            let _ = running.await;
        }
    }
}

async fn exec(client: &Client, node: &str, script: &str) -> Result<ExecAnswer, ClientError> {
    let request = ExecRequest {
        argv: ["sh", "-c", script].map(Into::into).into(),
        stdin: String::new(),
    };
    client.exec(node, &request).await
}
