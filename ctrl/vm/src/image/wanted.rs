//! Which image a configuration asks for, and the paths of its files.

use std::path::{Path, PathBuf};

use host::rootless::is_root_of_host;
use model::config::{self, Config, Memory};

use super::disk_space::DiskSpace;
use super::error::ImageError;
use super::recipe::Recipe;
use super::sources::{self, Mirror};
use crate::states;

/// Root's cache.
const OF_ROOT: &str = "/var/cache/ikv-fabric";

/// The files of a built image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ImagePaths {
    /// The kernel, an uncompressed ELF that QEMU starts directly.
    pub kernel: PathBuf,
    /// The first root file system, which the kernel keeps in memory (cpio).
    pub initrd: PathBuf,
    /// The root file system, a read-only squashfs.
    pub root: PathBuf,
    /// A JSON file with recipe, suite, kernel release, and the version of each package.
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

/// The code name of Debian 12, whose FRR is version 8.
const WITH_FRR_8: &str = "bookworm";

/// Memory of a switch of this configuration. Unless the configuration says otherwise, it depends on
/// the FRR in the image: leaf2 of the default fabric, with its 177 interfaces, stopped answering with
/// FRR 10 in 192 MiB.
pub fn switch_memory(config: &Config) -> Memory {
    config.vm.memory.unwrap_or_else(|| {
        let image = WantedImage::new(&config.image);
        let with_frr_8 = image.is_ok_and(|image| image.suite == WITH_FRR_8);
        Memory::from_mib(if with_frr_8 { 192 } else { 320 })
    })
}

/// The image that a configuration asks for, and its path, whether or not it is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedImage {
    pub(super) recipe: Recipe,
    /// The code name of the Debian release.
    pub(super) suite: String,
    /// The folder of all built images.
    pub(super) cache: PathBuf,
    /// Where root's images are, which other users start from too.
    pub(super) of_root: Option<PathBuf>,
    pub(super) mirror: Option<Mirror>,
}

impl WantedImage {
    /// The image for `[image]` of the configuration. By default the release is the host's, and the
    /// folder is `/var/cache/ikv-fabric` for root, otherwise `$XDG_CACHE_HOME/ikv-fabric`. Others use
    /// root's image, too, as long as they have built none.
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
        let of_root = config.dir.is_none() && !is_root_of_host();
        Ok(Self {
            recipe: Recipe::embedded(),
            suite,
            cache: dir.ok_or(ImageError::NoCacheFolder)?.join("image"),
            of_root: of_root.then(|| Path::new(OF_ROOT).join("image")),
            mirror: config.mirror.clone().map(|uri| Mirror {
                uri,
                security: config.security_mirror.clone(),
            }),
        })
    }

    /// The code name of its Debian release.
    pub fn suite(&self) -> &str {
        &self.suite
    }

    /// The name of the image's folder: a hash over the recipe, the release and the architecture, 16
    /// hexadecimal digits long.
    pub fn hash(&self) -> String {
        self.recipe.hash(&self.suite)
    }

    /// The image's folder. It exists only once the image is built, or a state was saved of root's.
    pub fn folder(&self) -> PathBuf {
        self.cache.join(self.hash())
    }

    /// The folder of the states that this user saves of the image.
    pub fn states(&self) -> PathBuf {
        self.folder().join(states::FOLDER)
    }

    /// The files of the image. `None` if it has not been built.
    pub fn built(&self) -> Option<ImagePaths> {
        let of_root = self.of_root.iter().map(|images| images.join(self.hash()));
        let mut folders = std::iter::once(self.folder()).chain(of_root);
        folders.find_map(|folder| Some(ImagePaths::in_folder(&folder)).filter(ImagePaths::exist))
    }

    /// Whether there is room to build the image, unless it is built.
    ///
    /// # Errors
    /// [`ImageError::NoDiskSpace`]
    pub fn has_room(&self) -> Result<(), ImageError> {
        if self.built().is_some() {
            return Ok(());
        }
        // The folder is made by the build, on the file system of the one above it.
        let mut above = self.cache.ancestors();
        let there = above.find(|folder| folder.exists());
        DiskSpace::of(there.unwrap_or(&self.cache)).suffices(&self.cache)
    }
}

fn default_cache() -> Option<PathBuf> {
    if is_root_of_host() {
        return Some(OF_ROOT.into());
    }
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("ikv-fabric"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_gets_the_memory_that_its_frr_needs_unless_configured_otherwise() {
        for (set, mib) in [
            ("image.release = \"bookworm\"", 192),
            ("image.release = \"trixie\"", 320),
            ("image.release = \"trixie\"\nvm.memory = \"256M\"", 256),
        ] {
            let config = config::parse("f.toml", &format!("{set}\n"), &[]).unwrap();
            assert_eq!(switch_memory(&config).mib(), mib, "{set}");
        }
    }
}
