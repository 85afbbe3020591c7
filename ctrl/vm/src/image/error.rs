//! What can be wrong with the image, and what helps.

use std::io;
use std::path::PathBuf;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Neither root nor a home.
    #[error(
        "there is no folder for the switch image: set $HOME, or image.dir in the configuration"
    )]
    NoCacheFolder,
    /// `/etc/os-release` names another distribution, or none.
    #[error(
        "the switch image is Debian, and this host is {host}: set image.release \
         (as \"bookworm\") and image.mirror in the configuration"
    )]
    NotDebian {
        /// What the host calls itself.
        host: String,
    },
    /// No source in `/etc/apt` is the Debian archive.
    #[error(
        "{} has no source of Debian {suite} main: add one, or set image.mirror in the \
         configuration",
        folder.display()
    )]
    NoSources {
        /// Where they were looked for.
        folder: PathBuf,
        /// The release that is wanted.
        suite: String,
    },
    /// A program is not installed.
    #[error(
        "building the switch image needs {}: `ikv-fabric setup` installs it",
        missing.join(", ")
    )]
    Missing {
        /// The packages, by name.
        missing: Vec<&'static str>,
    },
    /// A file or folder of the cache.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried, as "cannot create".
        what: &'static str,
        /// With which path.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// There is less room than a build takes, from the start or in the end.
    #[error(
        "no room for the switch image: building it takes {needed} for a while, and {} has {left} \
         left; make room there, or set image.dir in the configuration (--set image.dir=FOLDER)",
        folder.display()
    )]
    NoRoom {
        /// The cache.
        folder: PathBuf,
        /// What a build takes, in words.
        needed: String,
        /// What the folder's file system has left, in words.
        left: String,
    },
    /// A program cannot be started.
    #[error("cannot start {program}: {source}; `ikv-fabric setup` installs what is missing")]
    Start {
        /// Its name.
        program: &'static str,
        /// What came of it.
        source: io::Error,
    },
    /// The build began and did not succeed.
    #[error(
        "building the switch image failed while {stage} ({hint}). The whole log is {}; it ends:\n{tail}",
        log.display()
    )]
    Build {
        /// What it was doing.
        stage: &'static str,
        /// What probably helps.
        hint: &'static str,
        /// All that the build printed.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
}

impl ImageError {
    pub(super) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
