//! Which system calls a thread may still make: a seccomp filter for each kind of thread.
//!
//! Workers and the thread of the vhost-user sockets handle what guests send. If one of them can be made
//! to run a guest's code, it is to find neither files nor programs nor networks: a filter lets pass
//! only the calls in its list. The thread that control runs on starts programs, which inherit its
//! filter: that one lets pass everything but calls of which none of them has a use ([`control`]). A refused call fails with `EPERM`, and the kernel logs it.
//!
//! Calls without conditions on their arguments cost nothing that can be measured: the kernel (5.11 and
//! later) remembers that they pass. So no call of the frame path has a condition.

use std::collections::BTreeMap;
use std::io;

use libc::{c_long, c_ulong};
use rustix::thread::set_no_new_privs;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::sys::seccomp::{available, install};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// For memory, locks, clocks, signals, and the end of a thread.
const BASIC: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// For open descriptors: frames, wake-ups, timers, signals to guests.
const DESCRIPTORS: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_io_setup,
    libc::SYS_io_submit,
    libc::SYS_io_getevents,
    libc::SYS_io_cancel,
    libc::SYS_io_destroy,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_close,
];

/// As [`BASIC`] and [`DESCRIPTORS`], under names that only this architecture has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// For the thread of the vhost-user sockets: connections, and threads that close descriptors.
const CONNECTIONS: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    // Whether a descriptor is an eventfd.
    libc::SYS_readlinkat,
    libc::SYS_clone,
    libc::SYS_clone3,
    // The name of a thread.
    libc::SYS_prctl,
];

#[cfg(target_arch = "x86_64")]
const OLDER_CONNECTIONS: &[c_long] = &[libc::SYS_readlink];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_CONNECTIONS: &[c_long] = &[];

/// Questions about ports, their carrier and what they offer; whether a descriptor blocks.
const REQUESTS: &[libc::Ioctl] = &[
    libc::TUNGETIFF,
    libc::TUNSETCARRIER,
    libc::TUNSETOFFLOAD,
    libc::TUNGETVNETHDRSZ,
    libc::TUNSETVNETHDRSZ,
    libc::TUNSETVNETLE,
    libc::SIOCGIFFLAGS as libc::Ioctl,
    libc::FIONBIO,
    libc::FIONREAD,
];

/// What no program that a fabric starts has a use for, QEMU among them. Namespaces can be left and
/// made, but none can be entered.
const NEVER: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_userfaultfd,
];

/// Why threads get no filter on this host. `None` if they do.
pub fn missing() -> Option<String> {
    let what = "the fabric's threads may make any system call";
    if arch().is_none() {
        let arch = std::env::consts::ARCH;
        return Some(format!("{what}: there is no list for {arch}"));
    }
    let error = available().err()?;
    Some(format!("{what}: the kernel has no seccomp: {error}"))
}

/// For a worker, which starts no threads.
pub(crate) fn workers() -> io::Result<()> {
    only(worker_rules())
}

/// For the thread of the vhost-user sockets and those that it starts.
pub(crate) fn sockets() -> io::Result<()> {
    let mut rules = worker_rules();
    rules.extend(unconditional(CONNECTIONS));
    rules.extend(unconditional(OLDER_CONNECTIONS));
    let unix = libc::AF_UNIX.cast_unsigned().into();
    rules.insert(libc::SYS_socket, vec![argument(0, unix)]);
    only(rules)
}

/// For the thread that control runs on, with all threads and programs that it will start. The thread
/// must not be able to gain rights any more ([`crate::rights::keep`]).
///
/// # Errors
/// When the kernel refuses a filter, although it has seccomp.
pub fn control() -> io::Result<()> {
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    filter(
        unconditional(NEVER).collect(),
        SeccompAction::Allow,
        refused,
    )
}

