//! The dumps that triggers caused: files in a folder of the fabric's own, beside the API's socket.
//! A client names a dump, never a path: only files in the list are opened.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use api::recorder::KeptDump;
use host::folder::Folder;

/// The most dumps that are kept; the oldest is removed first.
pub(super) const MOST: usize = 8;

/// The most bytes of all dumps together, except the newest, because `/run` is in memory.
const MOST_BYTES: u64 = 256 << 20;

/// Dumps on disk. The oldest are removed when there are too many.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    dumps: VecDeque<KeptDump>,
    made: u64,
}

impl Store {
    /// Will keep dumps in `folder`. The first dump creates it.
    pub(super) fn new(folder: &Path) -> Self {
        Store {
            folder: folder.to_owned(),
            kept: Mutex::default(),
        }
    }

    /// All kept dumps, the oldest first.
    pub(super) fn list(&self) -> Vec<KeptDump> {
        self.lock().dumps.iter().cloned().collect()
    }

    /// Opens a dump. `None` if no dump has this name.
    pub(super) fn open(&self, name: &str) -> io::Result<Option<File>> {
        let kept = self.lock();
        let known = kept.dumps.iter().find(|dump| dump.name == name);
        known
            .map(|dump| Folder::open(&self.folder)?.read(&dump.name))
            .transpose()
    }

    /// Keeps a dump with the content that `write` writes; `write` returns the number of frames.
    /// `kind` becomes part of the dump's name, `why` has one sentence for each event.
    pub(super) fn keep(
        &self,
        kind: &str,
        at_ms: u64,
        why: Vec<String>,
        write: impl FnOnce(&mut dyn Write) -> io::Result<u64>,
    ) -> io::Result<KeptDump> {
        // The lock is not held while the dump is written. The number is taken first, so that no two
        // dumps share a name.
        let number = {
            let mut kept = self.lock();
            kept.made += 1;
            kept.made
        };
        let name = format!("{number:03}-{kind}");
        let (frames, bytes) = self.write(&name, write)?;
        let dump = KeptDump {
            name,
            at_ms,
            why,
            frames,
            bytes,
        };
        let mut kept = self.lock();
        kept.dumps.push_back(dump.clone());
        let all = |kept: &Kept| kept.dumps.iter().map(|dump| dump.bytes).sum::<u64>();
        while kept.dumps.len() > 1 && (kept.dumps.len() > MOST || all(&kept) > MOST_BYTES) {
            if let Some(oldest) = kept.dumps.pop_front() {
                // Fails if another program has removed it already.
                let removed = Folder::open(&self.folder);
                let _ = removed.and_then(|folder| folder.remove_file(&oldest.name));
            }
        }
        Ok(dump)
    }

    fn write(
        &self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<u64>,
    ) -> io::Result<(u64, u64)> {
        let (folder, made) = Folder::open_or_make(&self.folder)?;
        if made {
            folder.set_mode(0o700)?;
        }
        let file = folder.create(name, 0o600)?;
        let mut buffered = BufWriter::with_capacity(256 << 10, file);
        let written = write(&mut buffered).and_then(|frames| {
            buffered.flush()?;
            Ok((frames, buffered.get_ref().metadata()?.len()))
        });
        if written.is_err() {
            // An incomplete dump is useless and takes up memory.
            let _ = folder.remove_file(name);
        }
        written
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no holder of this lock can panic")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn keep(store: &Store, bytes: &[u8]) -> io::Result<KeptDump> {
        store.keep("down", 7, vec!["why".into()], |to| {
            to.write_all(bytes)?;
            Ok(3)
        })
    }

    #[test]
    fn the_newest_are_kept_and_found_by_their_names_alone() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("recorder");
        let store = Store::new(&folder);
        for number in 0..MOST as u8 + 2 {
            keep(&store, &[number]).unwrap();
        }
        let list = store.list();
        assert_eq!(list.len(), MOST);
        assert_eq!((list[0].name.as_str(), list[0].bytes), ("003-down", 1));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), MOST);
        let mut text = Vec::new();
        let mut file = store.open("004-down").unwrap().unwrap();
        file.read_to_end(&mut text).unwrap();
        assert_eq!(text, [3]);
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("004-down")), 0o600);
        fs::write(outer.path().join("secret"), "").unwrap();
        for none in ["001-down", "../secret", "", "."] {
            assert!(store.open(none).unwrap().is_none(), "{none}");
        }
    }

    #[test]
    fn half_a_dump_is_none() {
        let outer = tempfile::tempdir().unwrap();
        let store = Store::new(outer.path());
        let failed = store.keep("down", 7, Vec::new(), |to| {
            to.write_all(b"half")?;
            Err(io::Error::other("full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "full");
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 0);
        // A file that another program has put in its place is not touched.
        std::os::unix::fs::symlink("/etc/passwd", outer.path().join("002-down")).unwrap();
        assert!(keep(&store, b"x").is_err());
        assert_eq!(store.list(), []);
    }
}
