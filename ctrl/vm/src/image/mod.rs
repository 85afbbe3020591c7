//! The switch image: one read-only root file system for all switches, built once from the
//! host's own apt sources and cached by the hash of its recipe.
//!
//! The recipe is the folder `images/`, embedded in this binary. [`ensure`] returns the files of the
//! image and builds them first if they are missing: it selects the Debian archive's entries from
//! the host's apt sources, builds in a folder beside the final one, reads the progress from the
//! build's output, and renames the folder.
//!
//! # How a switch boots
//! QEMU starts `kernel`, an uncompressed ELF with a PVH note, with `initrd` and
//! [`KERNEL_CMDLINE`]. `/init` lays a tmpfs over `root.squashfs` (`/dev/vda`) and unpacks the
//! switch's seed, a tar (`/dev/vdb`), on top; `/usr/lib/ikv/boot` names the NICs and runs the
//! seed's `etc/ikv/network.batch`; busybox init then keeps zebra and bgpd alive, and after the
//! first BGP session (10 s without one at the latest) the guest agent, sshd, dnsmasq, lldpd.
//!
//! Under TCG a switch does not boot. QEMU restores the saved state of a template of its shape, from
//! the image's folder `states`. In the template everything has been done that is the same for all
//! switches: the NICs have their names, the programs are in memory, and the guest agent runs. Through
//! the agent the host starts `/usr/lib/ikv/wake`, which unpacks the seed, sets the NICs' MAC
//! addresses, and then starts the services as after a boot. [`crate::template`] has the host's part.
//!
//! # Under TCG
//! Measured on two cores, in CPU seconds of a leaf with 23 NICs, of which a boot with BGP up
//! takes 3.5 (nine switches: 17 to 20 s if nothing else runs): `acpi=noirq` saves 2.5 to 3.6
//! (on `-M pc` each device's ACPI interrupt link costs 0.1; `-M q35` with links is 0.5 slower
//! than `pc` without), the uncompressed kernel about 1, the other options of the command line
//! 0.7, `-cpu qemu64` instead of `max` 0.4, starting bgpd from the file instead of by `vtysh -b`
//! 0.8, and the other services after the first session 1.3. These made no measurable
//! difference: lz4, zstd or no compression of the squashfs, `-accel tcg,thread=,tb-size=`,
//! `vectors=0`, `hpet=off`, `+rdrand`.
//!
//! The TSC cannot serve as a clock there: its calibration fails while nine switches boot, and with
//! `tsc=reliable` guests ran minutes ahead, so that BGP's hold timers expired at random. With
//! `tsc=unstable` they take the HPET, which QEMU runs off the host's clock (and KVM's own clock
//! under KVM); so HPET must stay on.

mod apt;
mod archive;
mod build;
mod cache;
mod disk_space;
mod error;
mod progress;
mod recipe;
mod sources;
mod wanted;

pub use self::archive::{Imported, export, import};
pub use self::build::BUILD_PROGRAMS;
pub use self::error::ImageError;
pub use self::progress::Progress;
pub use self::wanted::{ImagePaths, WantedImage, switch_memory};
use model::config;

/// The kernel command line, the same for every switch.
///
/// `acpi=noirq` leaves ACPI its power switch but takes interrupt routing from the MP table.
/// The guests of a lab hold no secrets that would justify the cost of mitigations and of zeroing
/// memory. The other options skip probes of hardware that QEMU does not have.
pub const KERNEL_CMDLINE: &str = "console=ttyS0 quiet panic=1 acpi=noirq mitigations=off \
    nokaslr audit=0 lsm=none init_on_alloc=0 8250.nr_uarts=1 no_timer_check tsc=unstable \
    i8042.noaux i8042.nokbd i8042.nopnp cryptomgr.notests nowatchdog";

/// Returns the image, building it first if it does not exist. Two callers at the same time build it
/// once.
///
/// Dropping the future ends the build and removes all of it but its log.
///
/// # Errors
/// See [`ImageError`].
pub async fn ensure(
    config: &config::Image,
    on_progress: impl FnMut(Progress),
) -> Result<ImagePaths, ImageError> {
    let wanted = WantedImage::new(config)?;
    if let Some(image) = wanted.built() {
        cache::used_now(&wanted.folder());
        return Ok(image);
    }
    build::build(&wanted, build::When::Missing, on_progress).await
}

/// Builds the image even if it exists, because the archive may have newer packages.
///
/// # Errors
/// See [`ImageError`].
pub async fn rebuild(
    config: &config::Image,
    on_progress: impl FnMut(Progress),
) -> Result<ImagePaths, ImageError> {
    build::build(&WantedImage::new(config)?, build::When::Always, on_progress).await
}
