//! What a build takes of a file system, and whether that is there.

use std::path::Path;
use std::time::Duration;

use super::ImageError;

/// What a build takes at most, MiB and files: 564 and 7326 were seen.
const NEEDED: Room = Room {
    free: 600,
    files: 8000,
};

/// Below this, in either, a file system is full.
const LEAST: Room = Room {
    free: 16,
    files: 64,
};

/// What programs say of a full one (`ENOSPC`), in the locale that the build runs in.
pub(super) const FULL: &str = "No space left on device";

/// Between two looks at the room that a running build has left.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Waits until the folder's file system is full.
pub(super) async fn filled(folder: &Path) {
    while !Room::of(folder).is_below(LEAST) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What a file system has left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// MiB.
    free: u64,
    /// Files that can still be made; the highest number where they are not counted.
    files: u64,
}

impl Room {
    /// As statvfs(3) tells of the folder's file system. Where it does not, there is enough.
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
            // btrfs counts none.
            files: if left.f_files == 0 {
                u64::MAX
            } else {
                left.f_ffree
            },
        }
    }

    fn is_below(self, other: Room) -> bool {
        self.free < other.free || self.files < other.files
    }

    /// There is enough for a build to begin.
    pub(super) fn suffices(self, folder: &Path) -> Result<(), ImageError> {
        if self.is_below(NEEDED) {
            return Err(self.lacking(folder));
        }
        Ok(())
    }

    /// What made a build fail, by what is left before anything of it is removed: a full disk
    /// shows in many ways.
    pub(super) fn blame(self, folder: &Path, error: ImageError) -> ImageError {
        if self.is_below(LEAST) {
            return self.lacking(folder);
        }
        error
    }

    /// A build does not fit in.
    pub(super) fn lacking(self, folder: &Path) -> ImageError {
        ImageError::NoRoom {
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
    fn a_build_begins_where_there_is_room() {
        let cache = Path::new(CACHE);
        NEEDED.suffices(cache).unwrap();
        let uncounted = Room {
            files: u64::MAX,
            ..NEEDED
        };
        uncounted.suffices(cache).unwrap();
        for little in [
            Room {
                free: 599,
                ..NEEDED
            },
            Room {
                files: 7999,
                ..NEEDED
            },
        ] {
            little.suffices(cache).unwrap_err();
        }
        let full = Room {
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
        for room in [Room { free: 3, ..NEEDED }, Room { files: 3, ..NEEDED }] {
            let blamed = room.blame(cache, refused());
            assert!(matches!(blamed, ImageError::NoRoom { .. }), "{blamed}");
        }
    }

    #[test]
    fn the_kernel_is_asked() {
        let here = Room::of(&std::env::temp_dir());
        assert!(here.free > 0 && here.files > 0, "{here:?}");
        let nowhere = Room::of(Path::new("/nonexistent"));
        nowhere.suffices(Path::new(CACHE)).unwrap();
    }
}
