//! The fabric's SSH keys: one pair that opens every switch, and a host key for each of them.
//!
//! Made once for a fabric and then reused, so that `known_hosts` stays true while switches
//! restart. The pair is used from the host and from switch to switch alike: root on one switch
//! is root on all of them, but never on the host, where no key of the fabric is authorized.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use host::folder::{Folder, User};
use ssh_key::rand_core::{OsRng, RngCore};
use ssh_key::{Algorithm, LineEnding, PrivateKey};

/// File of the pair that opens every switch, in the key folder.
const FABRIC_KEY: &str = "fabric_ed25519";

/// No OpenSSH ed25519 key is longer, in bytes.
const MAX_KEY_FILE: u64 = 4096;

/// Why the keys could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file could not be read or written.
    #[error("ssh key {0}: {1}")]
    File(PathBuf, io::Error),
    /// A file does not hold a usable key.
    #[error("ssh key {0}: {1}; remove the file and a new key will be made")]
    Broken(PathBuf, ssh_key::Error),
    /// A switch's name is not fit for a file name.
    #[error("\"{0}\" cannot be part of a file name")]
    Name(String),
}

/// A key pair in OpenSSH's formats.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The private key, as its file's content.
    pub private: String,
    /// The public key as one line without a line feed: `ssh-ed25519 AAAA… comment`.
    pub public: String,
}

/// All SSH keys of a fabric.
#[derive(Debug, Clone)]
pub struct FabricKeys {
    /// The pair that opens every switch.
    pub fabric: KeyPair,
    /// Each switch's host key, by the switch's name.
    pub hosts: BTreeMap<String, KeyPair>,
    dir: PathBuf,
    /// The private keys that are not on disk yet, by their files' names.
    unsaved: Vec<(String, String)>,
}

impl std::fmt::Debug for KeyPair {
    /// Only the public half: private keys do not belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl FabricKeys {
    /// Reads the keys in `dir` for the switches `names`, and makes up those that are missing, without
    /// writing anything: [`FabricKeys::save`] does.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn load<'a>(
        dir: &Path,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, KeyError> {
        let folder = match Folder::open(dir) {
            Ok(folder) => Some(folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(KeyError::File(dir.into(), error)),
        };
        let mut unsaved = Vec::new();
        let mut pair = |name: String, comment: &str| {
            let at = dir.join(&name);
            let found = folder.as_ref().map(|folder| read(folder, &name));
            pair(&at, found, comment).map(|(pair, new)| {
                if new {
                    unsaved.push((name, pair.private.clone()));
                }
                pair
            })
        };
        let fabric = pair(FABRIC_KEY.into(), "ikv-fabric")?;
        let mut hosts = BTreeMap::new();
        for name in names {
            // The name becomes part of a path that root writes.
            if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0', '\n']) {
                return Err(KeyError::Name(name.into()));
            }
            let file = format!("host_{name}_ed25519");
            hosts.insert(name.into(), pair(file, name)?);
        }
        Ok(Self {
            fabric,
            hosts,
            dir: dir.into(),
            unsaved,
        })
    }

    /// As [`FabricKeys::load`] and [`FabricKeys::save`].
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn load_or_create<'a>(
        dir: &Path,
        names: impl IntoIterator<Item = &'a str>,
        owner: Option<User>,
    ) -> Result<Self, KeyError> {
        let mut keys = Self::load(dir, names)?;
        keys.save(owner)?;
        Ok(keys)
    }

    /// Writes the keys that were made up, so that the next [`FabricKeys::load`] reads them.
    ///
    /// Every private key has mode 0600. The folder belongs to root, so that no user can put links into
    /// it. `owner`, who uses the fabric, owns only the fabric's private key; the folder then has mode
    /// 0711 instead of 0700.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn save(&mut self, owner: Option<User>) -> Result<(), KeyError> {
        let failed = |path: PathBuf| move |error| KeyError::File(path, error);
        let mode = if owner.is_some() { 0o711 } else { 0o700 };
        let folder = Folder::open_or_make(&self.dir)
            .and_then(|(folder, _)| folder.set_mode(mode).map(|()| folder))
            .map_err(failed(self.dir.clone()))?;
        for (name, key) in self.unsaved.drain(..) {
            let owner = owner.filter(|_| name == FABRIC_KEY);
            // As a whole or not at all: a key cut short by a full disk would be refused on every
            // later start.
            let written = folder.replace(&name, key.as_bytes(), 0o600, owner);
            written.map_err(failed(self.dir.join(&name)))?;
        }
        Ok(())
    }

    /// The fabric's private key file, for `ssh -i`.
    pub fn identity(&self) -> PathBuf {
        self.dir.join(FABRIC_KEY)
    }
}

