//! The fabric's changes to the host: [`Host`] owns them and undoes them.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use dataplane::sys::tap;

use crate::off_thread::off_thread;
use host::execute::{self, HostChangeError, HostChanges, HostTaps};
use host::lock::Lock;
use host::plan::HostStep;

/// The changes made to the host, with their journal. Shared by the fabric, which changes them while
/// it runs, and [`Running`](crate::Running), which undoes them at the end.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// `None` before the steps are executed, and after undoing has begun.
    changes: Mutex<Option<HostChanges>>,
    /// Second descriptors of the host's own taps, by device name. Their carrier is set through
    /// them.
    carriers: OnceLock<HostTaps>,
}

/// The changes to the host are being undone, so no more are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the fabric is being taken down")]
pub(crate) struct Ending;

impl Host {
    /// Executes `steps` and keeps their changes. Returns the host's own taps, for the cables.
    ///
    /// Blocks the thread for about 100 ms, before the fabric serves its first client.
    ///
    /// # Errors
    /// The first step that failed; all of them are undone then.
    pub(crate) fn execute(
        &self,
        steps: &[HostStep],
        lock: &Lock,
    ) -> Result<HostTaps, HostChangeError> {
        let mut changes = execute::execute(steps, lock, |_| {})?;
        let taps = changes.take_host_taps();
        *self.lock() = Some(changes);
        let second = |(name, tap): (&String, &OwnedFd)| Some((name.clone(), tap.try_clone().ok()?));
        self.carriers
            .get_or_init(|| taps.iter().filter_map(second).collect());
        Ok(taps)
    }

    /// Enters a file or folder into the journal before it is created, so that it is removed at the
    /// end even if this process is killed.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub(crate) fn will_create(&self, path: &Path) -> Result<(), HostChangeError> {
        match &mut *self.lock() {
            Some(changes) => changes.will_create(path),
            None => Ok(()),
        }
    }

    /// Changes the host on a separate thread, because `nft` can take a long time.
    ///
    /// # Errors
    /// [`Ending`] once undoing has begun.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut HostChanges) -> T + Send + 'static,
    ) -> Result<T, Ending> {
        let host = self.clone();
        let changed = off_thread("host", move || host.lock().as_mut().map(change)).await;
        changed.ok().flatten().ok_or(Ending)
    }

    /// Undoes all changes to the host.
    ///
    /// # Errors
    /// The changes that could not be undone; they stay in the journal.
    pub(crate) async fn undo(self: &Arc<Self>) -> Result<(), HostChangeError> {
        let undo = |host: &Host| host.lock().take().map_or(Ok(()), HostChanges::undo);
        let host = self.clone();
        match off_thread("host", move || undo(&host)).await {
            Ok(undone) => undone,
            // If no thread can be started, undo on this one: nothing may be left behind.
            Err(_) => undo(self),
        }
    }

    /// Sets the carrier of one of the host's own devices.
    ///
    /// # Errors
    /// A sentence, when the kernel refuses or the device is not one of the host's own.
    pub(crate) fn set_carrier(&self, device: &str, up: bool) -> Result<(), String> {
        let carriers = self.carriers.get();
        let Some(tap) = carriers.and_then(|carriers| carriers.get(device)) else {
            return Err(format!(
                "the carrier of {device} cannot be set: the fabric holds no descriptor of it"
            ));
        };
        tap::set_carrier(tap, up)
            .map_err(|error| format!("the carrier of {device} could not be set: {error}"))
    }

    fn lock(&self) -> MutexGuard<'_, Option<HostChanges>> {
        self.changes
            .lock()
            .expect("no holder of this lock can panic")
    }
}
