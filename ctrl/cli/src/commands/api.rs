//! `ikv-fabric api`: the API described for programs.

use clap::Args;

use super::print;

/// Prints the description of the API that commands and scripts use, as OpenAPI 3.1 in JSON. A running
/// fabric answers `GET /v1/openapi.json` with the same.
#[derive(Debug, Args)]
pub(crate) struct ApiArgs {}

/// # Errors
/// When standard output cannot be written to.
pub(crate) fn run(_: &ApiArgs) -> anyhow::Result<()> {
    Ok(print(::api::openapi())?)
}
