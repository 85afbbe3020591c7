//! Gives a thread a seccomp filter: [`install`].

use std::io;

use seccompiler::sock_filter;

/// Flags of seccomp(2): what the filter refuses goes to the kernel's log; and the filter does not make
/// older kernels slow the thread's memory accesses down (speculative store bypass).
const FLAGS: libc::c_ulong = libc::SECCOMP_FILTER_FLAG_LOG | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;

/// Whether the kernel has seccomp filters.
///
/// # Errors
/// The kernel's reason why not.
pub(crate) fn available() -> io::Result<()> {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: SECCOMP_GET_ACTION_AVAIL reads the one word `action`.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Adds a filter to the calling thread, and to those that it will start. It cannot be removed.
///
/// # Errors
/// The kernel's; `EACCES` if the thread may still gain rights (see [`crate::rights::keep`]).
pub(crate) fn install(filter: &[sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: filter.as_ptr().cast_mut().cast(),
    };
    let set = |flags: libc::c_ulong| {
        // SAFETY: the kernel copies `len` instructions, which `filter` holds, and changes nothing here.
        let done = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const program,
            )
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    match set(FLAGS) {
        // Kernels before 4.17 do not know these flags.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => set(0),
        done => done,
    }
}
