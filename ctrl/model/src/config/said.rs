//! What a person said of a configuration, and how it goes together with the one that runs:
//! [`Said`], [`Config::over`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{Config, Location, Origin, schema};

/// The keys that a person gave, dotted, as `topology.racks`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// Those in the file. `None` if no file was named: then everything else stays as it is.
    pub file: Option<Vec<String>>,
    /// Those by `--set`.
    pub set: Vec<String>,
}

impl Config {
    /// What was said of it; `file` tells whether a file was named.
    pub fn said(&self, file: bool) -> Said {
        let keys = |is_meant: fn(&Location) -> bool| {
            let written = self.origin.locations();
            let keys = written.filter(|(key, at)| is_meant(at) && schema::of(key).is_some());
            keys.map(|(key, _)| key.to_owned()).collect()
        };
        Said {
            file: file.then(|| keys(|at| matches!(at, Location::File { .. }))),
            set: keys(|at| *at == Location::Set),
        }
    }

    /// The configuration that a running fabric gets when `self` is asked of it: without a file the
    /// running one with the keys that `--set` names; with a file that file, and the keys that `--set`
    /// gave the running one and that neither file nor `--set` names now.
    ///
    /// # Errors
    /// When the result is none, in the words of the TOML parser.
    pub fn over(self, running: &Config, said: &Said) -> Result<Config, String> {
        let set = || said.set.iter().cloned();
        let Some(named) = &said.file else {
            let mut changed = take(&said.set, &self, running.clone())?;
            changed.origin.clone_from(&running.origin);
            return Ok(changed.marked(set()));
        };
        let mut kept = running.said(false).set;
        kept.retain(|key| !named.contains(key) && !said.set.contains(key));
        let changed = take(&kept, running, self)?;
        Ok(changed.marked(kept.into_iter().chain(set())))
    }

    /// The same, where these keys are known to be given by `--set`.
    #[must_use]
    pub fn marked(mut self, keys: impl IntoIterator<Item = String>) -> Self {
        for key in keys {
            self.origin.remove(&key);
            self.origin.insert(key, Location::Set);
        }
        self
    }
}

/// Puts the values of some keys from one configuration into another.
fn take(keys: &[String], from: &Config, into: Config) -> Result<Config, String> {
    let table = |config: &Config| Table::try_from(config).map_err(|error| error.to_string());
    let (from, mut changed) = (table(from)?, table(&into)?);
    // No option gives these, and a filter that is compiled must not pass through a text.
    changed.remove("cable");
    // A request may name anything.
    for key in keys.iter().filter(|key| schema::of(key).is_some()) {
        let (head, name) = key.split_once('.').unwrap_or(("", key));
        let find = |table: &Table| match head {
            "" => table.get(name).cloned(),
            head => table.get(head)?.get(name).cloned(),
        };
        let value = find(&from);
        let inner = match head {
            "" => &mut changed,
            head => {
                let empty = || Value::Table(Table::new());
                let entry = changed.entry(head).or_insert_with(empty);
                entry.as_table_mut().expect("a table of the schema")
            }
        };
        match value {
            Some(value) => inner.insert(name.to_owned(), value),
            // A key without a default that was left out.
            None => inner.remove(name),
        };
    }
    let mut changed: Config = changed.try_into().map_err(|error| format!("{error}"))?;
    changed.cable = into.cable;
    changed.origin = Origin::default();
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    /// What becomes of a running configuration if another is asked of it.
    fn applied(running: &Config, file: Option<&str>, sets: &[&str]) -> Config {
        let sets: Vec<_> = sets.iter().map(|set| (*set).to_owned()).collect();
        let asked = parse("new.toml", file.unwrap_or_default(), &sets).unwrap();
        let said = asked.said(file.is_some());
        // As it comes by the API.
        let asked = Config {
            origin: Origin::default(),
            ..asked
        };
        asked.over(running, &said).unwrap()
    }

    fn running() -> Config {
        let file = "[topology]\nracks = 2\n[[cable]]\nname = \"iksb12\"\ndelay = \"1ms\"\n";
        let sets = ["owner=7".to_owned(), "topology.num_u=4".to_owned()];
        parse("old.toml", file, &sets).unwrap()
    }

    #[test]
    fn without_a_file_only_what_is_set_changes() {
        let running = running();
        let now = applied(&running, None, &["topology.racks=1", "dhcp.lease=300"]);
        assert_eq!((now.topology.racks, now.topology.num_u), (1, 4));
        assert_eq!((&now.owner, &now.cable), (&running.owner, &running.cable));
        let again = applied(&now, None, &["topology.racks=3"]);
        assert_eq!(
            (again.topology.racks, again.dhcp.lease),
            (3, now.dhcp.lease)
        );
    }

    #[test]
    fn a_file_says_everything_but_what_was_set() {
        let running = running();
        let now = applied(&running, Some("[topology]\nspines = 2\n"), &[]);
        assert_eq!(now.topology.racks, Config::default().topology.racks);
        assert_eq!((now.topology.num_u, &now.owner), (4, &running.owner));
        assert!(now.cable.is_empty(), "the file has none");
        // It stays set, also over the next file, until a file or an option names it.
        let now = applied(&now, Some(""), &[]);
        assert_eq!(now.topology.num_u, 4);
        let named = applied(&now, Some("[topology]\nnum_u = 9\n"), &[]);
        assert_eq!(named.topology.num_u, 9);
        let back = applied(&named, Some(""), &[]);
        assert_eq!(back.topology.num_u, Config::default().topology.num_u);
        let set = applied(&now, Some(""), &["topology.num_u=5"]);
        assert_eq!(set.topology.num_u, 5);
    }

    #[test]
    fn lists_and_keys_without_a_default_are_taken_whole() {
        let now = applied(&running(), None, &["host.allow=[\"tcp/22\"]"]);
        assert_eq!(now.host.allow.len(), 1);
        let now = applied(&now, Some(""), &[]);
        assert_eq!(now.host.allow.len(), 1);
        let now = applied(&now, None, &["host.allow=[]"]);
        assert!(now.host.allow.is_empty());
    }
}
