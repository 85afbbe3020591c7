//! `ikv-fabric image`: the switch image that all switches boot from.

use std::cell::Cell;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::configuration::ConfigArgs;
use super::{print, print_json};
use fabric::progress::say;
use model::config;
use vm::image::{self, ImageError, ImagePaths, Progress, WantedImage};
use vm::states::{self, StoredState};

/// Builds the switch image, or prints where it is.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
enum Action {
    /// Builds the image, unless it exists.
    Build {
        /// Build it even if it exists: the archive may have newer packages.
        #[arg(long)]
        force: bool,
    },
    /// Prints the image's folder.
    Path,
    /// Removes the saved states of switches; the next run saves new ones.
    ForgetStates,
}

/// What `--json` prints.
#[derive(Debug, serde::Serialize)]
struct Report {
    /// Hash of the image's recipe.
    hash: String,
    path: PathBuf,
    /// Whether the image is complete.
    built: bool,
    /// The saved states that switches start from.
    states: Vec<StoredState>,
    #[serde(flatten)]
    files: Option<ImagePaths>,
}

/// # Errors
/// When the image cannot be built, or the action needs one and none is built.
pub(crate) async fn run(json: bool, args: &ImageArgs) -> anyhow::Result<()> {
    let config = &args.config.config()?.image;
    if let Action::Build { force } = args.action {
        build(config, force).await?;
    }
    let wanted = WantedImage::new(config)?;
    if args.action == Action::ForgetStates {
        forget_states(&wanted)?;
    }
    let files = wanted.built();
    let built_in = files.as_ref().and_then(|files| files.root.parent());
    let folder = built_in.map_or_else(|| wanted.folder(), Path::to_owned);
    // JSON has `built`, so a missing image is an error only for the text.
    if json {
        let report = Report {
            hash: wanted.hash(),
            built: files.is_some(),
            states: states::list(&wanted.states()),
            path: folder,
            files,
        };
        print_json(&report)?;
        return Ok(());
    }
    anyhow::ensure!(
        files.is_some(),
        "no image has been built in {}: `ikv-fabric image build` builds one",
        folder.display()
    );
    print(&format!("{}\n", folder.display()))?;
    Ok(())
}

/// Removes the saved states. A switch that is just starting from one can still read it: the file
/// stays until QEMU closes it.
fn forget_states(wanted: &WantedImage) -> anyhow::Result<()> {
    let kept = states::list(&wanted.states());
    for state in &kept {
        std::fs::remove_file(&state.path)
            .with_context(|| format!("cannot remove {}", state.path.display()))?;
    }
    let bytes: u64 = kept.iter().map(|state| state.bytes).sum();
    say(&format!(
        "{} saved states removed, {} MiB",
        kept.len(),
        bytes >> 20
    ));
    Ok(())
}

/// Builds the image, unless it exists and `force` is not set, and shows the progress.
///
/// # Errors
/// When the image cannot be built.
pub(crate) async fn build(config: &config::Image, force: bool) -> Result<ImagePaths, ImageError> {
    let bar = Bar::new();
    let progress = |made: Progress| bar.show(made);
    let image = if force {
        image::rebuild(config, progress).await?
    } else {
        image::ensure(config, progress).await?
    };
    bar.line.finish_and_clear();
    Ok(image)
}

/// Shows the progress of a build: as a bar on a terminal, otherwise as a line for each stage.
struct Bar {
    line: ProgressBar,
    terminal: bool,
    /// The last stage that was printed.
    stage: Cell<&'static str>,
}

impl Bar {
    fn new() -> Self {
        let terminal = io::stderr().is_terminal();
        let target = if terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template("  image  [{bar:30}] {percent:>3} %  {msg}");
        let bar = ProgressBar::with_draw_target(Some(1000), target)
            .with_style(style.expect("the template is valid"));
        Self {
            line: bar,
            terminal,
            stage: Cell::default(),
        }
    }

    fn show(&self, made: Progress) {
        self.line.set_position((made.fraction * 1000.0) as u64);
        self.line.set_message(made.stage);
        if self.stage.replace(made.stage) != made.stage && !self.terminal {
            say(&format!("image: {}", made.stage));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.line.finish_and_clear();
    }
}
