//! `--ring 10x100MB`: a long capture keeps only its newest files.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use model::impairment::{Bytes, ValueError};

/// The smallest file of a ring, in bytes: one write always fits.
const SMALLEST: u64 = 1_000_000;

/// The number of files, and the size of each in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RingSize {
    files: usize,
    bytes: u64,
}

impl FromStr for RingSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (files, bytes) = text
            .split_once('x')
            .ok_or_else(|| format!("\"{text}\" is not a ring of files: write 10x100MB"))?;
        let files = files
            .parse()
            .ok()
            .filter(|files| (2..=9999).contains(files));
        let files = files.ok_or("a ring has 2 to 9999 files: 10x100MB")?;
        let Bytes(bytes) = bytes
            .parse()
            .map_err(|error: ValueError| error.to_string())?;
        if bytes < SMALLEST {
            return Err(format!(
                "a file of a ring has at least 1MB: {text} is too small"
            ));
        }
        Ok(RingSize { files, bytes })
    }
}

/// Names the file to write to and the file to remove. Its caller opens and removes them.
#[derive(Debug)]
pub(crate) struct RingFiles {
    path: PathBuf,
    size: RingSize,
    /// The existing files, newest last.
    files: VecDeque<PathBuf>,
    next: u64,
    written: u64,
}

impl RingFiles {
    /// A ring whose files are named like `path`, with a number.
    pub(super) fn new(path: &Path, size: RingSize) -> Self {
        RingFiles {
            path: path.into(),
            size,
            files: VecDeque::new(),
            next: 1,
            written: 0,
        }
    }

    /// Whether the file has no room for `bytes` more and for the `last` bytes that end it.
    pub(super) fn is_full(&self, bytes: usize, last: usize) -> bool {
        self.written > 0 && self.written + (bytes + last) as u64 > self.size.bytes
    }

    /// Counts bytes that were written to the current file, towards its size.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
    }

    /// The next file to write to, and the oldest one if the ring has too many with it.
    pub(super) fn turn(&mut self) -> (PathBuf, Option<PathBuf>) {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let mut name = format!("{stem}_{:05}", self.next);
        if let Some(extension) = self.path.extension() {
            name += &format!(".{}", extension.to_string_lossy());
        }
        let path = self.path.with_file_name(name);
        self.next += 1;
        self.written = 0;
        self.files.push_back(path.clone());
        let old = (self.files.len() > self.size.files).then(|| self.files.pop_front());
        (path, old.flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed() {
        let read = |text: &str| {
            text.parse::<RingSize>()
                .map(|size| (size.files, size.bytes))
        };
        assert_eq!(read("10x100MB"), Ok((10, 100_000_000)));
        assert_eq!(read("2x1GiB"), Ok((2, 1 << 30)));
        assert_eq!(read("3x5000kB"), Ok((3, 5_000_000)));
        for wrong in [
            "",
            "10",
            "x",
            "1x10MB",
            "10x",
            "10x5",
            "10x1XB",
            "10x99999999999999GB",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_newest_files_stay() {
        let mut ring = RingFiles::new(Path::new("/t/a.pcapng"), "2x1MB".parse().unwrap());
        let name = |number: u32| PathBuf::from(format!("/t/a_{number:05}.pcapng"));
        assert_eq!(ring.turn(), (name(1), None));
        assert!(
            !ring.is_full(2_000_000, 0),
            "a file takes at least one write"
        );
        ring.wrote(900_000);
        assert!(!ring.is_full(99_000, 1_000));
        assert!(ring.is_full(99_001, 1_000));
        assert_eq!(ring.turn(), (name(2), None));
        assert!(!ring.is_full(99_001, 1_000));
        assert_eq!(ring.turn(), (name(3), Some(name(1))));
        assert_eq!(ring.turn(), (name(4), Some(name(2))));
        let mut bare = RingFiles::new(Path::new("trace"), "2x1MB".parse().unwrap());
        assert_eq!(bare.turn().0, Path::new("trace_00001"));
    }
}
