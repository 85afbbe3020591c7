//! Packet sockets (packet(7)) with virtio-net headers: an existing network device as a port.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::pool::Segment;
use super::{MAX_VECTORS, VNET_HEADER_LEN, vector_over};

/// Bytes that may wait in the kernel on the way in, and again on the way out: 60
/// super-frames, or 10 ms of 64-byte frames at the rate a socket can take. In a user namespace the
/// kernel gives no more than `net.core.rmem_max` and `wmem_max`, by default 208 KiB: a burst of more
/// than three super-frames, or half a millisecond of 64-byte frames, is then dropped.
const BUFFER_BYTES: libc::c_int = 4 << 20;

/// From `linux/if_packet.h`; the libc crate lacks it.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// Most frames that are received or sent in one call.
pub(crate) const MAX_MESSAGES: usize = 64;

/// What the kernel says about a frame that it received.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Received {
    /// Of the virtio-net header and the frame.
    pub(crate) bytes: usize,
    /// The frame was longer than the memory that was offered.
    pub(crate) is_truncated: bool,
    /// The tag that the kernel took out of the frame.
    pub(crate) vlan: Option<VlanTag>,
}

/// An 802.1Q tag that the kernel stripped into metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VlanTag {
    pub(crate) tpid: u16,
    pub(crate) tci: u16,
}

/// Room for one PACKET_AUXDATA control message, aligned as `cmsghdr` wants it.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Control(#[expect(dead_code, reason = "the kernel's to write")] [u8; Control::LEN]);

impl Control {
    // SAFETY: CMSG_SPACE only computes a length from its argument.
    const LEN: usize =
        unsafe { libc::CMSG_SPACE(size_of::<libc::tpacket_auxdata>() as u32) } as usize;
}

/// The mark of every frame that leaves by a socket of [`open`] (SO_MARK), by which rules of the host tell
/// the fabric's frames from those of its own stack. It stays on this machine.
pub const FRAME_MARK: u32 = 0x696b_6662;

/// Opens a packet socket on the network device with index `ifindex`: it receives every
/// frame that enters the device, of whatever protocol, and none that leaves it.
///
/// The device may be down: frames come once it is up.
///
/// What is sent goes straight to the device, past its queueing discipline: that way the
/// kernel reports whether the device took it. It does not segment on that way, though: a
/// super-frame that the device does not take whole is refused, and the caller has to cut it.
///
/// # Errors
/// `EPERM` without CAP_NET_RAW, `ENODEV` when the device does not exist, and `ENOPROTOOPT`
/// on kernels older than 4.20.
pub fn open(ifindex: u32) -> io::Result<OwnedFd> {
    let socket = unbound()?;
    for (level, name, value) in [
        (libc::SOL_PACKET, libc::PACKET_AUXDATA, 1),
        (libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1),
        (libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1),
        (libc::SOL_SOCKET, libc::SO_MARK, FRAME_MARK.cast_signed()),
    ] {
        set_option(&socket, level, name, value)?;
    }
    set_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
    bind(&socket, ifindex, libc::ETH_P_ALL as u16)?;
    Ok(socket)
}

/// With protocol 0 a socket receives nothing until it is bound: no frame of another device slips in.
fn unbound() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: takes three numbers and returns a descriptor or -1.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: `fd` was just opened and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };

    set_option(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
    set_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?;
    Ok(socket)
}

/// Makes room for [`BUFFER_BYTES`]: past the system's limit, or up to it where that takes
/// CAP_NET_ADMIN over the whole machine and this process has it in its own namespace alone.
fn set_buffer(socket: &OwnedFd, past: libc::c_int, up_to: libc::c_int) -> io::Result<()> {
    match set_option(socket, libc::SOL_SOCKET, past, BUFFER_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            set_option(socket, libc::SOL_SOCKET, up_to, BUFFER_BYTES)
        }
        other => other,
    }
}

fn bind(socket: &OwnedFd, ifindex: u32, protocol: u16) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = ifindex.cast_signed();
    // SAFETY: the address is a live sockaddr_ll and its own size is given.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        )
    })
    .map(|_| ())
}

/// Receives frames, without waiting, into the vacant places: each a virtio-net header, and memory
/// for the longest frame. `received` bounds how many and says of each what came. Returns how many
/// came: fewer than `received` has room for when no more were there.
///
/// # Errors
/// What recvmmsg(2) says; nothing waiting is `Ok(0)`.
pub(crate) fn receive<'v>(
    socket: BorrowedFd<'_>,
    vacant: impl Iterator<Item = (&'v mut [u8; VNET_HEADER_LEN], &'v mut [u8])>,
    received: &mut [Received],
) -> io::Result<usize> {
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; MAX_MESSAGES];
    let mut vectors = [const { MaybeUninit::<[libc::iovec; 2]>::uninit() }; MAX_MESSAGES];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_MESSAGES];
    let mut offered = 0;
    for (header, memory) in vacant.take(received.len().min(MAX_MESSAGES)) {
        let parts = vectors[offered].write([
            libc::iovec {
                iov_base: header.as_mut_ptr().cast(),
                iov_len: VNET_HEADER_LEN,
            },
            libc::iovec {
                iov_base: memory.as_mut_ptr().cast(),
                iov_len: memory.len(),
            },
        ]);
        let mut message = message(parts.as_mut_ptr(), parts.len());
        message.msg_hdr.msg_control = controls[offered].as_mut_ptr().cast();
        message.msg_hdr.msg_controllen = Control::LEN as _;
        messages[offered].write(message);
        offered += 1;
    }

    // SAFETY: the first `offered` messages are initialised. Each points to its own control
    // buffer, which is big enough, and to an iovec pair whose two parts are a header and the
    // memory beside it, given with its length. All are borrowed mutably, for a lifetime that
    // does not end before this function, so they do not overlap and nothing else refers to them.
    let count = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr().cast(),
            offered as u32,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut(),
        )
    };
    let count = match check(count) {
        Ok(count) => count.cast_unsigned() as usize,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
        Err(error) => return Err(error),
    };
    for (message, received) in messages[..count].iter().zip(received) {
        // SAFETY: written above, and by the kernel since.
        let message = unsafe { message.assume_init_ref() };
        *received = Received {
            bytes: message.msg_len as usize,
            is_truncated: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            // SAFETY: the kernel filled in this message's control buffer and its length.
            vlan: unsafe { stripped_tag(&message.msg_hdr) },
        };
    }
    Ok(count)
}

