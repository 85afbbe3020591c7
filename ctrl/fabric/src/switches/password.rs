//! The password of root in the switches, if one is configured, as /etc/shadow has it.

use std::io::Write;
use std::process::{Command, Stdio};

/// The password's crypt(5) hash with a fresh salt, SHA-512. It goes through a pipe: an
/// argument could be read by anybody in the process list.
pub(crate) fn crypt(password: &str) -> Result<String, String> {
    let missing = |error: std::io::Error| {
        format!(
            "[ssh] root_password: cannot run openssl to hash it: {error}; install it with `apt-get install openssl`"
        )
    };
    let mut openssl = Command::new("openssl")
        .args(["passwd", "-6", "-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    if let Some(mut stdin) = openssl.stdin.take() {
        stdin.write_all(password.as_bytes()).map_err(missing)?;
    }
    let output = openssl.wait_with_output().map_err(missing)?;
    let hash = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && hash.starts_with("$6$") {
        Ok(hash)
    } else {
        Err("[ssh] root_password: openssl cannot hash it; use one line of text".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hashes_of_one_password_differ_by_their_salt() {
        let (first, second) = (crypt("changeme").unwrap(), crypt("changeme").unwrap());
        assert!(first.starts_with("$6$") && second.starts_with("$6$"));
        assert_ne!(first, second);
        assert!(!first.contains("changeme"));
    }
}
