//! The password of the BMCs: generated once and kept beside the fabric's keys, readable by its
//! owner only.

use std::io;
use std::path::{Path, PathBuf};

use crate::keys;
use host::folder::{Folder, User};

/// The name of the password's file in the key folder.
pub const FILE: &str = "ipmi_password";

/// The most characters that IPMI 1.5 accepts. They hold 95 random bits.
const LENGTH: usize = 16;

/// Letters and digits, so that no shell and no configuration file needs quotes.
const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The file could not be read or written, or the host has no random numbers.
    #[error("the BMCs' password {}: {error}", .path.display())]
    File {
        /// The path of the password's file.
        path: PathBuf,
        /// The error that the system returned.
        error: io::Error,
    },
    /// The file contains something other than a password.
    #[error(
        "{} is not {LENGTH} letters and digits; remove the file and a new password will be made",
        .0.display()
    )]
    Broken(PathBuf),
}

/// Reads the password in `folder`. If there is none, generates one in a file of `owner` (uid, gid).
///
/// # Errors
/// See [`PasswordError`].
pub fn load_or_create(folder: &Path, owner: User) -> Result<String, PasswordError> {
    let path = folder.join(FILE);
    let failed = |error| PasswordError::File {
        path: path.clone(),
        error,
    };
    let keys = Folder::open(folder).map_err(failed)?;
    match keys::read(&keys, FILE) {
        Ok(text) => {
            let password = text.trim_end();
            let plain = password.bytes().all(|byte| LETTERS.contains(&byte));
            if password.len() == LENGTH && plain {
                Ok(password.to_owned())
            } else {
                Err(PasswordError::Broken(path))
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let password = random().map_err(failed)?;
            let text = format!("{password}\n");
            let written = keys.replace(FILE, text.as_bytes(), 0o600, Some(owner));
            written.map_err(failed)?;
            Ok(password)
        }
        Err(error) => Err(failed(error)),
    }
}

fn random() -> io::Result<String> {
    let mut password = String::with_capacity(LENGTH);
    while password.len() < LENGTH {
        let [byte] = keys::random()?;
        // 248 is four times 62, so that below it each character is equally likely.
        if byte < 248 {
            password.push(char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
        }
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().metadata().unwrap();
        let load = || load_or_create(folder.path(), (own.uid(), own.gid()));
        let password = load().unwrap();
        assert_eq!(load().unwrap(), password);
        assert_eq!(password.len(), LENGTH);
        let path = folder.path().join(FILE);
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
        assert_ne!(random().unwrap(), random().unwrap());
        std::fs::write(&path, "secret\"\n").unwrap();
        let said = load().unwrap_err().to_string();
        assert!(said.contains("remove the file"), "{said}");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(matches!(load().unwrap_err(), PasswordError::File { .. }));
    }
}
