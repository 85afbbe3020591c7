//! Files that a person names, read up to a bound: a name may be that of a device that never ends.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a whole text file of at most `limit` bytes.
///
/// # Errors
/// When it cannot be read, is longer, or is no text.
pub fn read_to_string(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(limit + 1).read_to_string(&mut text);
    // What is longer may be cut within a character.
    if text.len() as u64 > limit || read.as_ref().is_ok_and(|read| *read as u64 > limit) {
        return Err(io::Error::other(format!(
            "it has more than {} KiB",
            limit >> 10
        )));
    }
    match read {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(io::Error::other(
            "it is not a text (UTF-8), or too long for one",
        )),
        read => read.map(|_| text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_refused() {
        let says = |path: &str| read_to_string(Path::new(path), 1 << 10).unwrap_err();
        assert_eq!(says("/dev/zero").to_string(), "it has more than 1 KiB");
        assert_eq!(says("/nonexistent").kind(), io::ErrorKind::NotFound);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "a".repeat(1 << 10)).unwrap();
        assert_eq!(read_to_string(file.path(), 1 << 10).unwrap().len(), 1 << 10);
        assert!(read_to_string(file.path(), 1000).is_err());
    }
}
