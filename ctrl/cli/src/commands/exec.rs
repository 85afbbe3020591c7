//! `ikv-fabric exec`: runs a command on a switch through its guest agent, which needs no network.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;

use super::Context;
use super::print::write_to_reader;
use crate::completion::switch_names;
use api::ExecRequest;
use fabric::progress::say;
use model::printable;

/// The most bytes of standard input that are passed on.
const LONGEST_INPUT: u64 = 1 << 20;

/// Runs a command on a switch through its guest agent, which needs no network. Passes arguments,
/// input and output through and ends with the command's exit status. On a terminal, control
/// characters in the output are shown and not sent.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// A switch, such as leaf1.
    #[arg(add = switch_names())]
    node: String,
    /// Program and arguments; no shell interprets them.
    #[arg(required = true, last = true, value_name = "CMD")]
    argv: Vec<String>,
}

/// # Errors
/// When no fabric answers, the name is unknown, or the switch's agent does not answer.
pub(crate) async fn run(context: &Context, args: &ExecArgs) -> anyhow::Result<ExitCode> {
    let request = ExecRequest {
        argv: args.argv.clone(),
        stdin: BASE64.encode(input()?),
    };
    let answer = context.client.exec(&args.node, &request).await?;
    if context.json {
        super::print_json(&answer)?;
    } else {
        pass_on(&mut std::io::stdout(), &answer.stdout)?;
        pass_on(&mut std::io::stderr(), &answer.stderr)?;
        if answer.truncated {
            say("ikv-fabric: the output was too long and is cut off here: use `ikv-fabric ssh`");
        }
    }
    Ok(ExitCode::from(
        u8::try_from(answer.status).unwrap_or(u8::MAX),
    ))
}

/// Reads standard input if it is a file or a pipe with something in it; does not read a terminal.
fn input() -> anyhow::Result<Vec<u8>> {
    let stdin = std::io::stdin();
    let mut input = Vec::new();
    if !stdin.is_terminal() && has_data(&stdin) {
        stdin
            .lock()
            .take(LONGEST_INPUT + 1)
            .read_to_end(&mut input)
            .context("standard input")?;
        anyhow::ensure!(
            input.len() as u64 <= LONGEST_INPUT,
            "more than {LONGEST_INPUT} bytes on standard input: copy the file with scp instead"
        );
    }
    Ok(input)
}

/// Whether standard input has something to read within 50 ms. A script often inherits a pipe into
/// which no process writes; reading that would block the command.
fn has_data(stdin: &std::io::Stdin) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut ask = [PollFd::new(stdin, PollFlags::IN)];
    poll(
        &mut ask,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 50_000_000,
        }),
    )
    .is_ok_and(|ready| ready > 0)
}

/// Writes a part of the command's output, which the API transports as base64.
fn pass_on(to: &mut (impl Write + IsTerminal), encoded: &str) -> anyhow::Result<()> {
    let bytes = BASE64
        .decode(encoded)
        .context("the fabric's answer is not base64")?;
    let bytes = if to.is_terminal() {
        printable::output(&bytes).into_bytes()
    } else {
        bytes
    };
    write_to_reader(to, &bytes)?;
    Ok(())
}
