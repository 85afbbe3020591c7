//! Waiting for an event, with a limit. The limits are those of the reference machine: a slower one
//! gets more time, see [`pace`](crate::pace).

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::pace::slowness;

/// Limit for everything but a VM's boot, on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// Shortest and longest pause between two looks. In between it is a twentieth of the time waited so
/// far: measured times are off by 5 % at most, and emulated switches are not asked too often.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(100)];

/// The moment at which a limit of the reference machine is over on this one.
pub fn deadline(limit: Duration) -> Instant {
    Instant::now() + limit.mul_f64(slowness())
}

/// Calls `look` until it returns `Ok`, and returns its result. Its error says what is missing.
///
/// # Panics
/// With the last error, when `look` still fails after `limit`.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let limit = limit.mul_f64(slowness());
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

/// `Ok` if `holds`, otherwise an error; for [`until`].
///
/// # Errors
/// The result of `otherwise`.
pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// As [`until`], for a `look` that cannot say what is missing.
///
/// # Panics
/// As [`until`].
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    until(what, limit, || look().ok_or_else(|| "nothing yet".into()))
}

/// Waits until `holds` returns `true`.
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
    let limit = limit.mul_f64(slowness());
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
        // Only a child that was already waited for gives an error.
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs a command without standard input. It must end, with any status.
///
/// # Panics
/// When it cannot be started, or does not end within `limit`; it is killed then.
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

/// Reads a stream to its end on a thread of its own, so that a full pipe does not block the child.
fn read_all(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // After an error, the bytes before it are the result.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}
