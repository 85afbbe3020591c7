//! Runs work that may wait for the kernel, a disk or a child process: [`off_thread`].

use std::io;

use tokio::sync::oneshot;

/// Runs `work` on a new thread and waits for it without blocking the runtime's only thread.
///
/// Not on tokio's pool: its threads live on for 10 s, with the rights of root that the process had
/// when they were started. The new thread ends with its work. If the caller stops waiting, the work
/// goes on; so `work` must own what it changes, or share it with the code that cleans up.
///
/// Children that `work` starts must end before it does: the kernel kills them when the thread ends.
///
/// # Errors
/// When the process cannot start another thread, or `work` panics.
pub(crate) async fn off_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.into());
    // Sending fails only if the caller has stopped waiting.
    thread.spawn(move || _ = done.send(work()))?;
    let panicked = |_| io::Error::other(format!("the thread \"{name}\" panicked"));
    result.await.map_err(panicked)
}
