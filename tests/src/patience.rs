//! Waiting for a thing to happen, with a limit.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Long enough for anything that does not boot, on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// Between two looks, at least and at most. In between a twentieth of the time waited: no
/// figure is off by more, and an emulated switch is not asked all the time.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(100)];

/// Looks until there is something, and returns it. `look` says in an `Err` what is missing.
///
/// # Panics
/// When there is still nothing after `limit`, with what was missing at the last look.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(missing) if began.elapsed() >= limit => {
                panic!("waited {limit:?} in vain for {what}: {missing}")
            }
            Err(_) => std::thread::sleep(pause(began)),
        }
    }
}

fn pause(began: Instant) -> Duration {
    let [shortest, longest] = LOOK_AGAIN;
    (began.elapsed() / 20).clamp(shortest, longest)
}

/// `Ok` if `holds`, else what `otherwise` says; for [`until`].
///
/// # Errors
/// What `otherwise` says.
pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// As [`until`], where there is nothing to say about what is missing.
///
/// # Panics
/// As [`until`].
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    until(what, limit, || look().ok_or_else(|| "nothing yet".into()))
}

/// Waits until something holds.
///
/// # Panics
/// As [`wait_for`].
pub fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, limit, || holds().then_some(()));
}

/// As [`wait_until`], while other tasks of this thread's runtime go on.
///
/// # Panics
/// As [`wait_for`].
pub async fn wait_until_async(what: &str, limit: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(
            began.elapsed() < limit,
            "waited {limit:?} in vain for {what}"
        );
        tokio::time::sleep(pause(began)).await;
    }
}

/// Waits for the end of a child; `None` if it has not ended within `limit`.
pub fn ended(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        // Only a child that was waited for before gives an error.
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs a command that must end, well or not, without standard input.
///
/// # Panics
/// When it does not end within `limit` (it is killed then), or cannot be started.
pub fn output_within(command: &mut Command, limit: Duration) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = read_all(child.stdout.take());
    let stderr = read_all(child.stderr.take());
    let Some(status) = ended(&mut child, limit) else {
        let _ = child.kill();
        panic!("{command:?} did not end within {limit:?}");
    };
    let [stdout, stderr] = [stdout, stderr].map(|reader| reader.join().unwrap_or_default());
    Output {
        status,
        stdout,
        stderr,
    }
}

/// Reads a stream to its end on a thread of its own, so that nobody waits for a full pipe.
fn read_all(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What came before an error is shown.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}
