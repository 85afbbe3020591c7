//! Which image a configuration asks for, and where its files are or will be.

use std::path::{Path, PathBuf};

use model::config;

use super::error::ImageError;
use super::recipe::Recipe;
use super::sources::{self, Mirror};

/// The files of a built image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ImagePaths {
    /// Uncompressed ELF kernel that QEMU starts directly.
    pub kernel: PathBuf,
    /// First root file system, in memory (cpio).
    pub initrd: PathBuf,
    /// Root file system, a read-only squashfs.
    pub root: PathBuf,
    /// JSON: recipe, suite, kernel release, and each package's version.
    pub manifest: PathBuf,
}

impl ImagePaths {
    pub(super) fn in_folder(folder: &Path) -> Self {
        let file = |name| folder.join(name);
        Self {
            kernel: file("kernel"),
            initrd: file("initrd"),
            root: file("root.squashfs"),
            manifest: file("manifest.json"),
        }
    }

    pub(super) fn all(&self) -> [&Path; 4] {
        [&self.kernel, &self.initrd, &self.root, &self.manifest]
    }

    fn exist(&self) -> bool {
        self.all().iter().all(|path| path.is_file())
    }
}

impl From<ImagePaths> for crate::spec::Image {
    fn from(paths: ImagePaths) -> Self {
        Self {
            kernel: paths.kernel,
            initrd: paths.initrd,
            rootfs: paths.root,
        }
    }
}

/// Which image, and where it is or will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedImage {
    pub(super) recipe: Recipe,
    /// Code name of the Debian release.
    pub(super) suite: String,
    /// Folder of all built images.
    pub(super) cache: PathBuf,
    pub(super) mirror: Option<Mirror>,
}

impl WantedImage {
    /// From `[image]` of the configuration. By default the release is the host's, and the folder
    /// `/var/cache/ikv-fabric` for root, otherwise `$XDG_CACHE_HOME/ikv-fabric`.
    ///
    /// # Errors
    /// When no release is configured and the host does not run Debian, or when there is no folder to
    /// cache in.
    pub fn new(config: &config::Image) -> Result<Self, ImageError> {
        let suite = match &config.release {
            Some(release) => release.clone(),
            None => sources::host_release()?,
        };
        let dir = config.dir.clone().or_else(default_cache);
        Ok(Self {
            recipe: Recipe::embedded(),
            suite,
            cache: dir.ok_or(ImageError::NoCacheFolder)?.join("image"),
            mirror: config.mirror.clone().map(|uri| Mirror {
                uri,
                security: config.security_mirror.clone(),
            }),
        })
    }

    /// Name of the image's folder: a hash over the recipe, the release and the architecture, in 16
    /// hexadecimal digits.
    pub fn hash(&self) -> String {
        self.recipe.hash(&self.suite)
    }

    /// The image's folder, which exists once the image is built.
    pub fn folder(&self) -> PathBuf {
        self.cache.join(self.hash())
    }

    /// The image, if it has been built.
    pub fn built(&self) -> Option<ImagePaths> {
        Some(ImagePaths::in_folder(&self.folder())).filter(ImagePaths::exist)
    }
}

fn default_cache() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some("/var/cache/ikv-fabric".into());
    }
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("ikv-fabric"))
}
