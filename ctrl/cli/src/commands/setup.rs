//! `ikv-fabric setup`: does everything that needs the Internet, so that `run` does not need it.

use std::collections::BTreeSet;
use std::process::Stdio;

use anyhow::Context as _;
use clap::Args;
use tokio::process::Command;

use super::configuration::ConfigArgs;
use super::{image, need_root, print};
use fabric::preflight::{FOR_IMAGE, FOR_IPMI, FOR_PANEL, FOR_ROOTLESS, FOR_SWITCHES};
use fabric::progress::say;
use host::packages::Distribution;
use host::program;
use host::program::Program;

/// Installs the packages that are missing and builds the switch image: everything that needs the
/// Internet. It leaves alone what is there already.
#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print the packages that it would install on a machine that has none of them, by Debian's names, one
    /// a line; change nothing.
    #[arg(long)]
    list: bool,
}

/// # Errors
/// When apt or the build of the image fails.
pub(crate) async fn run(args: &SetupArgs) -> anyhow::Result<()> {
    let config = args.config.config()?;
    let ipmi = if config.ipmi.enabled { FOR_IPMI } else { &[] };
    let wanted = [FOR_PANEL, FOR_SWITCHES, FOR_IMAGE, FOR_ROOTLESS, ipmi].concat();
    if args.list {
        let lines: Vec<_> = packages(wanted.iter())
            .iter()
            .map(|it| format!("{it}\n"))
            .collect();
        print(&lines.concat())?;
        return Ok(());
    }
    let missing = missing_packages(&wanted);
    if missing.is_empty() {
        say("  ✓ packages  all installed");
    } else {
        install(&missing).await?;
    }
    let image = image::build(&config.image, false).await?;
    let folder = image.root.parent().unwrap_or(&image.root);
    say(&format!("  ✓ image  {}", folder.display()));
    Ok(())
}

fn missing_packages(wanted: &[Program]) -> Vec<&'static str> {
    let missing = wanted
        .iter()
        .filter(|wanted| program::find(wanted.name).is_none());
    packages(missing)
}

/// The packages of these programs, each once, although it may have several of them.
fn packages<'p>(programs: impl Iterator<Item = &'p Program>) -> Vec<&'static str> {
    let packages: BTreeSet<_> = programs.map(|program| program.package).collect();
    packages.into_iter().collect()
}

async fn install(packages: &[&str]) -> anyhow::Result<()> {
    let line = host::packages::install(packages);
    anyhow::ensure!(
        Distribution::of_host() == Distribution::Debian,
        "setup installs packages only on Debian and its derivatives; `{line}`, then run `ikv-fabric setup` \
         again"
    );
    need_root("setup", &format!("it installs packages ({line})"))?;
    say(&format!("  · installing: {}", packages.join(" ")));
    apt(&["update"]).await?;
    apt(&[&["install", "-y", "--no-install-recommends"], packages].concat()).await
}

/// Runs apt-get, which prints its own progress.
async fn apt(arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .await
        .context("cannot start apt-get")?;
    anyhow::ensure!(
        status.success(),
        "`apt-get {}` failed ({status}): see its messages above; then run `ikv-fabric setup` again",
        arguments.join(" ")
    );
    Ok(())
}
