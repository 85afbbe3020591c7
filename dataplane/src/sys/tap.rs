//! Tap devices: the ioctls of `linux/if_tun.h`.
//!
//! A tap is a network device whose cable end is a file descriptor. This module creates one or
//! attaches to one that exists, and sets what only an ioctl can set; everything else about the
//! device (MTU, flags, addresses) goes by netlink.

use std::fs::OpenOptions;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::pool::Segment;
use super::{MAX_VECTORS, VNET_HEADER_LEN, vector_over};

/// Longest name of a network device, without the closing NUL (`IFNAMSIZ` - 1).
pub const NAME_MAX: usize = libc::IFNAMSIZ - 1;

/// Size in bytes of the virtio-net header with `num_buffers`, as virtio 1.x and QEMU use it.
pub const VNET_HDR_MRG_SIZE: usize = 12;

/// How [`open_tap`] opens the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TapFlags {
    /// Each frame is preceded by a virtio-net header (`IFF_VNET_HDR`): offloads can pass.
    pub vnet_hdr: bool,
    /// The device must not exist yet (`IFF_TUN_EXCL`); the kernel answers `EBUSY` if it does.
    pub exclusive: bool,
    /// Reads and writes never block (`O_NONBLOCK`).
    pub nonblocking: bool,
    /// The device has several queues, a descriptor each (`IFF_MULTI_QUEUE`). All who open it have to
    /// say so, or none.
    pub multi_queue: bool,
}

/// What the reader of the tap can take in one frame beyond plain, checksummed Ethernet
/// (`TUN_F_*`; virtio-net's `GUEST_*` features). Nothing set: every frame read is as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TapOffloads {
    /// Checksums may be left to the receiver. Everything below needs it.
    pub checksum: bool,
    /// TCP over IPv4 super-frames.
    pub tso4: bool,
    /// TCP over IPv6 super-frames.
    pub tso6: bool,
    /// TCP super-frames that carry ECN's CWR.
    pub tso_ecn: bool,
    /// UDP super-frames over IPv4 and IPv6 (kernel 6.2 and later; they come as a pair).
    pub uso: bool,
}

impl TapOffloads {
    /// Every offload that kernels since 2.6.27 know.
    pub const TCP: Self = Self {
        checksum: true,
        tso4: true,
        tso6: true,
        tso_ecn: true,
        uso: false,
    };

    fn bits(self) -> libc::c_ulong {
        let mut bits = 0;
        for (set, bit) in [
            (self.checksum, libc::TUN_F_CSUM),
            (self.tso4, libc::TUN_F_TSO4),
            (self.tso6, libc::TUN_F_TSO6),
            (self.tso_ecn, libc::TUN_F_TSO_ECN),
            (self.uso, libc::TUN_F_USO4 | libc::TUN_F_USO6),
        ] {
            if set {
                bits |= bit;
            }
        }
        libc::c_ulong::from(bits)
    }
}

/// Opens the tap `name` in this thread's network namespace, creating it if it does not exist.
///
/// A device created here goes away with the last descriptor unless [`set_persistent`] is called.
///
/// # Errors
/// `InvalidInput` if no device can have the name; otherwise the kernel's error: `EBUSY` if another
/// process holds the tap (or, with `exclusive`, if the device exists), `EINVAL` if a device of
/// this name is not a tap, or has several queues and `flags` does not say so, `EPERM` without `CAP_NET_ADMIN` on a tap of another owner.
pub fn open_tap(name: &str, flags: TapFlags) -> io::Result<OwnedFd> {
    let mut request = request_for(name)?;
    let mut bits = libc::IFF_TAP | libc::IFF_NO_PI;
    if flags.vnet_hdr {
        bits |= libc::IFF_VNET_HDR;
    }
    if flags.exclusive {
        bits |= libc::IFF_TUN_EXCL;
    }
    if flags.multi_queue {
        bits |= libc::IFF_MULTI_QUEUE;
    }
    // The flag word is 16 bits wide and IFF_TUN_EXCL is its top bit.
    request.ifr_ifru.ifru_flags = bits as libc::c_short;

    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(if flags.nonblocking {
            libc::O_NONBLOCK
        } else {
            0
        })
        .open("/dev/net/tun")?;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is, alive for the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(file.into())
}

/// Keeps the device when the last descriptor is closed (or stops keeping it).
///
/// # Errors
/// Only if `tap` is not an attached tap descriptor.
pub fn set_persistent(tap: impl AsFd, keep: bool) -> io::Result<()> {
    set_value(tap.as_fd(), libc::TUNSETPERSIST, libc::c_ulong::from(keep))
}

