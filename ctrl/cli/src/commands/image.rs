//! `ikv-fabric image`: the switch image that all switches boot from.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::configuration::ConfigArgs;
use super::{print, print_json};
use fabric::progress::say;
use host::folder::NEW;
use model::config;
use vm::image::{self, ImageError, ImagePaths, Imported, Progress, WantedImage};
use vm::states::{self, StoredState};

/// Builds the switch image, or prints where it is.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
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
    /// Writes the image to a file (a tar), for hosts that cannot build one.
    Export {
        /// The file; `-` is standard output.
        file: PathBuf,
    },
    /// Takes an image from a file that `image export` wrote, with the same version of ikv-fabric.
    Import {
        /// The file; `-` is standard input.
        file: PathBuf,
    },
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
    let wanted = WantedImage::new(config)?;
    match &args.action {
        Action::Build { force } => drop(build(config, *force).await?),
        Action::Path => {}
        Action::ForgetStates => forget_states(&wanted)?,
        Action::Export { file } => return export(&wanted, file),
        Action::Import { file } => import(&wanted, file).await?,
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
    anyhow::ensure!(files.is_some(), none_built(&folder));
    print(&format!("{}\n", folder.display()))?;
    Ok(())
}

fn none_built(folder: &Path) -> String {
    let folder = folder.display();
    format!("no image has been built in {folder}: `ikv-fabric image build` builds one")
}

/// Writes the image to a file, whole or not at all.
fn export(wanted: &WantedImage, file: &Path) -> anyhow::Result<()> {
    let built = wanted.built();
    let built = built.with_context(|| none_built(&wanted.folder()))?;
    let bar = Bar::new();
    let progress = |made: Progress| bar.show(made);
    if file == Path::new("-") {
        let out = io::stdout();
        anyhow::ensure!(
            !out.is_terminal(),
            "the image is no text for a terminal: name a file, or send the output to one"
        );
        return Ok(image::export(
            &built,
            out.lock(),
            Path::new("standard output"),
            progress,
        )?);
    }
    let mut draft = file.as_os_str().to_owned();
    draft.push(NEW);
    let draft = PathBuf::from(draft);
    let failed = || format!("cannot write {}", draft.display());
    let out = File::create(&draft).with_context(failed)?;
    let written = image::export(&built, BufWriter::new(out), &draft, progress)
        .map_err(anyhow::Error::from)
        .and_then(|()| {
            let failed = || format!("cannot rename {} to {}", draft.display(), file.display());
            std::fs::rename(&draft, file).with_context(failed)
        });
    drop(bar);
    if written.is_err() {
        _ = std::fs::remove_file(&draft);
    } else {
        say(&format!("  ✓ image of Debian {} exported", wanted.suite()));
    }
    written
}

/// Takes an image from a file. The caller prints where it is.
async fn import(wanted: &WantedImage, file: &Path) -> anyhow::Result<()> {
    let bar = Bar::new();
    let progress = |made: Progress| bar.show(made);
    let imported = if file == Path::new("-") {
        image::import(wanted, io::stdin(), Path::new("standard input"), progress).await?
    } else {
        let failed = || format!("cannot open {}", file.display());
        let from = BufReader::new(File::open(file).with_context(failed)?);
        image::import(wanted, from, file, progress).await?
    };
    drop(bar);
    let Imported { image, suite } = imported;
    say(&format!("  ✓ image of Debian {suite} imported"));
    anyhow::ensure!(
        wanted.built().is_some_and(|built| built == image),
        "the configuration asks for Debian {}; with `--set image.release={suite}` `run` uses the imported \
         image",
        wanted.suite()
    );
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
