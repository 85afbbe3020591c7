//! A switch's own data: a tar on its second disk, unpacked at `/` by the image's init.

use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use host::folder::Folder;

/// A file that a switch unpacks from its seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedFile {
    /// Relative to `/`, without `..`: `etc/hostname`.
    pub path: String,
    /// Permission bits, 0..=0o7777.
    pub mode: u32,
    /// The file's content.
    pub bytes: Vec<u8>,
}

impl From<frr_conf::File> for SeedFile {
    fn from(file: frr_conf::File) -> Self {
        SeedFile {
            path: file.path,
            mode: file.mode,
            bytes: file.content.into_bytes(),
        }
    }
}

/// Why a seed could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The path would lead out of the guest's root, or is not canonical.
    #[error("seed file \"{0}\": the path must be relative, and without . and ..")]
    Path(String),
    /// Two files have the same path; one would silently replace the other.
    #[error("seed file \"{0}\" occurs twice")]
    Twice(String),
    /// The mode has more than permission bits.
    #[error("seed file \"{0}\": mode {1:o} is over 7777")]
    Mode(String, u32),
    /// The archive could not be built.
    #[error("seed file \"{0}\": {1}")]
    Archive(String, io::Error),
    /// The archive could not be written.
    #[error("cannot write the seed {0}: {1}")]
    Write(PathBuf, io::Error),
}

/// The size of a seed is a multiple of this, in bytes: a guest that was restored from a template's state
/// keeps the size of the template's disk, so it helps that most seeds have the same size.
const SIZE: usize = 256 << 10;

/// The archive of the files: sorted by path, owned by root, with times of 0, so that equal files give
/// equal bytes. Its length is a multiple of 256 KiB.
///
/// # Errors
/// See [`SeedError`].
pub fn archive(files: &[SeedFile]) -> Result<Vec<u8>, SeedError> {
    let mut files: Vec<_> = files.iter().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    if let Some(pair) = files.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return Err(SeedError::Twice(pair[0].path.clone()));
    }
    let mut builder = tar::Builder::new(Vec::new());
    for file in files {
        check(file)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(file.bytes.len() as u64);
        header.set_mode(file.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        builder
            .append_data(&mut header, &file.path, file.bytes.as_slice())
            .map_err(|error| SeedError::Archive(file.path.clone(), error))?;
    }
    let mut bytes = builder
        .into_inner()
        .map_err(|error| SeedError::Archive("end".into(), error))?;
    // Readers of a tar ignore zeros after its end.
    bytes.resize(bytes.len().next_multiple_of(SIZE), 0);
    Ok(bytes)
}

/// Writes the archive to `path` with mode 0600: it holds private keys, and QEMU inherits it as a
/// descriptor.
///
/// # Errors
/// See [`SeedError`].
pub fn write(path: &Path, files: &[SeedFile]) -> Result<(), SeedError> {
    write_at_least(path, files, 0)
}

/// Does the same, and appends zeros up to `size` bytes.
pub(crate) fn write_at_least(
    path: &Path,
    files: &[SeedFile],
    size: usize,
) -> Result<(), SeedError> {
    let mut bytes = archive(files)?;
    bytes.resize(bytes.len().max(size), 0);
    let failed = |error| SeedError::Write(path.into(), error);
    Folder::of(path)
        .and_then(|(folder, name)| folder.open_or_create(name, 0o600))
        .and_then(|mut file| {
            file.set_len(0)?;
            file.write_all(&bytes)
        })
        .map_err(failed)
}

fn check(file: &SeedFile) -> Result<(), SeedError> {
    let plain = |part| matches!(part, Component::Normal(_));
    let path = Path::new(&file.path);
    // Components do not show `a/./b` or a final slash; the comparison of the whole path does.
    let whole = path.components().collect::<PathBuf>().as_os_str() == file.path.as_str();
    if file.path.is_empty() || !path.components().all(plain) || !whole {
        return Err(SeedError::Path(file.path.clone()));
    }
    if file.mode > 0o7777 {
        return Err(SeedError::Mode(file.path.clone(), file.mode));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    fn file(path: &str, mode: u32, bytes: &[u8]) -> SeedFile {
        SeedFile {
            path: path.into(),
            mode,
            bytes: bytes.into(),
        }
    }

    #[test]
    fn does_not_depend_on_the_order() {
        let a = file("etc/hostname", 0o644, b"leaf1\n");
        let b = file("root/.ssh/id_ed25519", 0o600, b"secret");
        let one = archive(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(one, archive(&[b, a]).unwrap());
        assert_eq!(one.len(), SIZE);
        let mut reader = tar::Archive::new(one.as_slice());
        let entries: Vec<_> = reader
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let header = entry.header();
                let facts = (
                    header.mode().unwrap(),
                    header.uid().unwrap(),
                    header.mtime().unwrap(),
                );
                let path = entry.path().unwrap().display().to_string();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                (path, facts, text)
            })
            .collect();
        let expected = [
            ("etc/hostname".into(), (0o644, 0, 0), "leaf1\n".into()),
            (
                "root/.ssh/id_ed25519".into(),
                (0o600, 0, 0),
                "secret".into(),
            ),
        ];
        assert_eq!(entries, expected);
    }

    #[test]
    fn refuses_paths_that_lead_elsewhere() {
        for path in [
            "",
            "/etc/passwd",
            "../etc",
            "etc/../../x",
            "./x",
            "etc/./x",
            "etc//x",
            "etc/",
        ] {
            let error = archive(&[file(path, 0o644, b"")]).unwrap_err();
            assert!(matches!(error, SeedError::Path(_)), "{path}: {error}");
        }
        let twice = [
            file("a", 0o644, b"1"),
            file("b", 0o644, b""),
            file("a", 0o600, b"2"),
        ];
        assert!(matches!(archive(&twice).unwrap_err(), SeedError::Twice(_)));
        let mode = archive(&[file("a", 0o100_644, b"")]).unwrap_err();
        assert_eq!(
            mode.to_string(),
            "seed file \"a\": mode 100644 is over 7777"
        );
    }

    #[test]
    fn is_written_for_root_alone_and_not_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed.tar");
        write(&path, &[file("a", 0o644, b"1")]).unwrap();
        write(&path, &[]).unwrap();
        let meta = path.metadata().unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.len()), (0o600, SIZE as u64));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(
            write(&link, &[]).unwrap_err(),
            SeedError::Write(..)
        ));
    }

    proptest! {
        #[test]
        fn any_content_comes_back(bytes: Vec<u8>, mode in 0u32..=0o7777) {
            let tar = archive(&[file("etc/x", mode, &bytes)]).unwrap();
            let mut reader = tar::Archive::new(tar.as_slice());
            let mut entry = reader.entries().unwrap().next().unwrap().unwrap();
            prop_assert_eq!(entry.header().mode().unwrap(), mode);
            let mut back = Vec::new();
            entry.read_to_end(&mut back).unwrap();
            prop_assert_eq!(back, bytes);
        }
    }
}