/// Lets processes of the user `uid` open the device without `CAP_NET_ADMIN`.
///
/// # Errors
/// `EINVAL` if `uid` does not exist in this user namespace.
pub fn set_owner(tap: impl AsFd, uid: u32) -> io::Result<()> {
    set_value(tap.as_fd(), libc::TUNSETOWNER, libc::c_ulong::from(uid))
}

/// Lets members of the group `gid` open the device without `CAP_NET_ADMIN`. If it has an owner too,
/// the kernel asks for both.
///
/// # Errors
/// `EINVAL` if `gid` does not exist in this user namespace.
pub fn set_group(tap: impl AsFd, gid: u32) -> io::Result<()> {
    set_value(tap.as_fd(), libc::TUNSETGROUP, libc::c_ulong::from(gid))
}

/// Sets which offloads the reader takes; the host's stack segments and checksums all other frames
/// before it sends them.
///
/// # Errors
/// `EINVAL` if the kernel does not know one of the offloads, or TSO is asked without checksums.
pub fn set_offload(tap: impl AsFd, offloads: TapOffloads) -> io::Result<()> {
    set_value(tap.as_fd(), libc::TUNSETOFFLOAD, offloads.bits())
}

/// Sets the carrier: without it the device reports `NO-CARRIER`, like a cable pulled.
///
/// # Errors
/// `ENETDOWN` while the device is down; `ENOTTY` on kernels before 5.0.
pub fn set_carrier(tap: impl AsFd, up: bool) -> io::Result<()> {
    let value = libc::c_int::from(up);
    // SAFETY: TUNSETCARRIER reads one int, which `value` is, alive for the call.
    check(unsafe {
        libc::ioctl(
            tap.as_fd().as_raw_fd(),
            libc::TUNSETCARRIER,
            &raw const value,
        )
    })
}

/// Sets the size in bytes of the virtio-net header before each frame: 10, or
/// [`VNET_HDR_MRG_SIZE`].
///
/// # Errors
/// `EINVAL` if `size` is below 10.
pub fn set_vnet_hdr_size(tap: impl AsFd, size: usize) -> io::Result<()> {
    let value =
        libc::c_int::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which `value` is, alive for the call.
    check(unsafe {
        libc::ioctl(
            tap.as_fd().as_raw_fd(),
            libc::TUNSETVNETHDRSZ,
            &raw const value,
        )
    })
}

