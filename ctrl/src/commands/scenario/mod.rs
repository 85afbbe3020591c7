//! `ikv-fabric scenario`.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::Context;

/// Stub.
#[derive(Debug, Args)]
pub struct ScenarioArgs {}

/// # Errors
/// Stub.
pub async fn run(_: &Context, _: &ScenarioArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet")
}

/// # Errors
/// Stub.
pub async fn run_script(
    _: &Context,
    _: &Path,
    _: &str,
    _: Option<&str>,
) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet")
}
