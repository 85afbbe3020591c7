//! An image as one file, for hosts that cannot build one: [`export`] and [`import`].
//!
//! The file is a tar of the image's four files and of their SHA-256 sums, in the order of a stream:
//! it is written and read in one pass, `tar` shows what is in it, and `sha256sum -c` checks it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use tar::{Archive, Builder, Entry, EntryType, Header};

use super::build::{BuildFolder, install, lock, make_readable};
use super::error::ImageError;
use super::progress::Progress;
use super::wanted::{ImagePaths, WantedImage};
use crate::fingerprint::hexadecimal;
use host::folder::Folder;
use model::printable;

/// The files of an image, and the most bytes that each may have in an archive.
const PARTS: [(&str, u64); 4] = [
    ("manifest.json", 1 << 20),
    ("kernel", 256 << 20),
    ("initrd", 256 << 20),
    ("root.squashfs", 4 << 30),
];
/// The list of sums, as `sha256sum` prints it. It comes last, because it is made while the files pass.
const SUMS: &str = "SHA256SUMS";
/// The most bytes of the list: four lines of 64 digits and a name.
const MAX_SUMS: u64 = 1 << 10;
const EXPORTING: &str = "writing the image";
const IMPORTING: &str = "reading the image";

/// What an archive's manifest says about it.
#[derive(serde::Deserialize)]
struct Manifest {
    recipe: String,
    suite: String,
}

/// An image that was imported.
#[derive(Debug)]
pub struct Imported {
    /// Its files, in their place.
    pub image: ImagePaths,
    /// The code name of its Debian release. A configuration that asks for another does not use it.
    pub suite: String,
}

/// Writes an image to `to`, whose name for messages is `name`.
///
/// # Errors
/// When a file cannot be read, or `to` cannot be written.
pub fn export(
    image: &ImagePaths,
    to: impl Write,
    name: &Path,
    mut on_progress: impl FnMut(Progress),
) -> Result<(), ImageError> {
    let folder = image.root.parent().unwrap_or(Path::new("/"));
    let mut files = Vec::new();
    for (part, _) in PARTS {
        let path = folder.join(part);
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (bytes, file) = opened.map_err(ImageError::file("cannot read", &path))?;
        files.push((part, bytes, file));
    }
    let mut passed = Passed::of(
        EXPORTING,
        files.iter().map(|file| file.1).sum(),
        &mut on_progress,
    );
    let failed = || ImageError::file("cannot write the image to", name);
    let mut archive = Builder::new(to);
    let mut sums = String::new();
    for (part, bytes, file) in files {
        let mut file = passed.through(file);
        let mut header = header(bytes);
        archive
            .append_data(&mut header, part, &mut file)
            .map_err(failed())?;
        sums += &line(part, file.sum);
    }
    archive
        .append_data(&mut header(sums.len() as u64), SUMS, sums.as_bytes())
        .map_err(failed())?;
    let mut to = archive.into_inner().map_err(failed())?;
    to.flush().map_err(failed())
}

/// Reads an image from `from`, whose name for messages is `name`, and installs it in the place of one
/// that would be built. It must be of this program's recipe. Its release may be any.
///
/// # Errors
/// When `from` is not such an image, or it cannot be stored. Then nothing has changed.
pub async fn import(
    wanted: &WantedImage,
    from: impl Read,
    name: &Path,
    mut on_progress: impl FnMut(Progress),
) -> Result<Imported, ImageError> {
    let cache = &wanted.cache;
    Folder::open_or_make(cache).map_err(ImageError::file("cannot use", cache))?;
    let _lock = lock(&cache.join("lock"), &mut on_progress).await?;
    let folder = BuildFolder::create(cache)?;
    let out = folder.out();
    let unpacked = unpack(from, &out, &mut on_progress);
    let manifest = unpacked.map_err(|refused| match refused {
        Refused::Io(source) => ImageError::file("cannot read an image from", name)(source),
        Refused::Store(error) => error,
        Refused::Content(why) => ImageError::NotAnImage {
            file: name.to_owned(),
            why,
        },
    })?;
    let suite = printable::head(manifest.suite.as_bytes(), 64);
    if manifest.recipe != wanted.recipe.hash(&manifest.suite) {
        return Err(ImageError::OtherRecipe {
            file: name.to_owned(),
            recipe: printable::head(manifest.recipe.as_bytes(), 64),
            suite,
        });
    }
    let built = ImagePaths::in_folder(&out);
    make_readable(&built)?;
    let image = install(cache, &manifest.recipe, &out)?;
    Ok(Imported { image, suite })
}

