//! Which configuration a command means: `-c FILE` and `--set KEY=VALUE`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use model::config::{self, Config, ConfigError};
use model::impairment::KeyError;
use model::topology::{self, Choice, Selection, Topology, TopologyErrors};

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

/// Which switches are there.
#[derive(Debug, Clone, Args)]
pub(crate) struct SwitchArgs {
    /// Real switch VMs, or the patch panel alone with a tap at every end.
    #[arg(long, value_enum, default_value_t)]
    switches: Switches,
    /// Start only these switches, such as rack1,spine1,internet (a rack: its two leaves). All
    /// cables stay; at the other switches' ends are taps.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<String>,
}

/// Whether there are switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Switches {
    /// Real VMs.
    #[default]
    Vm,
    /// The patch panel alone: every switch's end is a tap to plug into.
    None,
}

impl SwitchArgs {
    /// How they are chosen.
    ///
    /// # Errors
    /// Names while none is to run.
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
    /// A name that is none of it, or names while none is to run.
    pub(crate) fn selection(&self, topology: &Topology) -> anyhow::Result<Selection> {
        Ok(self.choice()?.of(topology)?)
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its values do not go together.
    #[error(transparent)]
    Topology(#[from] TopologyErrors),
}

impl ConfigArgs {
    /// Whether nothing is chosen here.
    pub(crate) fn is_default(&self) -> bool {
        self.file.is_none() && self.set.is_empty()
    }

    /// The configuration that these options name.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(crate) fn config(&self) -> Result<Config, ConfigError> {
        config::load(self.file.as_deref(), &self.set)
    }

    /// The same with filters compiled and tables read, which is done here and not by the fabric.
    ///
    /// # Errors
    /// [`ConfigError`], and what is wrong with a filter or table.
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

    /// The datacenter that it describes.
    ///
    /// # Errors
    /// [`PlanError`].
    pub(crate) fn topology(&self) -> Result<Topology, PlanError> {
        Ok(topology::build(&self.config()?)?)
    }
}
