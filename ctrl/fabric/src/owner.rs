//! The owner of a fabric, who may use its socket and plug VMs in: [`Person`].

use std::io;
use std::path::PathBuf;
use std::process::Command;

use dataplane::rights::{CapabilitySet, keep};
use host::rootless;
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use model::config::{Account, Config};

/// How many names in a folder of keys are looked at.
const MOST_ENTRIES: usize = 1000;

/// A user of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// User id. It owns the sockets.
    pub uid: u32,
    /// Primary group id. It owns the sockets and may enter their folders.
    pub gid: u32,
    /// Id of the group whose members may plug VMs in, too. It then owns the sockets for VMs, and the taps in
    /// the user's place.
    pub plug_group: Option<u32>,
    /// Home folder. Its `.ssh` has the public keys of those who may log in.
    pub home: PathBuf,
}

/// The host has no user or group of the configured name.
#[derive(Debug, thiserror::Error)]
#[error("{key} = {name}: the host has no such {kind}; `getent {database}` lists those it has")]
pub struct NoSuchAccount {
    key: &'static str,
    name: String,
    kind: &'static str,
    database: &'static str,
}

impl Person {
    /// The owner of a fabric: the configured one; without one, the [caller](Self::caller). In namespaces of
    /// their own, the caller alone has a number that counts outside, so neither a configured owner nor a
    /// configured group applies.
    ///
    /// # Errors
    /// When the host has no such user or group.
    pub fn of(config: &Config) -> Result<Self, NoSuchAccount> {
        if rootless::entered().is_some() {
            return Ok(Self::caller());
        }
        let owner = match &config.owner {
            Some(owner) => user(owner).ok_or_else(|| NoSuchAccount {
                key: "owner",
                name: owner.to_string(),
                kind: "user",
                database: "passwd",
            })?,
            None => Self::caller(),
        };
        let group = config.host.plug_group.as_ref().map(|group| {
            gid(group).ok_or_else(|| NoSuchAccount {
                key: "host.plug_group",
                name: group.to_string(),
                kind: "group",
                database: "group",
            })
        });
        Ok(Person {
            plug_group: group.transpose()?,
            ..owner
        })
    }

    /// The user who called sudo; without sudo, the user who runs this process.
    pub fn caller() -> Self {
        if let Some(rootless) = rootless::entered() {
            return Person {
                uid: 0,
                gid: 0,
                plug_group: None,
                home: rootless.home().to_owned(),
            };
        }
        let own = rustix::process::geteuid();
        let sudo = std::env::var("SUDO_UID")
            .ok()
            // Only root may act for another user; any user can set the variable.
            .filter(|_| own.is_root())
            .and_then(|uid| uid.parse().ok());
        Self::with_uid(sudo.unwrap_or(own.as_raw()))
    }

    /// The user of this uid, which needs no account, as is usual in containers.
    fn with_uid(uid: u32) -> Self {
        let entry = entry("passwd", &Account::Id(uid));
        entry.as_deref().and_then(parse).unwrap_or(Person {
            uid,
            gid: uid,
            plug_group: None,
            home: "/nonexistent".into(),
        })
    }

    /// Whether the taps of a fabric open for this user: always for root, and else if they need no group, or
    /// the user is in it.
    pub(crate) fn may_open_taps(&self) -> bool {
        let Some(group) = self.plug_group else {
            return true;
        };
        let groups = || {
            let uid = self.uid.to_string();
            let output = Command::new("id").args(["-G", "--", &uid]).output().ok()?;
            let groups = String::from_utf8(output.stdout).ok()?;
            Some(
                groups
                    .split_whitespace()
                    .any(|gid| gid == group.to_string()),
            )
        };
        self.uid == 0 || self.gid == group || groups().unwrap_or(false)
    }

