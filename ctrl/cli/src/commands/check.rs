//! `ikv-fabric check`: whether `run` would work here. It only reads.

use std::process::ExitCode;

use clap::Args;

use super::configuration::{ConfigArgs, SwitchArgs};
use super::{Context, exit_status};
use fabric::preflight::{self, Finding, Severity};
use host::lock::StatePaths;
use model::difference::FabricPlan;
use model::wording;

/// Reports everything that would keep `run` from working here, each with the command that mends it.
/// Changes nothing. Exit status 0 if `run` would work (with --strict: and nothing has to be warned of), otherwise 1.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    switches: SwitchArgs,
    /// Also fail when `run` would work, but not as it should: without a part of the QEMUs' jail, say.
    #[arg(long)]
    strict: bool,
}

/// # Errors
/// When the configuration is wrong.
pub(crate) fn run(context: &Context, args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.completed()?;
    let topology = model::topology::build(&config)?;
    let paths = StatePaths::beside(context.client.socket());
    let plan = FabricPlan {
        switches: args.switches.selection(&topology)?,
        topology,
        config,
    };
    let findings = preflight::check(&plan, &paths)?;
    context.report(&findings, || wording::without_numbers(&report(&findings)))?;
    let least = if args.strict {
        Severity::Warning
    } else {
        Severity::Error
    };
    Ok(exit_status(
        findings.iter().all(|found| found.severity < least),
    ))
}

fn report(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding {
        severity,
        what,
        remedy,
    } in findings
    {
        let mark = match severity {
            Severity::Error => "✗",
            Severity::Warning => "!",
            Severity::Note => "·",
        };
        text += &format!("{mark} {what}\n");
        if !remedy.is_empty() {
            text += &format!("    {remedy}\n");
        }
    }
    let prevented = findings
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .count();
    text += &match prevented {
        0 => "✓ `ikv-fabric run` will work here\n".to_owned(),
        1 => "1 thing keeps `ikv-fabric run` from working\n".to_owned(),
        several => format!("{several} things keep `ikv-fabric run` from working\n"),
    };
    text
}
