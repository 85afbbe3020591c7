//! Why no image is available, and the remedy.

use std::io;
use std::path::PathBuf;

/// Why no image is available.
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
         (such as \"trixie\") and image.mirror in the configuration, or take an image that a Debian host \
         has built: `ikv-fabric image export FILE` there, `ikv-fabric image --set \
         image.release=trixie import FILE` here"
    )]
    NotDebian {
        /// The host's distribution, as in `/etc/os-release`.
        host: String,
    },
    /// No source in `/etc/apt` is the Debian archive.
    #[error(
        "{} has no source of Debian {suite} main: add one, or set image.mirror in the \
         configuration",
        folder.display()
    )]
    NoSources {
        /// The folder with apt's configuration.
        folder: PathBuf,
        /// The code name of the wanted release.
        suite: String,
    },
    /// Programs that a build starts are not installed.
    #[error(
        "building the switch image needs {}: `ikv-fabric setup` installs it",
        missing.join(", ")
    )]
    Missing {
        /// The names of the Debian packages that contain them.
        missing: Vec<&'static str>,
    },
    /// A file or folder of the cache could not be used.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// The beginning of the message, such as "cannot create".
        what: &'static str,
        /// The path of the file or folder.
        path: PathBuf,
        /// The error that the system returned.
        source: io::Error,
    },
    /// The disk has less space than a build needs. Found before the build, or when it failed.
    #[error(
        "no room for the switch image: building it takes {needed} for a while, and {} has {left} \
         left; make room there, or set image.dir in the configuration (--set image.dir=FOLDER)",
        folder.display()
    )]
    NoDiskSpace {
        /// The folder of all images.
        folder: PathBuf,
        /// The space that a build needs, such as "600 MiB and 8000 files".
        needed: String,
        /// The free space of the folder's file system, in the same form.
        left: String,
    },
    /// A file is not an image that [`export`](super::export) has written.
    #[error(
        "{} is not an image of `ikv-fabric image export`: {why}; export it again",
        file.display()
    )]
    NotAnImage {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, as a clause.
        why: String,
    },
    /// An image in a file is not what this program would build.
    #[error(
        "the image in {} (recipe {recipe}, Debian {suite}) was built by another version of \
         ikv-fabric, and its switches would not work with this one; export it with the version that \
         `ikv-fabric --version` prints here",
        file.display()
    )]
    OtherRecipe {
        /// The file.
        file: PathBuf,
        /// The hash of its recipe.
        recipe: String,
        /// The code name of its release.
        suite: String,
    },
    /// A program cannot be started.
    #[error("cannot start {program}: {source}; `ikv-fabric setup` installs what is missing")]
    Start {
        /// The name of the program.
        program: &'static str,
        /// The error that the system returned.
        source: io::Error,
    },
    /// The script of the build has failed.
    #[error(
        "building the switch image failed while {stage} ({hint}). The whole log is {}; it ends:\n{tail}",
        log.display()
    )]
    Build {
        /// What the build was doing, such as "installing packages".
        stage: &'static str,
        /// The likely remedy, as a clause.
        hint: &'static str,
        /// The file with the whole output of the build.
        log: PathBuf,
        /// The last lines of the log.
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
