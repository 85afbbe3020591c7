//! The owner of a fabric, who may use its socket and plug VMs in: [`Person`].

use std::io;
use std::path::PathBuf;
use std::process::Command;

use dataplane::rights::{CapabilitySet, keep};
use host::rootless;
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use model::config::Owner;

/// How many names in a folder of keys are looked at.
const MOST_ENTRIES: usize = 1000;

/// A user of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// User id. It owns the sockets.
    pub uid: u32,
    /// Primary group id. It owns the sockets and may enter their folders.
    pub gid: u32,
    /// Home folder. Its `.ssh` has the public keys of those who may log in.
    pub home: PathBuf,
}

/// The host has no user of the configured name or uid.
#[derive(Debug, thiserror::Error)]
#[error("owner = {0}: the host has no such user; `getent passwd` lists those it has")]
pub struct NoSuchUser(String);

impl Person {
    /// Looks up the owner: the configured one; without one, the user who called sudo; without sudo,
    /// the user who runs this process. In namespaces of their own, this user alone has a number that
    /// counts outside, so a configured owner does not apply.
    ///
    /// # Errors
    /// When the host has no such user.
    pub fn find(owner: Option<&Owner>) -> Result<Self, NoSuchUser> {
        if let Some(rootless) = rootless::entered() {
            return Ok(Person {
                uid: 0,
                gid: 0,
                home: rootless.home().to_owned(),
            });
        }
        let own = rustix::process::geteuid();
        let sudo = std::env::var("SUDO_UID")
            .ok()
            // Only root may act for another user; any user can set the variable.
            .filter(|uid| own.is_root() && uid.parse::<u32>().is_ok());
        let wanted = match (owner, sudo) {
            (Some(owner), _) => owner.to_string(),
            (None, Some(uid)) => uid,
            (None, None) => own.as_raw().to_string(),
        };
        let output = Command::new("getent")
            .args(["passwd", "--", &wanted])
            .output();
        let found = output
            .ok()
            .and_then(|output| parse(&String::from_utf8_lossy(&output.stdout)));
        match (found, wanted.parse()) {
            (Some(person), _) => Ok(person),
            // A uid without an account is usual in containers.
            (None, Ok(uid)) => Ok(Person {
                uid,
                gid: uid,
                home: "/nonexistent".into(),
            }),
            (None, Err(_)) => Err(NoSuchUser(wanted)),
        }
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

fn parse(passwd: &str) -> Option<Person> {
    let fields: Vec<_> = passwd.lines().next()?.split(':').collect();
    let [_, _, uid, gid, _, home, ..] = fields[..] else {
        return None;
    };
    Some(Person {
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: home.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_by_name_and_by_number() {
        let root = Person::find(Some(&Owner::Name("root".into()))).unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(Person::find(Some(&Owner::Uid(0))).unwrap(), root);
    }

    #[test]
    fn a_name_that_nobody_has_is_an_error_and_a_number_is_not() {
        let error = Person::find(Some(&Owner::Name("no-such-user".into()))).unwrap_err();
        assert!(error.to_string().contains("no-such-user"));
        assert_eq!(Person::find(Some(&Owner::Uid(54_321))).unwrap().uid, 54_321);
    }
}
