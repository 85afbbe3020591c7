//! The keys as options of the command line, one for each entry of [`KEYS`].

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};

use super::{ImpairKeys, KEYS, Key};

/// One option for each key.
impl Args for ImpairKeys {
    fn augment_args(command: Command) -> Command {
        KEYS.iter()
            .fold(command, |command, key| command.arg(option(key)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn option(key: &Key) -> Arg {
    let arg = Arg::new(key.name)
        .long(key.option())
        .value_name(key.takes)
        .help(key.help)
        .allow_negative_numbers(true)
        .num_args(1..=key.words)
        .help_heading("What to do to the frames");
    if key.name == "ecn" {
        arg.num_args(0..=1).default_missing_value("true")
    } else {
        arg
    }
}

impl FromArgMatches for ImpairKeys {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut keys = ImpairKeys::default();
        keys.update_from_arg_matches(matches)?;
        Ok(keys)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for key in KEYS {
            let Some(words) = matches.get_many::<String>(key.name) else {
                continue;
            };
            let words: Vec<_> = words.map(String::as_str).collect();
            self.set(key.name, &words.join(" ")).map_err(|error| {
                let what = format!("--{}: {}\n", key.option(), error.what);
                Error::raw(ErrorKind::ValueValidation, what)
            })?;
        }
        Ok(())
    }
}
