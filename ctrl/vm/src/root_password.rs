//! The password of root in the switches, if one is configured, as `/etc/shadow` has it.

use std::io;

use sha_crypt::{PasswordHasher, ShaCrypt};

use crate::keys;

/// Bytes of salt: 16 characters once encoded, the most that crypt(5) looks at.
const SALT: usize = 12;

/// Why a password has no hash.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// It could never be typed at a login.
    #[error("[ssh] root_password: use one line of text")]
    NotOneLine,
    /// The host has no random numbers for the salt.
    #[error("[ssh] root_password: {0}")]
    Random(#[from] io::Error),
}

/// The password's crypt(5) hash by SHA-512 with a fresh salt: `$6$SALT$HASH`.
///
/// # Errors
/// See [`HashError`].
pub fn hash(password: &str) -> Result<String, HashError> {
    if password.contains(['\n', '\0']) {
        return Err(HashError::NotOneLine);
    }
    let salt: [u8; SALT] = keys::random()?;
    Ok(hash_with(password, &salt))
}

fn hash_with(password: &str, salt: &[u8]) -> String {
    let hash = ShaCrypt::SHA512
        .hash_password_with_salt(password.as_bytes(), salt)
        .expect("the crate's own parameters are valid");
    // The crate writes the number of rounds even where it is the default of crypt(5), which older
    // implementations in a guest need not understand.
    hash.as_str().replacen("rounds=5000$", "", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hashes_of_one_password_differ_by_their_salt() {
        let (first, second) = (hash("changeme").unwrap(), hash("changeme").unwrap());
        for hash in [&first, &second] {
            let parts: Vec<_> = hash.split('$').collect();
            let lengths = parts.iter().map(|part| part.len()).collect::<Vec<_>>();
            assert_eq!((parts[1], lengths), ("6", vec![0, 1, 16, 86]), "{hash}");
        }
        assert_ne!(first, second);
        assert!(!first.contains("changeme"));
    }

    /// As `openssl passwd -6 -salt dhaRhMKMW7LOX3XA changeme` has it.
    #[test]
    fn the_hash_is_what_other_implementations_compute() {
        assert_eq!(
            hash_with("changeme", b"ikv-fabric12"),
            "$6$dhaRhMKMW7LOX3XA$5oJdr5UcsAymzdUlC8YRJg7/bLbsHrrl4z6L3TfCRT4QzWAYhXjsf9QGZjcRScJFelvNFYNOWmEiD.qfvglQn/"
        );
    }

    #[test]
    fn a_password_of_several_lines_is_refused() {
        assert!(matches!(hash("a\nb"), Err(HashError::NotOneLine)));
    }
}
