//! The disk space that a build needs, and whether that much is free.

use std::path::Path;
use std::time::Duration;

use super::error::ImageError;

/// The most that a build needs. Measured: 564 MiB and 7326 files.
const NEEDED: DiskSpace = DiskSpace {
    free: 600,
    files: 8000,
};

/// With less than either of these, a file system counts as full.
const LEAST: DiskSpace = DiskSpace {
    free: 16,
    files: 64,
};

/// The message of programs when the disk is full (`ENOSPC`), in the build's locale.
pub(super) const FULL: &str = "No space left on device";

/// The pause between two measurements during a build.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Waits until the folder's file system is full.
pub(super) async fn filled(folder: &Path) {
    while !DiskSpace::of(folder).is_below(LEAST) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The free space of a file system.
#[derive(Debug, Clone, Copy)]
pub(super) struct DiskSpace {
    /// Free space in MiB.
    free: u64,
    /// How many more files can be created; `u64::MAX` if the file system does not count them.
    files: u64,
}

impl DiskSpace {
    /// Measures the folder's file system with statvfs(3). If that fails, assumes that a build fits.
    pub(super) fn of(folder: &Path) -> Self {
        let Ok(left) = rustix::fs::statvfs(folder) else {
            return NEEDED;
        };
        let blocks = if rustix::process::geteuid().is_root() {
            left.f_bfree
        } else {
            left.f_bavail
        };
        Self {
            free: blocks.saturating_mul(left.f_frsize) >> 20,
            // btrfs reports 0 of 0 files.
            files: if left.f_files == 0 {
                u64::MAX
            } else {
                left.f_ffree
            },
        }
    }

    fn is_below(self, other: DiskSpace) -> bool {
        self.free < other.free || self.files < other.files
    }

    /// Refuses a build that would not fit.
    pub(super) fn suffices(self, folder: &Path) -> Result<(), ImageError> {
        if self.is_below(NEEDED) {
            return Err(self.lacking(folder));
        }
        Ok(())
    }

    /// The reason why a build failed: `error`, unless the disk is full, which causes many different
    /// errors. Must be called before anything of the build is removed.
    pub(super) fn blame(self, folder: &Path, error: ImageError) -> ImageError {
        if self.is_below(LEAST) {
            return self.lacking(folder);
        }
        error
    }

    /// The error that a build does not fit.
    pub(super) fn lacking(self, folder: &Path) -> ImageError {
        ImageError::NoDiskSpace {
            folder: folder.into(),
            needed: NEEDED.in_words(),
            left: self.in_words(),
        }
    }

    fn in_words(self) -> String {
        match self.files {
            u64::MAX => format!("{} MiB", self.free),
            files => format!("{} MiB and {files} files", self.free),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: &str = "/cache/image";

    #[test]
    fn a_build_begins_where_there_is_space() {
        let cache = Path::new(CACHE);
        NEEDED.suffices(cache).unwrap();
        let uncounted = DiskSpace {
            files: u64::MAX,
            ..NEEDED
        };
        uncounted.suffices(cache).unwrap();
        for little in [
            DiskSpace {
                free: 599,
                ..NEEDED
            },
            DiskSpace {
                files: 7999,
                ..NEEDED
            },
        ] {
            little.suffices(cache).unwrap_err();
        }
        let full = DiskSpace {
            free: 3,
            ..uncounted
        };
        assert_eq!(
            full.suffices(cache).unwrap_err().to_string(),
            "no room for the switch image: building it takes 600 MiB and 8000 files for a while, \
             and /cache/image has 3 MiB left; make room there, or set image.dir in the \
             configuration (--set image.dir=FOLDER)"
        );
    }

    #[test]
    fn a_full_disk_is_blamed_and_nothing_else_is() {
        let refused = || ImageError::NoCacheFolder;
        let cache = Path::new(CACHE);
        let blamed = LEAST.blame(cache, refused());
        assert!(matches!(blamed, ImageError::NoCacheFolder), "{blamed}");
        for left in [
            DiskSpace { free: 3, ..NEEDED },
            DiskSpace { files: 3, ..NEEDED },
        ] {
            let blamed = left.blame(cache, refused());
            assert!(matches!(blamed, ImageError::NoDiskSpace { .. }), "{blamed}");
        }
    }

    #[test]
    fn the_kernel_is_asked() {
        let here = DiskSpace::of(&std::env::temp_dir());
        assert!(here.free > 0 && here.files > 0, "{here:?}");
        let nowhere = DiskSpace::of(Path::new("/nonexistent"));
        nowhere.suffices(Path::new(CACHE)).unwrap();
    }
}