/// The pair that was `found` in the file at `path`, or a new one if there is none. Also returns
/// whether it is new.
fn pair(
    path: &Path,
    found: Option<io::Result<String>>,
    comment: &str,
) -> Result<(KeyPair, bool), KeyError> {
    let broken = |error| KeyError::Broken(path.into(), error);
    let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let (key, new) = match found {
        Some(Ok(text)) => (PrivateKey::from_openssh(text).map_err(broken)?, false),
        Some(Err(error)) if !missing(&error) => return Err(KeyError::File(path.into(), error)),
        _ => {
            let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(broken)?;
            key.set_comment(comment);
            (key, true)
        }
    };
    let pair = KeyPair {
        private: key.to_openssh(LineEnding::LF).map_err(broken)?.to_string(),
        public: key.public_key().to_openssh().map_err(broken)?,
    };
    Ok((pair, new))
}

/// Random bytes of the host's kernel, fit for secrets.
pub(crate) fn random<const BYTES: usize>() -> io::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| io::Error::other(format!("the host has no random numbers: {error}")))?;
    Ok(bytes)
}

/// Reads a file of the key folder, and no more of it than a key can have.
pub(crate) fn read(folder: &Folder, name: &str) -> io::Result<String> {
    let (file, mut text) = (folder.read(name)?, String::new());
    file.take(MAX_KEY_FILE).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn are_made_once_and_only_the_missing_ones_later() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("ssh");
        let first = FabricKeys::load_or_create(&dir, ["leaf1"], None).unwrap();
        let second = FabricKeys::load_or_create(&dir, ["leaf1", "leaf2"], None).unwrap();
        assert_eq!(first.fabric, second.fabric);
        assert_eq!(first.hosts["leaf1"], second.hosts["leaf1"]);
        assert_ne!(second.hosts["leaf1"], second.hosts["leaf2"]);
        assert!(first.fabric.public.starts_with("ssh-ed25519 AAAA"));
        assert!(first.fabric.public.ends_with(" ikv-fabric"));
        assert_eq!((mode(&dir), mode(&first.identity())), (0o700, 0o600));
        assert_eq!(
            fs::read_to_string(first.identity()).unwrap(),
            first.fabric.private
        );
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
    }

    #[test]
    fn are_written_only_when_they_are_saved() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("ssh");
        let mut made_up = FabricKeys::load(&dir, ["leaf1"]).unwrap();
        assert!(!dir.exists());
        made_up.save(None).unwrap();
        let loaded = FabricKeys::load(&dir, ["leaf1", "leaf2"]).unwrap();
        assert_eq!(loaded.hosts["leaf1"], made_up.hosts["leaf1"]);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
    }

    #[test]
    fn refuse_a_broken_file_a_link_and_a_name_with_a_slash() {
        let dir = tempfile::tempdir().unwrap();
        let load = |name| FabricKeys::load_or_create(dir.path(), [name], None);
        assert!(matches!(load("../x").unwrap_err(), KeyError::Name(_)));
        fs::write(dir.path().join("host_leaf1_ed25519"), "no key").unwrap();
        assert!(
            load("leaf1")
                .unwrap_err()
                .to_string()
                .contains("remove the file")
        );
        let link = dir.path().join("host_leaf2_ed25519");
        std::os::unix::fs::symlink(dir.path().join(FABRIC_KEY), link).unwrap();
        assert!(matches!(load("leaf2").unwrap_err(), KeyError::File(..)));
    }

    #[test]
    fn private_keys_stay_out_of_debug_output() {
        let dir = tempfile::tempdir().unwrap();
        let keys = FabricKeys::load_or_create(dir.path(), ["leaf1"], None).unwrap();
        assert!(!format!("{keys:?}").contains("PRIVATE"));
    }
}
