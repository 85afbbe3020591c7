//! The command line of ikv-fabric: [`commands`] has one file a command.
//!
//! `run` brings a fabric up in this process (`fabric`); nearly every other command is a client of
//! the running fabric's API (`api`). All of it runs on one thread under tokio. The dataplane's
//! workers move the frames, and its socket threads serve the vhost-user front ends; this program
//! only sends them commands.
//!
//! No crate may depend on this one.

mod commands;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::commands::{
    Context, apply, bench, cable, cables, capture, check, clean, config, console, converge, exec,
    extcap, image, impair, import, ipmi, patch, power, probe, recorder, run, scenario, setup, ssh,
    status, topology, vm_args,
};
use api::{Client, default_socket, own_socket};
use clap::{Parser, Subcommand};
use fabric::progress::say;
use model::printable;

/// A virtual datacenter in one process: racks, leaves and spines of real switch VMs, wired
/// at layer 2 and ready for your VMs to plug in.
#[derive(Debug, Parser)]
#[command(name = "ikv-fabric", version, max_term_width = 100)]
struct Cli {
    /// Report as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Which fabric [default: /run/ikv-fabric/control.sock for root, else
    /// $XDG_RUNTIME_DIR/ikv-fabric/control.sock].
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Setup(setup::SetupArgs),
    Check(check::CheckArgs),
    Clean(clean::CleanArgs),
    Config(config::ConfigArgs),
    Topology(topology::TopologyArgs),
    Apply(apply::ApplyArgs),
    Status(status::StatusArgs),
    Cables(cables::CablesArgs),
    Cable(cable::CableArgs),
    Capture(capture::CaptureArgs),
    Impair(Box<impair::ImpairArgs>),
    Scenario(scenario::ScenarioArgs),
    Exec(exec::ExecArgs),
    Extcap(extcap::ExtcapArgs),
    Image(image::ImageArgs),
    Import(import::ImportArgs),
    Console(console::ConsoleArgs),
    Ssh(ssh::SshArgs),
    Power(power::PowerArgs),
    Ipmi(ipmi::IpmiArgs),
    Probe(probe::ProbeArgs),
    Converge(converge::ConvergeArgs),
    Recorder(recorder::RecorderArgs),
    Patch(patch::PatchArgs),
    Bench(bench::BenchArgs),
    VmArgs(vm_args::VmArgsArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("IKV_FABRIC_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .with_writer(std::io::stderr)
        // Where standard error is gone, telling so would panic.
        .log_internal_errors(false)
        .without_time()
        .with_target(false)
        .init();
    // On one thread, the process's first: children are started from it, and they end when the
    // thread that started them does.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    match runtime.block_on(dispatch(cli)) {
        Ok(status) => status,
        Err(error) => fail(&error),
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let own_socket = cli.socket.clone().unwrap_or_else(own_socket);
    let context = Context {
        client: Client::new(cli.socket.unwrap_or_else(default_socket)),
        own_socket,
        json: cli.json,
    };
    match &cli.command {
        Command::Run(args) => run::run(&context, args).await,
        Command::Setup(args) => setup::run(args).await,
        Command::Check(args) => check::run(&context, args),
        Command::Clean(args) => clean::run(&context, args),
        Command::Config(args) => config::run(args),
        Command::Topology(args) => topology::run(context.json, args),
        Command::Apply(args) => apply::run(&context, args).await,
        Command::Status(args) => status::run(&context, args).await,
        Command::Cables(args) => cables::run(&context, args).await,
        Command::Cable(args) => cable::run(&context, args).await,
        Command::Capture(args) => capture::run(&context, args).await,
        Command::Impair(args) => impair::run(&context, args).await,
        Command::Scenario(args) => scenario::run(&context, args).await,
        Command::Exec(args) => exec::run(&context, args).await,
        Command::Extcap(args) => extcap::run(&context, args).await,
        Command::Image(args) => image::run(context.json, args).await,
        Command::Import(args) => import::run(context.json, args),
        Command::Console(args) => console::run(&context, args).await,
        Command::Ssh(args) => ssh::run(&context, args).await,
        Command::Converge(args) => converge::run(&context, args).await,
        Command::Recorder(args) => recorder::run(&context, args).await,
        Command::Patch(args) => patch::run(&context, args).await,
        Command::Bench(args) => bench::run(&context, args).await,
        Command::Probe(args) => probe::run(&context, args).await,
        Command::Power(args) => power::run(&context, args).await,
        Command::Ipmi(args) => ipmi::run(&context, args).await,
        Command::VmArgs(args) => vm_args::run(&context, args).await,
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // It may quote what was typed, or what a file or a guest says.
    let sentence = printable::tail_lines(sentence(error).as_bytes(), usize::MAX);
    say(&format!("ikv-fabric: {sentence}"));
    ExitCode::FAILURE
}

/// An error and its causes, but for those whose words it has already. What helps against a full
/// disk is the same everywhere.
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
    // By its number: not every cause is handed on as what it was.
    if sentence.contains("(os error 28)") {
        sentence += "; make room there, or name a folder elsewhere";
    }
    sentence
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_two_options_of_a_command_have_one_name() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_full_disk_has_a_way_out() {
        let full = std::io::Error::from(rustix::io::Errno::NOSPC);
        let outer = anyhow::Error::new(full).context("journal /run/state.json");
        assert_eq!(
            sentence(&outer),
            "journal /run/state.json: No space left on device (os error 28); make room there, or \
             name a folder elsewhere"
        );
    }

    #[test]
    fn causes_are_told_once() {
        let refused = || std::io::Error::other("refused");
        let outer = anyhow::Error::new(refused()).context("cannot listen");
        assert_eq!(sentence(&outer), "cannot listen: refused");
        let told: Result<(), _> = Err(refused()).context("cannot listen: refused; try again");
        assert_eq!(
            sentence(&told.unwrap_err()),
            "cannot listen: refused; try again"
        );
    }
}
