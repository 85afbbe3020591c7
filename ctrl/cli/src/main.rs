//! The command line of ikv-fabric: the global options, the runtime and how errors are printed.
//! [`commands`] has one file for each command.
//!
//! `run` brings a fabric up in this process (crate `fabric`); nearly every other command is a
//! client of the running fabric's API (crate `api`). All of that runs on one thread under tokio.
//! The dataplane's workers move the frames, and its socket threads serve the vhost-user front
//! ends; this program only sends them commands.
//!
//! No crate may depend on this one.

mod commands;
mod completion;
mod log;
#[cfg(test)]
mod reference;
mod service_manager;
mod signals;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::ffi::OsString;
use std::panic::PanicHookInfo;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::commands::{Command, Context, SOCKET_OF_SHELL};
use api::{Client, default_socket, own_socket};
use clap::{CommandFactory, FromArgMatches, Parser};
use fabric::progress::say;
use model::{printable, wording};

/// A virtual datacenter in one process: racks, leaves and spines of real switch VMs, wired
/// at layer 2 and ready for your VMs to plug in.
#[derive(Debug, Parser)]
#[command(name = "ikv-fabric", version, max_term_width = 100)]
struct Cli {
    /// Print reports as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// The control socket of the fabric [default: $IKV_FABRIC_SOCKET, which `shell` sets; otherwise
    /// /run/ikv-fabric/control.sock for root, and $XDG_RUNTIME_DIR/ikv-fabric/control.sock for others].
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    if let Some(answered) = completion::answer(Cli::command) {
        return ExitCode::from(u8::from(!answered));
    }
    dataplane::sys::heap::share_arenas();
    let cli = parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("IKV_FABRIC_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .with_writer(std::io::stderr)
        // If standard error is closed, tracing would panic when it reports that it cannot write.
        .log_internal_errors(false)
        .event_format(log::Sentences)
        .init();
    std::panic::set_hook(Box::new(log_panic));
    // Before this process moves into a namespace where it is root.
    let socket = cli.socket.or_else(socket_of_shell);
    let context = Context {
        own_socket: socket.clone().unwrap_or_else(own_socket),
        client: Client::new(socket.unwrap_or_else(default_socket)),
        json: cli.json,
    };
    let command = cli.command;
    if let Err(error) = command.prepare() {
        return fail(&error);
    }
    // The runtime uses only the process's first thread. Children are started from it, and the
    // kernel ends them together with the thread that started them (PR_SET_PDEATHSIG).
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    match runtime.block_on(command.run(&context)) {
        Ok(status) => status,
        Err(error) => fail(&error),
    }
}

/// Parses the command line. What only a field's own parser refuses is said with the usage of the
/// command that was typed, as all else; clap would show that of the program.
fn parse(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> clap::error::Result<Cli> {
    let mut command = Cli::command();
    let matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches(&matches).map_err(|error| {
        let (mut typed, mut matches) = (&mut command, &matches);
        while let Some((name, inner)) = matches.subcommand() {
            matches = inner;
            typed = typed
                .find_subcommand_mut(name)
                .expect("the command that was parsed");
        }
        error.format(typed)
    })
}

/// The fabric whose namespace `ikv-fabric shell` has entered.
fn socket_of_shell() -> Option<PathBuf> {
    let socket = std::env::var_os(SOCKET_OF_SHELL)?;
    (!socket.is_empty()).then(|| socket.into())
}

/// Logs a panic in one line, and where it came from if `RUST_BACKTRACE` asks for that. The standard
/// library would write it across the live line, and read debug information for the backtrace while
/// a worker's other cables wait.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let text = printable::head(dataplane::panic_text(panic.payload()).as_bytes(), 500);
    let place = panic.location().map(ToString::to_string);
    tracing::error!(
        "a fault of this program in thread {} at {}: {text}; please report it",
        thread.name().unwrap_or("without a name"),
        place.as_deref().unwrap_or("an unknown place"),
    );
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!("{backtrace}");
    }
}

/// Prints an error; returns exit status 1.
fn fail(error: &anyhow::Error) -> ExitCode {
    // The sentence may quote a file or a guest, whose control characters must not reach the terminal.
    let sentence = printable::tail_lines(sentence(error).as_bytes(), usize::MAX);
    say(&format!("ikv-fabric: {sentence}"));
    ExitCode::FAILURE
}

/// Writes an error and its causes in one sentence, without causes that it quotes already. For a full
/// disk, which any command can meet, it adds the way out.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.contains(&cause) {
            sentence += ": ";
            sentence += &cause;
        }
    }
    // It looks for the number in the text, because some errors keep only the text of their cause.
    if sentence.contains("(os error 28)") {
        sentence += "; make room there, or name a folder elsewhere";
    }
    wording::without_numbers(&sentence)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn no_two_options_of_a_command_have_one_name() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_mistake_is_shown_with_the_usage_of_its_command() {
        let says = |words: &[&str]| {
            let words = ["ikv-fabric"].iter().chain(words);
            parse(words).unwrap_err().to_string()
        };
        for (words, usage) in [
            (
                &["impair", "iksb12", "--seed", "x"][..],
                "Usage: ikv-fabric impair ",
            ),
            (
                &["converge"],
                "Usage: ikv-fabric converge [OPTIONS] --cut <CABLE>...",
            ),
            (
                &["converge"],
                "ikv-fabric converge [OPTIONS] --flow <A> <B>",
            ),
            (&["capture"], "ikv-fabric capture [OPTIONS] --all"),
            (&["impair"], "ikv-fabric impair [OPTIONS] --report"),
            (
                &["patch", "tap:a"],
                "Usage: ikv-fabric patch [OPTIONS] <PORT> <PORT>\n",
            ),
            (
                &["run", "--workers", "0"],
                "it is not a whole number of 1 or more",
            ),
            (
                &["status", "--wait", "x"],
                "it is not a whole number of 0 or more",
            ),
        ] {
            let said = says(words);
            assert!(said.contains(usage), "{words:?}: {said}");
        }
    }

    #[test]
    fn a_full_disk_has_a_way_out() {
        let full = std::io::Error::from(rustix::io::Errno::NOSPC);
        let outer = anyhow::Error::new(full).context("journal /run/state.json");
        assert_eq!(
            sentence(&outer),
            "journal /run/state.json: No space left on device; make room there, or name a folder \
             elsewhere"
        );
    }

    #[test]
    fn a_cause_is_not_repeated() {
        let refused = || std::io::Error::other("refused");
        let outer = anyhow::Error::new(refused()).context("cannot listen");
        assert_eq!(sentence(&outer), "cannot listen: refused");
        let quoted: Result<(), _> = Err(refused()).context("cannot listen: refused; try again");
        assert_eq!(
            sentence(&quoted.unwrap_err()),
            "cannot listen: refused; try again"
        );
    }
}
