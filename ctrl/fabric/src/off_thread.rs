//! Work that may wait for the kernel, a disk or a child process: [`off_thread`].

use std::io;

use tokio::sync::oneshot;

/// Runs `work` on a thread of its own and waits for it without blocking the runtime's only thread.
///
/// Not on tokio's pool: its threads stay for 10 s, with the rights of root that the process had when
/// they were started. This thread ends with its work. Nothing takes the work back when the caller
/// stops waiting, so `work` must own what it changes or share it with the code that cleans up.
///
/// Children that `work` starts must end with it: they are killed with the thread that started them.
///
/// # Errors
/// When the process can have no more threads, or `work` panics.
pub(crate) async fn off_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.into());
    // The receiver is gone when the caller has stopped waiting.
    thread.spawn(move || _ = done.send(work()))?;
    let panicked = |_| io::Error::other(format!("the thread \"{name}\" panicked"));
    result.await.map_err(panicked)
}
