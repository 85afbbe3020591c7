//! Which network namespace a socket lives in.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The number the kernel gave the network namespace of `socket`; never used again while the
/// machine runs (unlike the inode number of `/proc/self/ns/net`). 1 is the first namespace.
///
/// # Errors
/// `ENOPROTOOPT` on kernels before 5.14.
pub fn cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie: u64 = 0;
    let mut size = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to `cookie` and the count to `size`; both
    // live for the call.
    let returned = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(cookie)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sockets_of_one_namespace_have_one_cookie() {
        let first = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let second = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        match (cookie(&first), cookie(&second)) {
            (Ok(a), Ok(b)) => assert_eq!(a, b),
            // Before Linux 5.14.
            (Err(a), Err(b)) => assert_eq!(a.raw_os_error(), b.raw_os_error()),
            other => panic!("one answer each: {other:?}"),
        }
        assert!(cookie(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
