//! The commands: one file for each. Most of them are clients of a running fabric's API.
//!
//! A new command is a file here with its arguments and a function `run`; [`Command`] names it.
//! [`Context::report`] prints what a command reports, as text or as JSON.

mod api;
mod apply;
mod bench;
mod cable;
mod cables;
mod capture;
mod check;
mod clean;
mod completions;
mod config;
mod configuration;
mod console;
mod converge;
mod events;
mod exec;
mod extcap;
mod image;
mod impair;
mod import;
mod ipmi;
mod man_page;
mod metrics;
mod number;
mod panel;
mod patch;
mod places;
mod power;
mod print;
mod probe;
mod recorder;
mod run;
mod scenario;
mod screen;
mod setup;
mod shell;
mod ssh;
mod status;
mod stop;
mod top;
mod topology;
mod traffic;
mod vm_args;
mod web;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use ::api::Client;

pub(crate) use shell::SOCKET_OF_SHELL;

use print::{print, print_json, print_to_reader};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(run::RunArgs),
    Stop(stop::StopArgs),
    Setup(setup::SetupArgs),
    Check(check::CheckArgs),
    Clean(clean::CleanArgs),
    Config(config::ConfigArgs),
    Topology(topology::TopologyArgs),
    Apply(apply::ApplyArgs),
    Status(status::StatusArgs),
    Top(top::TopArgs),
    Cables(cables::CablesArgs),
    Cable(cable::CableArgs),
    Capture(capture::CaptureArgs),
    Impair(Box<impair::ImpairArgs>),
    Places(places::PlacesArgs),
    Scenario(scenario::ScenarioArgs),
    Events(events::EventsArgs),
    Exec(exec::ExecArgs),
    Extcap(extcap::ExtcapArgs),
    Image(image::ImageArgs),
    Import(import::ImportArgs),
    Console(console::ConsoleArgs),
    Ssh(ssh::SshArgs),
    Shell(shell::ShellArgs),
    Power(power::PowerArgs),
    Ipmi(ipmi::IpmiArgs),
    Probe(probe::ProbeArgs),
    Converge(converge::ConvergeArgs),
    Recorder(recorder::RecorderArgs),
    Patch(patch::PatchArgs),
    Bench(bench::BenchArgs),
    VmArgs(vm_args::VmArgsArgs),
    Api(api::ApiArgs),
    Web(web::WebArgs),
    Completions(completions::CompletionsArgs),
    #[command(hide = true)]
    ManPage(man_page::ManPageArgs),
}

impl Command {
    /// What must be done while this process has one thread only.
    ///
    /// # Errors
    /// When `run` cannot do without root here.
    pub(crate) fn prepare(&self) -> anyhow::Result<()> {
        match self {
            Command::Run(args) => {
                // Before `run` moves to where nobody could reach the port.
                args.metrics.listen()?;
                // Before `run` moves to where no browser could reach the page.
                args.page.listen()?;
                run::leave_without_root(args)
            }
            _ => Ok(()),
        }
    }

    /// Runs the command. Most end with exit status 0 unless they fail; the others return their own,
    /// `exec` that of the command on the switch.
    ///
    /// # Errors
    /// What went wrong and the way out, as a sentence for the user.
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        match self {
            Command::Run(args) => run::run(context, args).await?,
            Command::Stop(args) => stop::run(context, args).await?,
            Command::Setup(args) => setup::run(args).await?,
            Command::Check(args) => return check::run(context, args),
            Command::Clean(args) => clean::run(context, args)?,
            Command::Config(args) => config::run(args)?,
            Command::Topology(args) => topology::run(context.json, args)?,
            Command::Apply(args) => apply::run(context, args).await?,
            Command::Status(args) => return status::run(context, args).await,
            Command::Top(args) => top::run(context, args).await?,
            Command::Cables(args) => cables::run(context, args).await?,
            Command::Cable(args) => cable::run(context, args).await?,
            Command::Capture(args) => capture::run(context, args).await?,
            Command::Impair(args) => impair::run(context, args).await?,
            Command::Places(args) => places::run(context, args).await?,
            Command::Scenario(args) => scenario::run(context, args).await?,
            Command::Events(args) => events::run(context, args).await?,
            Command::Exec(args) => return exec::run(context, args).await,
            Command::Extcap(args) => extcap::run(context, args).await?,
            Command::Image(args) => image::run(context.json, args).await?,
            Command::Import(args) => return import::run(context.json, args),
            Command::Console(args) => return console::run(context, args).await,
            Command::Ssh(args) => ssh::run(context, args).await?,
            Command::Shell(args) => shell::run(context, args)?,
            Command::Converge(args) => converge::run(context, args).await?,
            Command::Recorder(args) => recorder::run(context, args).await?,
            Command::Patch(args) => patch::run(context, args).await?,
            Command::Bench(args) => bench::run(context, args).await?,
            Command::Probe(args) => return probe::run(context, args).await,
            Command::Power(args) => power::run(context, args).await?,
            Command::Ipmi(args) => ipmi::run(context, args).await?,
            Command::VmArgs(args) => vm_args::run(context, args).await?,
            Command::Api(args) => api::run(args)?,
            Command::Web(args) => web::run(context, args).await?,
            Command::Completions(args) => completions::run(args)?,
            Command::ManPage(args) => man_page::run(args)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The global options, which every command may need.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// A client of the fabric that `--socket` names.
    pub(crate) client: Client,
    /// The control socket of a fabric that this user starts.
    pub(crate) own_socket: PathBuf,
    /// Report as JSON.
    pub(crate) json: bool,
}

impl Context {
    /// Prints a report: as JSON with `--json`, otherwise as `text`.
    fn report(&self, report: &impl Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
        if self.json {
            print_json(report)
        } else {
            print(&text())
        }
    }
}

/// Exit status 0 if what the command checks is as it should be, otherwise 1.
fn exit_status(good: bool) -> ExitCode {
    ExitCode::from(u8::from(!good))
}

/// Checks that this process runs as root, for the commands that need it.
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
