//! `ikv-fabric apply`: changes the running fabric to match another configuration.

use std::time::Duration;

use clap::Args;

use super::Context;
use super::configuration::ConfigArgs;
use api::{ApplyRequest, Status};
use fabric::progress::{Progress, duration};
use model::config::Config;
use model::difference::Refusal;
use model::topology;

/// The time between two updates of the progress line.
const REFRESH: Duration = Duration::from_millis(300);

/// Changes the running fabric to match a configuration: adds and removes racks, positions and
/// cables. Without -c only the keys of --set change. With -c the fabric becomes as the file says,
/// but for keys that `run` or `apply` got by --set: these stay until a file or --set names them.
/// Without either nothing changes, but what another program took away from the host is put back.
/// Cables that are not changed lose no frame. Needs root where it makes or removes network devices
/// or VMs.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only print what would be done.
    #[arg(long)]
    dry_run: bool,
}

/// # Errors
/// When the configuration is wrong or needs a restart, or when a change fails. The fabric then is as
/// it was before.
pub(crate) async fn run(context: &Context, args: &ApplyArgs) -> anyhow::Result<()> {
    let config = args.config.completed()?;
    let has_file = args.config.file.is_some();
    if has_file {
        // The fabric checks this too, but only this process knows the line of each value.
        topology::build(&config)?;
    }
    let request = ApplyRequest {
        said: Some(config.said(has_file)),
        config,
        dry_run: args.dry_run,
    };
    let progress = Progress::new();
    let answer = tokio::select! {
        answer = context.client.apply(&request) => answer?,
        // The fabric answers only when it is done; meanwhile its status says what it does.
        () = show(context, &progress) => unreachable!("show does not return"),
    };
    progress.quiet();
    anyhow::ensure!(
        answer.refused.is_empty(),
        "{}",
        refused(&request.config, &answer.refused)
    );
    context.report(&answer, || answer.difference.to_string())?;
    if context.json {
        return Ok(());
    }
    for note in &answer.notes {
        progress.note(&format!("  ! {note}"));
    }
    if answer.applied && !answer.difference.is_empty() {
        progress.note(&format!("  ✓ applied  ({})", duration(progress.elapsed())));
    }
    Ok(())
}

/// Shows how far the fabric is with the changes, until dropped.
async fn show(context: &Context, progress: &Progress) {
    loop {
        tokio::time::sleep(REFRESH).await;
        if let Ok(Status {
            applying: Some(what),
            ..
        }) = context.client.status().await
        {
            progress.live(&what);
        }
    }
}

/// One line for each refused key, with the line of the file or the option that set it.
fn refused(config: &Config, refused: &[Refusal]) -> String {
    let line = |it: &Refusal| {
        format!(
            "{}: {}",
            config.location(&it.key).with_key(&it.key),
            it.what
        )
    };
    refused.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::config::parse;

    #[test]
    fn a_refused_key_is_reported_with_its_line() {
        let config = parse("new.toml", "[vm]\nnic = \"tap\"\n", &["owner=7".into()]).unwrap();
        let it = |key: &str| Refusal {
            key: key.into(),
            what: "no".into(),
        };
        assert_eq!(
            refused(&config, &[it("owner"), it("vm.nic"), it("mac.host")]),
            "--set owner: no\nnew.toml, line 2: vm.nic: no\nmac.host (default): no"
        );
    }

    /// The API transports configurations as JSON.
    #[test]
    fn a_configuration_is_the_same_after_its_way_through_json() {
        let text = "owner = \"nobody\"\n[vm]\nmemory = \"1G\"\n[[cable]]\nname = \"iksb12\"\nstate = \"down\"\ndelay = \"10ms\"\nloss = \"1% 25%\"\n[[cable]]\nends = [\"leaf1:u3\", \"leaf3:u5\"]\nrate = \"1gbit\"\n";
        let config = parse("", text, &[]).unwrap();
        let request = ApplyRequest {
            config: Config {
                origin: model::config::Origin::default(),
                ..config
            },
            said: None,
            dry_run: true,
        };
        let sent = serde_json::to_vec(&request).unwrap();
        let got: ApplyRequest = serde_json::from_slice(&sent).unwrap();
        assert_eq!(got, request);
        assert!(got.config.problems().is_empty());
    }
}
