//! Whether QEMU works on this host, and which version it is.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::error::LaunchError;
use crate::stderr::Stderr;

pub(super) const QEMU: &str = "qemu-system-x86_64";

/// A QEMU without a machine starts in 0.1 s; this is for a very busy host.
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// More bytes than a monitor's greeting and two answers take.
const MAX_GREETING: u64 = 64 << 10;

/// Starts a QEMU without a machine and lets it quit at once. Returns its version.
pub(super) async fn empty_machine(options: &[&str]) -> Result<String, LaunchError> {
    let mut child = Command::new(QEMU)
        .args([
            "-machine",
            "none",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
        ])
        .args(["-qmp", "stdio"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| LaunchError::program(QEMU, "qemu-system-x86", error))?;
    let mut stdin = child.stdin.take().expect("stdin is piped above");
    let mut stderr = Stderr::follow(child.stderr.take().expect("stderr is piped above"));
    // A QEMU that refuses its options ends before it reads this; its status shows that.
    let _ = stdin
        .write_all(b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}\n")
        .await;
    let mut greeting = String::new();
    let stdout = child.stdout.take().expect("stdout is piped above");
    let talk = async {
        // If the output is not text the version stays unknown; only the status counts.
        let mut stdout = stdout.take(MAX_GREETING);
        let _ = stdout.read_to_string(&mut greeting).await;
        drop(stdout);
        child.wait().await
    };
    let ended = tokio::time::timeout(PROBE_LIMIT, talk).await;
    match ended {
        Ok(Ok(status)) if status.success() => Ok(version(&greeting)),
        Ok(Ok(status)) => Err(LaunchError::Probe(
            match stderr.last_words().await.as_str() {
                "" => status.to_string(),
                words => format!("{status}: {words}"),
            },
        )),
        Ok(Err(error)) => Err(LaunchError::Probe(error.to_string())),
        Err(_) => Err(LaunchError::Probe(format!(
            "did not end within {PROBE_LIMIT:?}"
        ))),
    }
}

/// Whether a version, as [`version`] returns it, is this one or a later one. False if it is unknown.
pub(super) fn is_at_least(version: &str, least: (u32, u32)) -> bool {
    let mut numbers = version.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= least,
        _ => false,
    }
}

/// The version in a monitor's greeting, as `7.2.19 (Debian 1:7.2+dfsg-7)`; empty if there is none.
fn version(greeting: &str) -> String {
    let greeting = greeting.lines().next().unwrap_or_default();
    let greeting: serde_json::Value = serde_json::from_str(greeting).unwrap_or_default();
    let version = &greeting["QMP"]["version"];
    let numbers = ["major", "minor", "micro"].map(|part| version["qemu"][part].as_u64());
    match numbers {
        [Some(major), Some(minor), Some(micro)] => {
            let package = version["package"].as_str().unwrap_or_default();
            format!("{major}.{minor}.{micro} ({package})")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, expected) in [
            ("7.2.22 (Debian 1:7.2+dfsg-7)", false),
            ("9.0.4 ()", false),
            ("9.1.0 ()", true),
            ("10.0.13 (Debian 1:10.0.13+ds-1)", true),
            ("", false),
            ("unknown", false),
        ] {
            assert_eq!(is_at_least(version, (9, 1)), expected, "{version}");
        }
    }
}
