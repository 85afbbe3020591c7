//! `ikv-fabric extcap`: shows the cables as interfaces in Wireshark (extcap(4)).

mod install;
mod sentences;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Context, capture, print};
use api::{CableReport, CaptureRequest};
use install::InstallArgs;

/// The name of the interface that stands for all cables.
const ALL: &str = "ikv-fabric";

/// Shows the cables in Wireshark's list of interfaces: run `extcap install` once.
///
/// Wireshark passes the other options itself.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(crate) struct ExtcapArgs {
    #[command(subcommand)]
    command: Option<ExtcapCommand>,
    #[command(flatten)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum ExtcapCommand {
    Install(InstallArgs),
}

/// The options with which Wireshark calls an extcap.
#[derive(Debug, Args)]
struct Question {
    #[arg(long, hide = true)]
    extcap_interfaces: bool,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "")]
    extcap_version: Option<String>,
    #[arg(long, hide = true, value_name = "CABLE")]
    extcap_interface: Option<String>,
    #[arg(long, hide = true)]
    extcap_dlts: bool,
    #[arg(long, hide = true)]
    extcap_config: bool,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "")]
    extcap_capture_filter: Option<String>,
    #[arg(long, hide = true)]
    capture: bool,
    #[arg(long, hide = true, value_name = "PIPE")]
    fifo: Option<PathBuf>,
    #[arg(long, hide = true)]
    wire: bool,
    #[arg(long, hide = true)]
    segment: bool,
    #[arg(long, hide = true)]
    from: Option<String>,
    /// Newer versions of Wireshark pass more options; they are ignored.
    #[arg(long, hide = true)]
    extcap_cleanup_postkill: bool,
}

/// # Errors
/// When the script cannot be installed, or a capture fails.
pub(crate) async fn run(context: &Context, args: &ExtcapArgs) -> anyhow::Result<()> {
    if let Some(ExtcapCommand::Install(args)) = &args.command {
        install::run(context, args)?;
        return Ok(());
    }
    let question = &args.question;
    let filter = question.extcap_capture_filter.clone();
    // Wireshark passes an empty filter or port where the user has given none.
    let filter = filter.filter(|filter| !filter.is_empty());
    match &question.extcap_interface {
        None => print(&sentences::interfaces(&cables(context).await))?,
        Some(_) if question.extcap_dlts => print(sentences::DLTS)?,
        Some(interface) if question.extcap_config => {
            print(&sentences::config(ends(context, interface).await.as_ref()))?;
        }
        Some(interface) if question.capture => {
            let fifo = question.fifo.as_deref();
            let fifo = fifo.ok_or_else(|| anyhow::anyhow!("--capture needs --fifo"))?;
            let request = CaptureRequest {
                cables: match interface.as_str() {
                    ALL => Vec::new(),
                    cable => vec![cable.to_owned()],
                },
                from: question.from.clone().filter(|port| !port.is_empty()),
                filter: filter.as_deref().map_or(Ok(Vec::new()), capture::compile)?,
                snap: 0,
                wire: question.wire,
            };
            capture::into_pipe(&context.client, request, filter, question.segment, fifo).await?;
        }
        // Wireshark takes an empty answer for a valid filter.
        Some(_) => {
            if let Some(Err(error)) = filter.as_deref().map(capture::compile) {
                print(&format!("{error}\n"))?;
            }
        }
    }
    Ok(())
}

/// The cables; empty if no fabric runs, so that Wireshark lists none.
async fn cables(context: &Context) -> Vec<CableReport> {
    context.client.cables(&[]).await.unwrap_or_default()
}

/// The ports of the cable with this name; `None` if the fabric has no such cable.
async fn ends(context: &Context, cable: &str) -> Option<[String; 2]> {
    let cables = cables(context).await;
    let found = cables.into_iter().find(|other| other.name == cable)?;
    Some(found.lanes.map(|lane| lane.from))
}
