//! A tokio runtime for one piece of asynchronous work.

/// Runs `work` to its end on this thread: a QEMU ends with the thread that started it.
///
/// # Panics
/// When the kernel grants no descriptors for the runtime.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("descriptors for a runtime")
        .block_on(work)
}