/// Sends frames, each a virtio-net header and the segments that it lies in, fewer than
/// [`MAX_VECTORS`]. Returns how many the device took; fewer than there are when the one behind them
/// was refused, or when they lie in very many segments.
///
/// # Errors
/// Why the very first one was refused.
pub(crate) fn send<'f>(
    socket: BorrowedFd<'_>,
    frames: impl Iterator<Item = (&'f [u8; VNET_HEADER_LEN], &'f [Segment])>,
) -> io::Result<usize> {
    // For all frames together: two for each of a burst of plain ones, and what one may need.
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_VECTORS];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_MESSAGES];
    let (mut count, mut used) = (0, 0);
    for (header, segments) in frames.take(MAX_MESSAGES) {
        let Some(parts) = vectors.get_mut(used..used + 1 + segments.len()) else {
            break;
        };
        used += parts.len();
        let (first, rest) = parts.split_first_mut().expect("one more than segments");
        first.write(vector_over(header));
        for (part, segment) in rest.iter_mut().zip(segments) {
            part.write(segment.io_vector());
        }
        messages[count].write(message(parts.as_mut_ptr().cast(), parts.len()));
        count += 1;
    }
    // SAFETY: the first `count` messages are initialised, and each points to as many
    // initialised io vectors as it says, over a header that is borrowed and segments that are
    // readable by their own promise; sendmmsg only reads from them, and a segment that a guest
    // unmapped under us is an EFAULT.
    let sent = check(unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr().cast(),
            count as u32,
            libc::MSG_DONTWAIT as _,
        )
    })?;
    Ok(sent.cast_unsigned() as usize)
}

/// Frames that the kernel dropped since the last call because the socket's buffer was full.
///
/// # Errors
/// Only if `socket` is not a packet socket.
pub(crate) fn overruns(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut stats = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: `stats` is a live tpacket_stats and `length` its size.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut length,
        )
    })?;
    Ok(u64::from(stats.tp_drops))
}

/// Whether the device `name` is up and a program holds its other end (IFF_RUNNING).
///
/// # Errors
/// `ENODEV` when it is gone.
pub(crate) fn is_running(socket: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1]
        .iter_mut()
        .zip(name.bytes())
    {
        *to = from.cast_signed();
    }
    // SAFETY: SIOCGIFFLAGS reads and writes one `ifreq`, which `request` is; afterwards
    // the union holds the flags.
    let flags = unsafe {
        check(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCGIFFLAGS,
            &raw mut request,
        ))?;
        request.ifr_ifru.ifru_flags
    };
    let wanted = libc::IFF_UP | libc::IFF_RUNNING;
    Ok(libc::c_int::from(flags) & wanted == wanted)
}

fn message(vectors: *mut libc::iovec, count: usize) -> libc::mmsghdr {
    // SAFETY: all-zero bytes are a valid mmsghdr; some C libraries have private padding in
    // it, so it cannot be written as a literal.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = vectors;
    message.msg_hdr.msg_iovlen = count as _;
    message
}

/// The VLAN tag, if the kernel took one out of the frame.
///
/// # Safety
/// `header` must be as recvmmsg left it, its control buffer alive.
unsafe fn stripped_tag(header: &libc::msghdr) -> Option<VlanTag> {
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR stay inside the control buffer, whose length
    // the kernel updated; the data of an auxdata message is read only if it is complete,
    // and without assuming its alignment.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = control.as_ref() {
            let whole = libc::CMSG_LEN(size_of::<libc::tpacket_auxdata>() as u32) as usize;
            if message.cmsg_level == libc::SOL_PACKET
                && message.cmsg_type == libc::PACKET_AUXDATA
                && message.cmsg_len >= whole
            {
                #[expect(clippy::cast_ptr_alignment, reason = "read as unaligned")]
                let data = libc::CMSG_DATA(control).cast::<libc::tpacket_auxdata>();
                return tag_in(&data.read_unaligned());
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    None
}

fn tag_in(auxiliary: &libc::tpacket_auxdata) -> Option<VlanTag> {
    if auxiliary.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let tpid = if auxiliary.tp_status & libc::TP_STATUS_VLAN_TPID_VALID == 0 {
        libc::ETH_P_8021Q as u16
    } else {
        auxiliary.tp_vlan_tpid
    };
    Some(VlanTag {
        tpid,
        tci: auxiliary.tp_vlan_tci,
    })
}

fn set_option(
    socket: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the options set here take one int, which `value` is, and its size is given.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
    .map(|_| ())
}

fn check(returned: libc::c_int) -> io::Result<libc::c_int> {
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned)
    }
}
