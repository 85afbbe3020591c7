//! Memory that another process shares with us, mapped so that it cannot crash us.
//!
//! The process that shares a file can truncate it while we use it; an access behind its end then
//! raises SIGBUS. Our handler replaces the whole mapping by private zero pages, marks it as lost and
//! lets the thread go on: the thread reads zeros, and the flag of [`SharedMapping`] says why.
//! A SIGBUS at any other address goes to the handler that was installed before.
//!
//! The handler takes no lock and allocates nothing. It finds the mapping in a list of
//! [`Slot`]s that only ever grows.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

/// Bytes of another process's file, mapped shared, readable and writable.
#[derive(Debug)]
pub(crate) struct SharedMapping {
    start: NonNull<u8>,
    len: usize,
    slot: &'static Slot,
    /// The handler stores to it through the slot.
    _lost: Arc<AtomicBool>,
}

// SAFETY: a mapping is an address range, the same for every thread; this type never
// dereferences it.
unsafe impl Send for SharedMapping {}
// SAFETY: as above; there is nothing in it that changes.
unsafe impl Sync for SharedMapping {}

impl SharedMapping {
    /// Maps `len` bytes of `file` from `offset` on; both must be multiples of the page size
    /// (for hugetlbfs: of the huge page size). When part of it turns out to be gone, the whole
    /// mapping is replaced by zero pages and `lost` becomes true.
    ///
    /// Children do not inherit it and core dumps do not contain it.
    ///
    /// # Errors
    /// The kernel's error: the file is not writable, the address space is full, …
    pub(crate) fn new(
        file: &File,
        offset: u64,
        len: usize,
        lost: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        install_handler()?;
        let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the kernel chooses the address, so no mapping of ours is touched.
        let start = unsafe {
            libc::mmap(
                null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        for advice in [libc::MADV_DONTFORK, libc::MADV_DONTDUMP] {
            // SAFETY: the range was just mapped, and the advice changes nothing for this
            // process. A kernel that does not know it may refuse.
            unsafe { libc::madvise(start, len, advice) };
        }
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address 0");
        let slot = Slot::claim(start.as_ptr() as usize, len, &lost);
        Ok(SharedMapping {
            start,
            len,
            slot,
            _lost: lost,
        })
    }

    /// The first byte.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        self.slot.release();
        // SAFETY: the range was mapped by `new` and is unmapped once; a user of the address keeps
        // this value alive.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// One mapping, as the handler finds it. It is changed under an odd `version`, so that the handler
/// never combines the start of one mapping with the length of another.
#[derive(Debug)]
struct Slot {
    version: AtomicUsize,
    taken: AtomicBool,
    start: AtomicUsize,
    len: AtomicUsize,
    lost: AtomicPtr<AtomicBool>,
    next: AtomicPtr<Slot>,
}

/// The newest slot. Slots are never freed: there are as many as there were mappings at once.
static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(null_mut());

impl Slot {
    fn claim(start: usize, len: usize, lost: &Arc<AtomicBool>) -> &'static Slot {
        let vacant = slots().find(|slot| !slot.taken.swap(true, Ordering::Acquire));
        let slot = vacant.unwrap_or_else(Slot::append);
        slot.write(start, len, Arc::as_ptr(lost).cast_mut());
        slot
    }

    fn append() -> &'static Slot {
        let slot: &'static Slot = Box::leak(Box::new(Slot {
            version: AtomicUsize::new(0),
            taken: AtomicBool::new(true),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            lost: AtomicPtr::new(null_mut()),
            next: AtomicPtr::new(null_mut()),
        }));
        let mut first = SLOTS.load(Ordering::Relaxed);
        loop {
            slot.next.store(first, Ordering::Relaxed);
            let own = std::ptr::from_ref(slot).cast_mut();
            match SLOTS.compare_exchange_weak(first, own, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return slot,
                Err(now) => first = now,
            }
        }
    }

    fn release(&self) {
        self.write(0, 0, null_mut());
        self.taken.store(false, Ordering::Release);
    }

    fn write(&self, start: usize, len: usize, lost: *mut AtomicBool) {
        let version = self.version.load(Ordering::Relaxed);
        self.version
            .store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.lost.store(lost, Ordering::Relaxed);
        self.version
            .store(version.wrapping_add(2), Ordering::Release);
    }

    /// `None` while it is being changed: then it is not the mapping that faulted, which is in use.
    fn read(&self) -> Option<(usize, usize, *mut AtomicBool)> {
        let version = self.version.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        let len = self.len.load(Ordering::Relaxed);
        let lost = self.lost.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let whole = version.is_multiple_of(2) && version == self.version.load(Ordering::Relaxed);
        whole.then_some((start, len, lost))
    }
}

fn slots() -> impl Iterator<Item = &'static Slot> {
    let mut next = SLOTS.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: a slot is leaked when it is made, and linked only after it is complete.
        let slot = unsafe { next.as_ref() }?;
        next = slot.next.load(Ordering::Relaxed);
        Some(slot)
    })
}

/// The previous handler of SIGBUS: that of std, which reports stack overflows.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

fn install_handler() -> io::Result<()> {
    static INSTALLED: OnceLock<Option<i32>> = OnceLock::new();
    let errno = INSTALLED.get_or_init(|| exchange_handler().err()?.raw_os_error());
    errno.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
}

