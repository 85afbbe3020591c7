//! Which network namespace a socket lives in, work in a new one of its own, and a whole process
//! that moves into its own.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The kernel's number for the network namespace of `socket`. It is never reused while the machine
/// runs (unlike the inode number of `/proc/self/ns/net`). The first namespace has number 1.
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

/// Does `work` in a new network namespace, on a thread that ends with it. The namespace lasts as
/// long as a descriptor that was opened in it: a tap's, a socket's.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; otherwise those of `work`.
///
/// # Panics
/// When `work` does.
pub fn in_new_one<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let apart = move || {
        // SAFETY: CLONE_NEWNET changes nothing but the calling thread's network namespace, and
        // the thread was made for this.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
            return Err(io::Error::last_os_error());
        }
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, apart)?;
        thread.join().expect("work does not panic")
    })
}

/// Moves this process into a new user namespace and a new network namespace that belongs to it. It
/// has every capability there and none over the rest of the machine. Its user and group have no
/// number there until `/proc/self/uid_map` and `gid_map` are written (user_namespaces(7)).
///
/// # Errors
/// `EINVAL` once the process has a second thread; `EPERM` or `ENOSPC` where users may not make user
/// namespaces.
pub fn leave_as_user() -> io::Result<()> {
    // SAFETY: the kernel refuses CLONE_NEWUSER to a process of several threads, so that none is left
    // with other credentials than the rest. Memory and descriptors stay as they are.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_its_own_holds_nothing_of_ours() {
        let here = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        match in_new_one(|| std::net::UdpSocket::bind("0.0.0.0:0")) {
            Ok(there) => {
                if let (Ok(here), Ok(there)) = (cookie(&here), cookie(&there)) {
                    assert_ne!(here, there);
                }
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}"),
        }
    }

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