/// The size in bytes of the virtio-net header before each frame (10 when freshly opened).
///
/// # Errors
/// Only if `tap` is not an attached tap descriptor.
pub fn vnet_hdr_size(tap: impl AsFd) -> io::Result<usize> {
    let mut value: libc::c_int = 0;
    // SAFETY: TUNGETVNETHDRSZ writes one int, which `value` is, alive for the call.
    check(unsafe {
        libc::ioctl(
            tap.as_fd().as_raw_fd(),
            libc::TUNGETVNETHDRSZ,
            &raw mut value,
        )
    })?;
    usize::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// Makes the fields of the virtio-net header little-endian as virtio 1.x says, whatever the
/// host's byte order. On a little-endian host this changes nothing.
///
/// # Errors
/// Only if `tap` is not an attached tap descriptor.
pub fn set_vnet_little_endian(tap: impl AsFd) -> io::Result<()> {
    let value: libc::c_int = 1;
    // SAFETY: TUNSETVNETLE reads one int, which `value` is, alive for the call.
    check(unsafe {
        libc::ioctl(
            tap.as_fd().as_raw_fd(),
            libc::TUNSETVNETLE,
            &raw const value,
        )
    })
}

/// Most vectors that [`read_frame`] reads into.
pub(crate) const MAX_READ_VECTORS: usize = 64;

/// Memory that the kernel may write a part of a frame to.
pub(crate) struct ReadVector(libc::iovec);

impl ReadVector {
    /// # Safety
    /// `len` bytes at `start` must be mapped until the read, and their owner must expect that they
    /// change.
    pub(crate) unsafe fn new(start: *mut u8, len: usize) -> Self {
        ReadVector(libc::iovec {
            iov_base: start.cast(),
            iov_len: len,
        })
    }
}

/// Reads one frame: its virtio-net header, and the frame into the vectors, at most
/// [`MAX_READ_VECTORS`] of them. Returns the frame's length in bytes.
///
/// # Errors
/// What readv(2) says: `EAGAIN` when none waits.
pub(crate) fn read_frame(
    tap: BorrowedFd<'_>,
    header: &mut [u8; VNET_HEADER_LEN],
    into: impl Iterator<Item = ReadVector>,
) -> io::Result<usize> {
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_READ_VECTORS + 1];
    vectors[0].write(libc::iovec {
        iov_base: header.as_mut_ptr().cast(),
        iov_len: VNET_HEADER_LEN,
    });
    let mut count = 1;
    for (vector, ReadVector(part)) in vectors[1..].iter_mut().zip(into) {
        vector.write(part);
        count += 1;
    }
    loop {
        // SAFETY: `count` vectors are initialised: over the header, which is borrowed, and
        // over memory that may be written to, as each vector promises.
        let read = unsafe { libc::readv(tap.as_raw_fd(), vectors.as_ptr().cast(), count) };
        if let Ok(read) = usize::try_from(read) {
            return Ok(read.saturating_sub(VNET_HEADER_LEN));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Hands one frame to the device: its virtio-net header, and the segments that it lies in, fewer
/// than [`MAX_VECTORS`].
///
/// # Errors
/// What writev(2) says: `EIO` while the device is down.
pub(crate) fn write_frame(
    tap: BorrowedFd<'_>,
    header: &[u8; VNET_HEADER_LEN],
    segments: &[Segment],
) -> io::Result<()> {
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_VECTORS];
    assert!(
        segments.len() < vectors.len(),
        "a frame has at most MAX_VECTORS - 1 segments"
    );
    vectors[0].write(vector_over(header));
    for (vector, segment) in vectors[1..].iter_mut().zip(segments) {
        vector.write(segment.io_vector());
    }
    let count = libc::c_int::try_from(1 + segments.len()).expect("at most MAX_VECTORS");
    loop {
        // SAFETY: `count` vectors are initialised: over the header, and over
        // segments, which are readable by their own promise. writev only reads from them, and what
        // a guest unmapped under us is an EFAULT.
        let written = unsafe { libc::writev(tap.as_raw_fd(), vectors.as_ptr().cast(), count) };
        if written >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The name the attached device has now; it may have been renamed or moved to another network
/// namespace since it was opened.
///
/// # Errors
/// Only if `tap` is not an attached tap descriptor (`EBADFD` once the device was deleted).
pub fn name(tap: impl AsFd) -> io::Result<String> {
    let mut request = empty_request();
    // SAFETY: TUNGETIFF writes one `ifreq`, which `request` is, alive for the call.
    check(unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    let bytes: Vec<u8> = request
        .ifr_name
        .iter()
        .take_while(|c| **c != 0)
        .map(|c| c.cast_unsigned())
        .collect();
    String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// An ioctl whose argument is the value itself.
fn set_value(tap: BorrowedFd<'_>, request: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the callers pass requests whose argument is a plain number, not an address.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), request, value) })
}

fn request_for(name: &str) -> io::Result<libc::ifreq> {
    let fits = !name.is_empty() && name.len() <= NAME_MAX && name != "." && name != "..";
    // A `%d` would make the kernel pick a number, and so another name than the one asked for.
    let legal = name
        .bytes()
        .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'%' | b':'));
    if !fits || !legal {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "`{name}` cannot name a network device: 1 to {NAME_MAX} letters, digits, `-`, `.`, `_`"
            ),
        ));
    }
    let mut request = empty_request();
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn empty_request() -> libc::ifreq {
    // SAFETY: `ifreq` is plain numbers and pointers, for all of which zero is a valid value.
    unsafe { std::mem::zeroed() }
}

fn check(returned: libc::c_int) -> io::Result<()> {
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_would_change_or_refuse_are_refused_first() {
        for bad in [
            "",
            ".",
            "..",
            "tap%d",
            "a/b",
            "a b",
            "a:b",
            "sixteen-letters0",
            "é",
        ] {
            let error = open_tap(bad, TapFlags::default()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad}");
        }
        assert!(request_for("ikvm1-3-1").is_ok());
        assert!(request_for("fifteen-letters").is_ok());
    }

    #[test]
    fn offload_bits_are_those_of_if_tun() {
        assert_eq!(TapOffloads::default().bits(), 0);
        assert_eq!(TapOffloads::TCP.bits(), 0x0f);
        assert_eq!(
            TapOffloads {
                checksum: true,
                uso: true,
                ..Default::default()
            }
            .bits(),
            0x61
        );
    }

    #[test]
    fn a_descriptor_of_another_kind_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        assert!(set_persistent(&file, true).is_err());
        assert!(set_carrier(&file, true).is_err());
        assert!(name(&file).is_err());
    }
}
