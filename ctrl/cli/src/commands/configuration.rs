//! The options that choose a configuration, `-c FILE` and `--set KEY=VALUE`, and those that choose
//! its switches.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::{Args, ValueEnum};

use model::config::{self, Config, ConfigError};
use model::impairment::KeyError;
use model::topology::{self, Choice, Selection, Topology};

/// Options of every command that reads the configuration.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file (TOML); every key has a default.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Set a dotted key of the file, such as topology.racks=5. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Which switches run as VMs.
#[derive(Debug, Clone, Args)]
pub(crate) struct SwitchArgs {
    /// Start real switch VMs, or only the patch panel with a tap at every end.
    #[arg(long, value_enum, default_value_t)]
    switches: Switches,
    /// Start only these switches, such as rack1,spine1,internet; a rack stands for its two leaves.
    /// All cables exist; the ends at the other switches are taps.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Switches {
    /// Start the switches as VMs.
    #[default]
    Vm,
    /// Start only the patch panel: every switch's end is a tap to plug into.
    None,
}

impl SwitchArgs {
    /// The choice, before the topology is known.
    ///
    /// # Errors
    /// When `--only` names switches although `--switches none` starts none.
    pub(crate) fn choice(&self) -> anyhow::Result<Choice> {
        match (self.switches, &*self.only) {
            (Switches::Vm, []) => Ok(Choice::All),
            (Switches::Vm, names) => Ok(Choice::Only(names.into())),
            (Switches::None, []) => Ok(Choice::None),
            (Switches::None, _) => anyhow::bail!(
                "--only starts switches and --switches none starts none: leave one of them out"
            ),
        }
    }

    /// Which of the topology's switches run.
    ///
    /// # Errors
    /// As [`SwitchArgs::choice`], and when the topology has no switch of a name.
    pub(crate) fn selection(&self, topology: &Topology) -> anyhow::Result<Selection> {
        Ok(self.choice()?.of(topology)?)
    }
}

impl ConfigArgs {
    /// Whether neither option is given.
    pub(crate) fn is_default(&self) -> bool {
        self.file.is_none() && self.set.is_empty()
    }

    /// The configuration that these options name.
    ///
    /// # Errors
    /// When the file cannot be read or a value is wrong.
    pub(crate) fn config(&self) -> Result<Config, ConfigError> {
        config::load(self.file.as_deref(), &self.set)
    }

    /// Builds the image of this configuration, as `ikv-fabric image build` does.
    ///
    /// # Errors
    /// When that fails; it has said why.
    pub(crate) fn build_image(&self) -> anyhow::Result<()> {
        let mut build = Command::new(std::env::current_exe()?);
        build.args(["image", "build"]);
        build.args(
            self.file
                .iter()
                .flat_map(|file| ["-c".as_ref(), file.as_os_str()]),
        );
        build.args(self.set.iter().map(|set| format!("--set={set}")));
        // Its result is its standard output, which is not that of `run`.
        let status = build.stdout(Stdio::null()).status()?;
        anyhow::ensure!(status.success(), "there is no switch image (see above)");
        Ok(())
    }

    /// The same with filters compiled and distribution tables read, because the fabric does neither.
    ///
    /// # Errors
    /// As [`ConfigArgs::config`], and when a filter or table is wrong.
    pub(crate) fn completed(&self) -> anyhow::Result<Config> {
        let mut config = self.config()?;
        for index in 0..config.cable.len() {
            let keys = std::mem::take(&mut config.cable[index].impair);
            match super::impair::complete(keys) {
                Ok(keys) => config.cable[index].impair = keys,
                Err(KeyError { key, what }) => {
                    let key = format!("cable[{index}].{key}");
                    anyhow::bail!("{}: {what}", config.location(&key).with_key(&key));
                }
            }
        }
        Ok(config)
    }

    /// The datacenter that the configuration describes.
    ///
    /// # Errors
    /// As [`ConfigArgs::config`], and when values do not go together.
    pub(crate) fn topology(&self) -> anyhow::Result<Topology> {
        Ok(topology::build(&self.config()?)?)
    }
}