    /// Makes the calling thread reach files as this user does, and takes every right of root from it:
    /// what the user may not read, it cannot read either. To other users the thread stays root's, so
    /// this one can neither end nor trace it. For a thread that ends with its work.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn impersonate(&self) -> io::Result<()> {
        if rustix::process::geteuid().as_raw() != self.uid {
            set_thread_groups(&[])?;
            set_thread_res_gid(None, Gid::from_raw(self.gid), None)?;
            set_thread_res_uid(None, Uid::from_raw(self.uid), None)?;
        }
        keep(CapabilitySet::empty())
    }

    /// The files with the keys of those who may log in to the switches: the user's
    /// `authorized_keys` and public keys. Call it as the user, see [`Person::impersonate`].
    pub(crate) fn key_files(&self) -> Vec<String> {
        let folder = self.home.join(".ssh");
        let Ok(entries) = std::fs::read_dir(&folder) else {
            return Vec::new();
        };
        let mut files: Vec<_> = entries
            .take(MOST_ENTRIES)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| {
                name == "authorized_keys"
                    || (name.starts_with("id_") && name.strip_suffix(".pub").is_some())
            })
            .map(|name| folder.join(name).display().to_string())
            .collect();
        files.sort();
        files
    }
}

/// Looks a user up.
fn user(account: &Account) -> Option<Person> {
    match account {
        Account::Id(uid) => Some(Person::with_uid(*uid)),
        Account::Name(_) => parse(&entry("passwd", account)?),
    }
}

/// Looks a group up. One that is given by number needs no name.
fn gid(account: &Account) -> Option<u32> {
    match account {
        Account::Id(gid) => Some(*gid),
        Account::Name(_) => entry("group", account)?.split(':').nth(2)?.parse().ok(),
    }
}

/// The line of one of the host's databases of accounts.
fn entry(database: &str, account: &Account) -> Option<String> {
    let output = Command::new("getent")
        .args([database, "--", &account.to_string()])
        .output()
        .ok()?;
    let lines = String::from_utf8(output.stdout).ok()?;
    lines.lines().next().map(str::to_owned)
}

fn parse(passwd: &str) -> Option<Person> {
    let fields: Vec<_> = passwd.split(':').collect();
    let [_, _, uid, gid, _, home, ..] = fields[..] else {
        return None;
    };
    Some(Person {
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        plug_group: None,
        home: home.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned_by(owner: Account) -> Config {
        Config {
            owner: Some(owner),
            ..Config::default()
        }
    }

    fn with_group(group: Account) -> Config {
        let mut config = owned_by(Account::Id(54_321));
        config.host.plug_group = Some(group);
        config
    }

    #[test]
    fn root_is_known_by_name_and_by_number() {
        let root = Person::of(&owned_by(Account::Name("root".into()))).unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(Person::of(&owned_by(Account::Id(0))).unwrap(), root);
    }

    #[test]
    fn a_name_that_nobody_has_is_an_error_and_a_number_is_not() {
        let error = Person::of(&owned_by(Account::Name("no-such-user".into()))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "owner = no-such-user: the host has no such user; `getent passwd` lists those it has"
        );
        let person = Person::of(&owned_by(Account::Id(54_321))).unwrap();
        assert_eq!((person.uid, person.plug_group), (54_321, None));
    }

    #[test]
    fn the_group_of_those_who_plug_in_is_known_by_name_and_by_number() {
        let tty = Person::of(&with_group(Account::Name("tty".into()))).unwrap();
        assert_eq!(tty.plug_group, Some(5));
        assert_eq!(Person::of(&with_group(Account::Id(5))).unwrap(), tty);
        let error = Person::of(&with_group(Account::Name("no-such-group".into()))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "host.plug_group = no-such-group: the host has no such group; `getent group` lists those it has"
        );
    }

    #[test]
    fn taps_of_a_group_open_for_its_members_and_root() {
        let opens = |uid, gid, plug_group| {
            let person = Person {
                uid,
                gid,
                plug_group,
                home: "/nonexistent".into(),
            };
            person.may_open_taps()
        };
        assert!(opens(54_321, 54_321, None));
        assert!(opens(54_321, 5, Some(5)));
        assert!(opens(0, 0, Some(5)));
        assert!(!opens(54_321, 54_321, Some(5)));
    }
}
