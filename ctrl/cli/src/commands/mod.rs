//! The commands: one file for each. Most of them ask a running fabric and are clients of its API.
//!
//! A new command is a file here with its arguments and a function `run`; [`Command`] names it.

mod apply;
mod bench;
mod cable;
mod cables;
mod capture;
mod check;
mod clean;
mod config;
mod configuration;
mod console;
mod converge;
mod exec;
mod extcap;
mod image;
mod impair;
mod import;
mod ipmi;
mod patch;
mod power;
mod print;
mod probe;
mod recorder;
mod run;
mod scenario;
mod setup;
mod ssh;
mod status;
mod topology;
mod vm_args;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use api::Client;

use print::{print, print_json, print_to_reader};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
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

impl Command {
    /// Runs the command. The exit status is its own: most end with 0, `exec` with that of the
    /// command on the switch.
    ///
    /// # Errors
    /// What went wrong, for the user.
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        match self {
            Command::Run(args) => run::run(context, args).await,
            Command::Setup(args) => setup::run(args).await,
            Command::Check(args) => check::run(context, args),
            Command::Clean(args) => clean::run(context, args),
            Command::Config(args) => config::run(args),
            Command::Topology(args) => topology::run(context.json, args),
            Command::Apply(args) => apply::run(context, args).await,
            Command::Status(args) => status::run(context, args).await,
            Command::Cables(args) => cables::run(context, args).await,
            Command::Cable(args) => cable::run(context, args).await,
            Command::Capture(args) => capture::run(context, args).await,
            Command::Impair(args) => impair::run(context, args).await,
            Command::Scenario(args) => scenario::run(context, args).await,
            Command::Exec(args) => exec::run(context, args).await,
            Command::Extcap(args) => extcap::run(context, args).await,
            Command::Image(args) => image::run(context.json, args).await,
            Command::Import(args) => import::run(context.json, args),
            Command::Console(args) => console::run(context, args).await,
            Command::Ssh(args) => ssh::run(context, args).await,
            Command::Converge(args) => converge::run(context, args).await,
            Command::Recorder(args) => recorder::run(context, args).await,
            Command::Patch(args) => patch::run(context, args).await,
            Command::Bench(args) => bench::run(context, args).await,
            Command::Probe(args) => probe::run(context, args).await,
            Command::Power(args) => power::run(context, args).await,
            Command::Ipmi(args) => ipmi::run(context, args).await,
            Command::VmArgs(args) => vm_args::run(context, args).await,
        }
    }
}

/// The global options, which every command may need.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// A client of the fabric that the command is for.
    pub(crate) client: Client,
    /// Where a fabric that this user starts listens.
    pub(crate) own_socket: PathBuf,
    /// Report as JSON.
    pub(crate) json: bool,
}

/// Checks that this process is root's, for the commands that need it.
///
/// # Errors
/// When it is not; the sentence says how to run the command as root.
fn need_root(command: &str, why: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "{command} needs root, because {why}: use `sudo ikv-fabric {command}`"
    );
    Ok(())
}