/// Why an archive was not taken.
enum Refused {
    /// It cannot be read to its end.
    Io(io::Error),
    /// A file of it cannot be stored.
    Store(ImageError),
    /// Something else is in it.
    Content(String),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Stores the files of an archive in `out`. Takes only what [`export`] writes: these names, each once, in
/// this order, as regular files of a bounded size.
fn unpack(
    from: impl Read,
    out: &Path,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Manifest, Refused> {
    let mut archive = Archive::new(from);
    // Raw: extensions of the format, which nobody bounds, are not looked at.
    let mut entries = archive.entries()?.raw(true);
    let mut next = |part: &str, most: u64| -> Result<Entry<'_, _>, Refused> {
        let missing = || Refused::Content(format!("{part} is missing from it"));
        let entry = entries.next().ok_or_else(missing)??;
        if &*entry.path_bytes() != part.as_bytes() {
            return Err(missing());
        }
        if entry.header().entry_type() != EntryType::Regular {
            return Err(Refused::Content(format!("{part} in it is not a file")));
        }
        if entry.size() > most {
            let limit = most >> 20;
            return Err(Refused::Content(format!(
                "{part} in it has {} bytes, more than {limit} MiB",
                entry.size()
            )));
        }
        Ok(entry)
    };
    let mut sums = String::new();
    let mut passed = Passed::of(IMPORTING, 0, on_progress);
    for (part, most) in PARTS {
        let entry = next(part, most)?;
        passed.expect(entry.size());
        let path = out.join(part);
        let stored = |error| Refused::Store(ImageError::file("cannot write", &path)(error));
        let mut file = File::create_new(&path).map_err(stored)?;
        let mut entry = passed.through(entry);
        let mut piece = vec![0; 1 << 16];
        loop {
            let read = entry.read(&mut piece)?;
            if read == 0 {
                break;
            }
            file.write_all(&piece[..read]).map_err(stored)?;
        }
        sums += &line(part, entry.sum);
    }
    let mut listed = Vec::new();
    next(SUMS, MAX_SUMS)?.read_to_end(&mut listed)?;
    if listed != sums.as_bytes() {
        return Err(Refused::Content(
            "its files do not have the sums that it lists: it was damaged on its way".into(),
        ));
    }
    let manifest = fs::read(out.join("manifest.json"))?;
    serde_json::from_slice(&manifest)
        .map_err(|error| Refused::Content(format!("its manifest.json cannot be read: {error}")))
}

fn header(bytes: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(EntryType::Regular);
    header
}

/// A line as `sha256sum` prints it.
fn line(part: &str, sum: Sha256) -> String {
    format!("{}  {part}\n", hexadecimal(&sum.finalize()))
}

/// How much has passed, for the progress.
struct Passed<'a> {
    stage: &'static str,
    bytes: u64,
    all: u64,
    on_progress: &'a mut dyn FnMut(Progress),
}

impl<'a> Passed<'a> {
    fn of(stage: &'static str, all: u64, on_progress: &'a mut dyn FnMut(Progress)) -> Self {
        Self {
            stage,
            bytes: 0,
            all,
            on_progress,
        }
    }

    /// The next part has this size.
    fn expect(&mut self, bytes: u64) {
        self.all = self.bytes + bytes;
    }

    fn through<R>(&mut self, file: R) -> Through<'_, 'a, R> {
        Through {
            file,
            sum: Sha256::default(),
            passed: self,
        }
    }
}

/// A reader that sums up what passes, and reports the progress.
struct Through<'p, 'a, R> {
    file: R,
    sum: Sha256,
    passed: &'p mut Passed<'a>,
}

impl<R: Read> Read for Through<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.sum.update(&buffer[..read]);
        let passed = &mut *self.passed;
        passed.bytes += read as u64;
        (passed.on_progress)(Progress {
            stage: passed.stage,
            fraction: passed.bytes as f64 / passed.all.max(1) as f64,
        });
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
