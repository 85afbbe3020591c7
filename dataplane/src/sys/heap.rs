//! The C library's allocator.

/// Arenas of the allocator that all threads share.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Has all threads share a few of the allocator's arenas. By itself glibc gives each thread one of its
/// own, up to eight for each CPU, and each keeps for good what was once freed in it: threads that make
/// cables and captures come and go, and the process would grow by their leavings. No thread that
/// forwards frames allocates, so none of them waits for another here.
///
/// To be called before the process starts other threads. Other C libraries have no such arenas.
pub fn share_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two numbers, and changes only how the allocator chooses among its arenas.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}
