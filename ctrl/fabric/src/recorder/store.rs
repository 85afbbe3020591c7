//! The dumps that triggers caused: files in a folder of the fabric's own, beside the API's socket.
//! A client names a dump, never a path: only files in the list are opened.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use super::schedule::Due;
use api::recorder::KeptDump;
use host::folder::Folder;

/// The most dumps that are kept. Beyond it, the cable with most of them loses its oldest: what
/// happens on a server's cable is in the hands of that server, which must not push out what is known
/// of others.
pub(super) const MOST: usize = 8;

/// The most bytes of all dumps together, except the newest, because `/run` is in memory.
const MOST_BYTES: u64 = 256 << 20;

/// Dumps on disk. Some are removed when there are too many.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The oldest first.
    dumps: Vec<Stored>,
    made: u64,
}

#[derive(Debug)]
struct Stored {
    dump: KeptDump,
    /// The cables whose events caused it.
    cables: Vec<String>,
}

impl Kept {
    fn bytes(&self) -> u64 {
        self.dumps.iter().map(|stored| stored.dump.bytes).sum()
    }

    /// The dump to remove next, never the newest: the oldest one whose cables all have many others.
    fn expendable(&self) -> Option<usize> {
        let (_, older) = self.dumps.split_last()?;
        let share = |cable: &String| {
            let names = |stored: &&Stored| stored.cables.contains(cable);
            self.dumps.iter().filter(names).count()
        };
        let rarest = |stored: &Stored| stored.cables.iter().map(share).min().unwrap_or(0);
        // Of equals, `max_by_key` takes the last.
        let candidates = older.iter().enumerate().rev();
        candidates
            .max_by_key(|(_, stored)| rarest(stored))
            .map(|(index, _)| index)
    }
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
        let kept = self.lock();
        kept.dumps
            .iter()
            .map(|stored| stored.dump.clone())
            .collect()
    }

    /// Opens a dump. `None` if no dump has this name.
    pub(super) fn open(&self, name: &str) -> io::Result<Option<File>> {
        let kept = self.lock();
        let known = kept.dumps.iter().find(|stored| stored.dump.name == name);
        known
            .map(|stored| Folder::open(&self.folder)?.read(&stored.dump.name))
            .transpose()
    }

    /// Keeps a dump with the content that `write` writes; `write` returns the number of frames.
    /// The event's kind becomes part of the dump's name.
    pub(super) fn keep(
        &self,
        due: Due,
        at_ms: u64,
        write: impl FnOnce(&mut dyn Write) -> io::Result<u64>,
    ) -> io::Result<KeptDump> {
        // The lock is not held while the dump is written. The number is taken first, so that no two
        // dumps share a name.
        let number = {
            let mut kept = self.lock();
            kept.made += 1;
            kept.made
        };
        let name = format!("{number:03}-{}", due.kind);
        let (frames, bytes) = self.write(&name, write)?;
        let dump = KeptDump {
            name,
            at_ms,
            why: due.why,
            frames,
            bytes,
        };
        let mut kept = self.lock();
        kept.dumps.push(Stored {
            dump: dump.clone(),
            cables: due.cables,
        });
        while kept.dumps.len() > MOST || kept.bytes() > MOST_BYTES {
            let Some(index) = kept.expendable() else {
                break;
            };
            let removed = kept.dumps.remove(index);
            // Fails if another program has removed it already.
            let folder = Folder::open(&self.folder);
            let _ = folder.and_then(|folder| folder.remove_file(&removed.dump.name));
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

    fn due(cables: &[&str]) -> Due {
        Due {
            kind: "down",
            cables: cables.iter().map(ToString::to_string).collect(),
            why: vec!["why".into()],
        }
    }

    fn keep(store: &Store, bytes: &[u8]) -> io::Result<KeptDump> {
        store.keep(due(&["one"]), 7, |to| {
            to.write_all(bytes)?;
            Ok(3)
        })
    }

    /// A server provokes a dump after another on its own cable.
    #[test]
    fn a_cable_pushes_out_only_its_own_dumps() {
        let outer = tempfile::tempdir().unwrap();
        let store = Store::new(outer.path());
        let keep = |cables: &[&str]| {
            let kept = store.keep(due(cables), 7, |_| Ok(0));
            kept.unwrap().name
        };
        let rare = [keep(&["iksb12"]), keep(&["iksb13"])];
        // What happened at the same time is one dump: it counts as the rarer cable's.
        let both = keep(&["ikeb1-3", "iksb14"]);
        let mut last = String::new();
        for _ in 0..3 * MOST {
            last = keep(&["ikeb1-3"]);
        }
        let left: Vec<_> = store.list().into_iter().map(|dump| dump.name).collect();
        assert_eq!(left.len(), MOST);
        assert_eq!(left[..3], [&rare[..], &[both]].concat());
        assert_eq!(left.last(), Some(&last));
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
        let failed = store.keep(due(&[]), 7, |to| {
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