fn worker_rules() -> Rules {
    let mut rules: Rules = [BASIC, DESCRIPTORS, OLDER]
        .into_iter()
        .flat_map(unconditional)
        .collect();
    let request = |request: &libc::Ioctl| argument(1, u64::from(*request as u32));
    // abort(3) and raise(3).
    let own = std::process::id().into();
    rules.insert(libc::SYS_tgkill, vec![argument(0, own)]);
    rules.insert(libc::SYS_ioctl, REQUESTS.iter().map(request).collect());
    rules
}

fn unconditional(calls: &[c_long]) -> impl Iterator<Item = (i64, Vec<SeccompRule>)> {
    calls.iter().map(|call| (*call, Vec::new()))
}

/// A call passes whose argument `index` has this value in its lower 32 bits, of which the kernel looks
/// at no others.
fn argument(index: u8, value: c_ulong) -> SeccompRule {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
    SeccompRule::new(vec![condition.expect("a call has six arguments")])
        .expect("there is a condition")
}

fn only(rules: Rules) -> io::Result<()> {
    // Without it the kernel takes no filter.
    set_no_new_privs(true)?;
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    filter(rules, refused, SeccompAction::Allow)
}

fn filter(rules: Rules, others: SeccompAction, listed: SeccompAction) -> io::Result<()> {
    let Some(arch) = arch().filter(|_| available().is_ok()) else {
        return Ok(());
    };
    let filter = SeccompFilter::new(rules, others, listed, arch).map_err(io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    install(&program)
}

/// `None` where no one has made lists.
fn arch() -> Option<TargetArch> {
    let tried = ["x86_64", "aarch64"].contains(&std::env::consts::ARCH);
    TargetArch::try_from(std::env::consts::ARCH)
        .ok()
        .filter(|_| tried)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::ErrorKind::PermissionDenied;
    use std::net::UdpSocket;
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::thread;

    use super::*;

    /// What fails with EPERM on a thread with this filter, of: a file, a program, a thread, a Unix
    /// socket, an Internet socket.
    fn refused(filter: fn() -> io::Result<()>) -> [bool; 5] {
        thread::spawn(move || {
            set_no_new_privs(true).unwrap();
            filter().unwrap();
            let denied = |result: io::Result<()>| match result {
                Ok(()) => false,
                Err(error) => error.kind() == PermissionDenied,
            };
            [
                denied(File::open("/dev/null").map(drop)),
                denied(Command::new("/bin/true").output().map(drop)),
                denied(thread::Builder::new().spawn(|| ()).map(drop)),
                denied(UnixStream::connect("/").map(drop).or_else(|error| {
                    // Refused by what it leads to, not by the filter.
                    if error.kind() == io::ErrorKind::ConnectionRefused {
                        return Ok(());
                    }
                    Err(error)
                })),
                denied(UdpSocket::bind("127.0.0.1:0").map(drop)),
            ]
        })
        .join()
        .unwrap()
    }

    #[test]
    fn each_kind_of_thread_can_do_what_it_has_to() {
        assert_eq!(missing(), None);
        assert_eq!(refused(workers), [true; 5]);
        assert_eq!(refused(sockets), [true, true, false, false, true]);
        assert_eq!(refused(control), [false; 5]);
    }

    #[test]
    fn a_panic_in_a_filtered_thread_is_caught_like_any_other() {
        let thread = thread::spawn(|| {
            set_no_new_privs(true).unwrap();
            workers().unwrap();
            let many: Vec<Vec<u8>> = (1..64).map(|n| vec![n; usize::from(n) << 14]).collect();
            std::panic::catch_unwind(|| panic!("on purpose")).unwrap_err();
            many.iter().map(Vec::len).sum::<usize>()
        });
        assert!(thread.join().unwrap() > 0);
    }

    #[test]
    fn control_cannot_enter_a_namespace_or_another_process() {
        let thread = thread::spawn(|| {
            set_no_new_privs(true).unwrap();
            let namespace = File::open("/proc/self/ns/net").unwrap();
            control().unwrap();
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind)
        });
        assert_eq!(thread.join().unwrap(), Err(rustix::io::Errno::PERM));
    }
}
