//! The switch image: one read-only root file system for all switches, built once from the
//! host's own apt sources and cached by the hash of its recipe.
//!
//! The recipe is the folder `images/`, embedded in this binary ([`Recipe::embedded`]).
//! [`ensure`] gives the files of the image and builds them first when they are missing:
//! the apt sources of the host narrowed down to the Debian archive, the
//! build in a folder beside the final one, a rename, and the
//! progress read off what the build prints.
//!
//! # How a switch boots
//! QEMU starts `kernel`, an uncompressed ELF with a PVH note, with `initrd` and
//! [`KERNEL_CMDLINE`]. `/init` lays a tmpfs over `root.squashfs` (`/dev/vda`) and unpacks the
//! switch's seed, a tar (`/dev/vdb`), on top; `/usr/lib/ikv/boot` names the NICs and runs the
//! seed's `etc/ikv/network.batch`; busybox init then keeps zebra and bgpd alive, and after the
//! first BGP session (10 s without one at the latest) the guest agent, sshd, dnsmasq, lldpd.
//!
//! Or it does not boot: QEMU restores the state of a template of its shape, saved in the image's
//! folder `states`, in which all that is not a switch's own has been done: the NICs have their names, the programs are in memory,
//! and the guest agent runs. By it the host starts `/usr/lib/ikv/wake`, which unpacks the seed, sets
//! the NICs' MAC addresses, and then starts the services as after a boot. [`crate::template`] tells the host's part.
//!
//! # Under TCG
//! Measured on two cores, in CPU seconds of a leaf with 23 NICs, of which a boot with BGP up
//! takes 3.5 (nine switches: 17 to 20 s if nothing else runs): `acpi=noirq` takes off 2.5 to 3.6
//! (on `-M pc` each device's ACPI interrupt link costs 0.1; `-M q35` with links is 0.5 slower
//! than `pc` without), the uncompressed kernel about 1, the other options of the command line
//! 0.7, `-cpu qemu64` instead of `max` 0.4, starting bgpd from the file instead of by `vtysh -b`
//! 0.8, and the other services after the first session 1.3. What made no difference beyond the
//! noise: lz4, zstd or no compression of the squashfs, `-accel tcg,thread=,tb-size=`,
//! `vectors=0`, `hpet=off`, `+rdrand`.
//!
//! The TSC is no clock there: its calibration goes wrong while nine switches boot, and with
//! `tsc=reliable` guests ran minutes ahead, so that BGP's hold timers expired at random. With
//! `tsc=unstable` they take the HPET, which QEMU runs off the host's clock (and KVM's own clock
//! under KVM); so HPET must stay on.

mod build;
mod error;
mod progress;
mod recipe;
mod room;
mod sources;

use std::path::{Path, PathBuf};

pub use self::error::ImageError;
pub use self::progress::Progress;
pub use self::recipe::Recipe;
use host::program::Program;
use model::config;

/// The kernel command line of every switch; nothing in it is a switch's own.
///
/// `acpi=noirq` leaves ACPI its power switch but takes interrupt routing from the MP table.
/// The guests of a lab hold nothing worth the mitigations' and the zeroing's price, and the
/// rest skips probes of hardware that QEMU does not have.
pub const KERNEL_CMDLINE: &str = "console=ttyS0 quiet panic=1 acpi=noirq mitigations=off \
    nokaslr audit=0 lsm=none init_on_alloc=0 8250.nr_uarts=1 no_timer_check tsc=unstable \
    i8042.noaux i8042.nokbd i8042.nopnp cryptomgr.notests nowatchdog";

/// Programs that a build starts, each with the Debian package it is in; for `setup` and `check`.
pub const BUILD_PROGRAMS: &[Program] = &[
    Program::of("mmdebstrap", "mmdebstrap"),
    Program::of("mksquashfs", "squashfs-tools"),
    Program::of("cpio", "cpio"),
    Program::of("lz4", "lz4"),
    Program::of("zstd", "zstd"),
    Program::of("xz", "xz-utils"),
    Program::of("setpriv", "util-linux"),
];

/// The files of a built image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ImagePaths {
    /// Uncompressed ELF kernel that QEMU starts directly.
    pub kernel: PathBuf,
    /// The initrd.
    pub initrd: PathBuf,
    /// Root file system, read-only.
    pub root: PathBuf,
    /// JSON: recipe, suite, kernel release, and each package's version.
    pub manifest: PathBuf,
}

impl ImagePaths {
    fn in_folder(folder: &Path) -> Self {
        let file = |name| folder.join(name);
        Self {
            kernel: file("kernel"),
            initrd: file("initrd"),
            root: file("root.squashfs"),
            manifest: file("manifest.json"),
        }
    }

    fn all(&self) -> [&Path; 4] {
        [&self.kernel, &self.initrd, &self.root, &self.manifest]
    }

    fn exist(&self) -> bool {
        self.all().iter().all(|path| path.is_file())
    }
}

impl From<ImagePaths> for crate::Image {
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
pub struct Wanted {
    recipe: Recipe,
    suite: String,
    /// Folder of all built images.
    cache: PathBuf,
    mirror: Option<sources::Mirror>,
}

impl Wanted {
    /// From `[image]`, where it says nothing from the host: its Debian release, and
    /// `/var/cache/ikv-fabric` for root, else `$XDG_CACHE_HOME/ikv-fabric`.
    ///
    /// # Errors
    /// When no release is configured and the host is not a Debian, or there is no cache folder.
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
            mirror: config.mirror.clone().map(|uri| sources::Mirror {
                uri,
                security: config.security_mirror.clone(),
            }),
        })
    }

    /// Name of the image's folder: a hash over the recipe, the suite and the architecture.
    pub fn hash(&self) -> String {
        self.recipe.hash(&self.suite)
    }

    /// The image's folder, built or not.
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

/// The image, built first if it is not there. Two that want it at once build it once.
///
/// Dropping the future ends the build and leaves nothing of it but its log.
///
/// # Errors
/// See [`ImageError`].
pub async fn ensure(
    config: &config::Image,
    progress: impl FnMut(Progress),
) -> Result<ImagePaths, ImageError> {
    let wanted = Wanted::new(config)?;
    if let Some(image) = wanted.built() {
        build::used_now(&wanted.folder());
        return Ok(image);
    }
    build::build(&wanted, build::When::Missing, progress).await
}

/// Builds the image anew, also when it is there: the archive may have newer packages.
///
/// # Errors
/// See [`ImageError`].
pub async fn rebuild(
    config: &config::Image,
    progress: impl FnMut(Progress),
) -> Result<ImagePaths, ImageError> {
    build::build(&Wanted::new(config)?, build::When::Always, progress).await
}
