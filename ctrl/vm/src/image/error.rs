//! Why there is no image, and what helps.

use std::io;
use std::path::PathBuf;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The user is not root and has no home folder.
    #[error(
        "there is no folder for the switch image: set $HOME, or image.dir in the configuration"
    )]
    NoCacheFolder,
    /// `/etc/os-release` does not name Debian.
    #[error(
        "the switch image is Debian, and this host is {host}: set image.release \
         (as \"bookworm\") and image.mirror in the configuration"
    )]
    NotDebian {
        /// The host's distribution, as `/etc/os-release` has it.
        host: String,
    },
    /// No source in `/etc/apt` is the Debian archive.
    #[error(
        "{} has no source of Debian {suite} main: add one, or set image.mirror in the \
         configuration",
        folder.display()
    )]
    NoSources {
        /// The folder of apt's configuration.
        folder: PathBuf,
        /// Code name of the release that is wanted.
        suite: String,
    },
    /// Programs are not installed.
    #[error(
        "building the switch image needs {}: `ikv-fabric setup` installs it",
        missing.join(", ")
    )]
    Missing {
        /// The names of their packages.
        missing: Vec<&'static str>,
    },
    /// A file or folder of the cache cannot be used.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// The beginning of the message, as "cannot create".
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// There is less disk space than a build needs. Found before it or when it failed.
    #[error(
        "no room for the switch image: building it takes {needed} for a while, and {} has {left} \
         left; make room there, or set image.dir in the configuration (--set image.dir=FOLDER)",
        folder.display()
    )]
    NoDiskSpace {
        /// The cache.
        folder: PathBuf,
        /// What a build needs, as "600 MiB and 8000 files".
        needed: String,
        /// What is free in the folder's file system, in the same form.
        left: String,
    },
    /// A program cannot be started.
    #[error("cannot start {program}: {source}; `ikv-fabric setup` installs what is missing")]
    Start {
        /// The program's name.
        program: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The build's script ended with an error.
    #[error(
        "building the switch image failed while {stage} ({hint}). The whole log is {}; it ends:\n{tail}",
        log.display()
    )]
    Build {
        /// What it was doing, as in "installing packages".
        stage: &'static str,
        /// What probably helps, as a clause.
        hint: &'static str,
        /// The file with everything that the build printed.
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