fn exchange_handler() -> io::Result<()> {
    let mut before = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: sigaction fills `before` when it returns 0.
    let before = unsafe {
        if libc::sigaction(libc::SIGBUS, std::ptr::null(), before.as_mut_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
        before.assume_init()
    };
    // Stored before ours is installed, so that ours always finds it.
    BEFORE.get_or_init(|| before);
    // SAFETY: all-zero bytes are a valid sigaction: no flags, an empty mask.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    ours.sa_sigaction = on_sigbus as *const () as usize;
    // On the alternate stack that std gives its threads: the fault may be a full stack.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `on_sigbus` has the signature that SA_SIGINFO asks for, and calls only what a
    // signal handler may.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, null_mut()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

extern "C" fn on_sigbus(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: errno is this thread's own; the kernel hands a valid siginfo to a handler with
    // SA_SIGINFO, and for a SIGBUS of its own the address that was touched.
    unsafe {
        let errno = *libc::__errno_location();
        let is_fault = (*info).si_code > 0;
        if !(is_fault && replace_mapping_at((*info).si_addr() as usize)) {
            // Always there: it was stored before this handler was installed.
            if let Some(before) = BEFORE.get() {
                libc::sigaction(libc::SIGBUS, before, null_mut());
            }
            // When this returns, a fault repeats and reaches the other handler; a signal that
            // kill(2) sent does not.
            if !is_fault {
                libc::raise(libc::SIGBUS);
            }
        }
        *libc::__errno_location() = errno;
    }
}

/// Whether the address is in one of our mappings, and that mapping is zero pages now.
fn replace_mapping_at(address: usize) -> bool {
    let hit = slots()
        .filter_map(Slot::read)
        .find(|(start, len, _)| address.wrapping_sub(*start) < *len);
    let Some((start, len, lost)) = hit else {
        return false;
    };
    // SAFETY: this thread is using the mapping at `address`, so its owner is alive: the range
    // is ours, and so is the flag. The new pages are as readable and writable as the old ones;
    // other threads see zeros from now on, which they must expect of a guest anyway.
    unsafe {
        let replaced = libc::mmap(
            start as *mut libc::c_void,
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
            -1,
            0,
        );
        if replaced == libc::MAP_FAILED {
            return false;
        }
        (*lost).store(true, Ordering::Relaxed);
    }
    true
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    const PAGE: usize = 4096;

    fn mapping(pages: usize) -> (SharedMapping, File, Arc<AtomicBool>) {
        let file = File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&file, (pages * PAGE) as u64).unwrap();
        let lost = Arc::new(AtomicBool::new(false));
        let mapping = SharedMapping::new(&file, 0, pages * PAGE, lost.clone()).unwrap();
        (mapping, file, lost)
    }

    fn read(mapping: &SharedMapping, at: usize) -> u8 {
        assert!(at < mapping.len);
        // SAFETY: inside the mapping.
        unsafe { mapping.start().add(at).read_volatile() }
    }

    fn write(mapping: &SharedMapping, at: usize, value: u8) {
        assert!(at < mapping.len);
        // SAFETY: inside the mapping.
        unsafe { mapping.start().add(at).write_volatile(value) }
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn a_file_cut_short_costs_its_own_mapping_only() {
        let (other, _other_file, other_lost) = mapping(4);
        let (mapping, file, lost) = mapping(4);
        write(&other, 0, 7);
        write(&mapping, 0, 8);
        write(&mapping, 3 * PAGE, 9);
        ftruncate(&file, PAGE as u64).unwrap();
        assert_eq!(read(&mapping, 0), 8);
        assert!(!lost.load(Ordering::Relaxed));

        assert_eq!(read(&mapping, 3 * PAGE), 0);
        assert!(lost.load(Ordering::Relaxed));
        assert_eq!(read(&mapping, 0), 0, "all of it is replaced");
        write(&mapping, 2 * PAGE, 1);
        assert_eq!(read(&mapping, 2 * PAGE), 1);
        assert_eq!(read(&other, 0), 7);
        assert!(!other_lost.load(Ordering::Relaxed));
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn many_threads_lose_many_mappings_at_once() {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let (mapping, file, lost) = mapping(3);
                        write(&mapping, 2 * PAGE, 5);
                        ftruncate(&file, 0).unwrap();
                        write(&mapping, 2 * PAGE, 6);
                        assert!(lost.load(Ordering::Relaxed));
                        assert_eq!(read(&mapping, 2 * PAGE), 6);
                    }
                });
            }
        });
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn slots_are_used_again() {
        for _ in 0..1000 {
            drop(mapping(1));
        }
        // Other tests run beside this one; none of them holds many.
        assert!(slots().count() < 100);
    }

    /// A SIGBUS that is not about shared memory must end the process as if we were not there.
    #[test]
    #[cfg_attr(miri, ignore)]
    fn a_foreign_sigbus_still_kills() {
        const CHILD: &str = "IKV_TEST_FOREIGN_SIGBUS";
        if std::env::var_os(CHILD).is_some() {
            let (_mapping, file, _lost) = mapping(2);
            // SAFETY: a fresh mapping at an address that the kernel chose.
            let foreign = unsafe {
                let flags = libc::MAP_SHARED;
                libc::mmap(
                    null_mut(),
                    PAGE,
                    libc::PROT_READ,
                    flags,
                    file.as_raw_fd(),
                    0,
                )
            };
            ftruncate(&file, 0).unwrap();
            // SAFETY: mapped; that there is nothing behind it is the point.
            unsafe { foreign.cast::<u8>().read_volatile() };
            return;
        }
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "sys::guarded_memory::tests::a_foreign_sigbus_still_kills",
            ])
            .env(CHILD, "1")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(libc::SIGBUS));
    }
}
