//! `ikv-fabric image build|path`: the switch image that all switches boot from.

use std::cell::Cell;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::configuration::ConfigArgs;
use super::{print, print_json};
use fabric::progress::say;
use model::config;
use vm::image::{self, ImageError, ImagePaths, Progress, WantedImage};
use vm::states::{self, StoredState};

/// Build the switch image, or say where it is
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// Where `[image]` is.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: Action,
}

/// What can be done with the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum Action {
    /// Build the image, unless it is there
    Build {
        /// Build it anew: the archive may have newer packages
        #[arg(long)]
        force: bool,
    },
    /// Print the image's folder
    Path,
    /// Remove the states that switches were saved in: the next run makes them anew
    ForgetStates,
}

/// What `image` reports with `--json`.
#[derive(Debug, serde::Serialize)]
struct Report {
    /// Hash of the recipe.
    hash: String,
    path: PathBuf,
    /// Whether the files are there.
    built: bool,
    /// The saved states that switches start from.
    states: Vec<StoredState>,
    #[serde(flatten)]
    files: Option<ImagePaths>,
}

/// Runs it.
///
/// # Errors
/// When the image cannot be built, or `path` is asked for and there is none.
pub(crate) async fn run(json: bool, args: &ImageArgs) -> anyhow::Result<ExitCode> {
    let config = &args.config.config()?.image;
    if let Action::Build { force } = args.action {
        build(config, force).await?;
    }
    let wanted = WantedImage::new(config)?;
    if args.action == Action::ForgetStates {
        forget_states(&wanted)?;
    }
    let (folder, files) = (wanted.folder(), wanted.built());
    if json {
        let report = Report {
            hash: wanted.hash(),
            built: files.is_some(),
            states: states::list(&folder.join(states::FOLDER)),
            path: folder,
            files,
        };
        print_json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::ensure!(
        files.is_some(),
        "there is no image in {}: `ikv-fabric image build` builds it",
        folder.display()
    );
    print(&format!("{}\n", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Removes the saved states. A switch that is just starting from one goes on reading it.
fn forget_states(wanted: &WantedImage) -> anyhow::Result<()> {
    let kept = states::list(&wanted.folder().join(states::FOLDER));
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

/// Builds the image and shows how far it is. One that is there is kept unless `force` is set.
///
/// # Errors
/// When it cannot be built.
pub(crate) async fn build(config: &config::Image, force: bool) -> Result<ImagePaths, ImageError> {
    let bar = Bar::new();
    let progress = |news: Progress| bar.show(news);
    let image = if force {
        image::rebuild(config, progress).await?
    } else {
        image::ensure(config, progress).await?
    };
    bar.line.finish_and_clear();
    Ok(image)
}

/// On a terminal a bar; elsewhere a line for each stage.
struct Bar {
    line: ProgressBar,
    terminal: bool,
    said: Cell<&'static str>,
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
            said: Cell::default(),
        }
    }

    fn show(&self, news: Progress) {
        self.line.set_position((news.fraction * 1000.0) as u64);
        self.line.set_message(news.stage);
        if self.said.replace(news.stage) != news.stage && !self.terminal {
            say(&format!("image: {}", news.stage));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.line.finish_and_clear();
    }
}
