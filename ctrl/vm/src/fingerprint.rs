//! Hashes over several fields, as text: what names images, saved states and BMCs.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// SHA-256 over a sequence of fields.
#[derive(Default)]
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    pub(crate) fn field(&mut self, bytes: &[u8]) {
        // The length keeps "ab", "c" apart from "a", "bc".
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// The first 8 bytes: 16 hexadecimal digits.
    pub(crate) fn short(self) -> String {
        hexadecimal(&self.0.finalize()[..8])
    }
}

/// Two lower-case digits for each byte.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        _ = write!(hex, "{byte:02x}");
        hex
    })
}
