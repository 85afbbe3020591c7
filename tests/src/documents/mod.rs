//! README and the pages of `docs/` as tests read them: commands, files of examples, links.
//!
//! Commands stand in fences of the language `sh`, one a line; what follows two blanks and `#` is for
//! readers. A fence whose first line is a comment that holds only a file's name is that file: a
//! [`Typist`] writes it before it types the commands of its page.

mod markdown;
mod typist;
mod verdicts;

use std::path::{Path, PathBuf};

pub use markdown::{Block, Command, Link, Page};
pub use typist::Typist;
pub use verdicts::{VERDICTS, Verdict, covers, verdict};

/// Where the repository's files are on the web, as pages name those outside of the book.
pub const ON_THE_WEB: &str = "https://github.com/ikv-fabric/ikv-fabric/blob/main/";

/// Pages that a unit test writes from the code. Their usage lines are no commands to type.
pub const GENERATED: [&str; 2] = [
    "docs/src/reference/commands.md",
    "docs/src/reference/keys.md",
];

/// The repository's folder.
///
/// # Panics
/// Never: the tests' package is a folder of it.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ has a parent").to_owned()
}

/// README and every page of the book, README first, the others by path.
///
/// # Panics
/// When one cannot be read.
pub fn pages() -> Vec<Page> {
    let root = repository();
    let mut files = Vec::new();
    collect(&root.join("docs/src"), &mut files);
    files.sort();
    files.insert(0, root.join("README.md"));
    files.iter().map(|file| Page::read(&root, file)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|end| end == "md") {
            files.push(path);
        }
    }
}
