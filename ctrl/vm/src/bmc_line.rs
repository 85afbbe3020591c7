//! The line between a VM and its BMC: QEMU's end of it, anew with each QEMU.

use std::sync::{Arc, Mutex};

use tokio::net::UnixStream;
use tokio::sync::Notify;

/// A VM's line to its BMC; cheap to clone. It outlives the VM's restarts.
#[derive(Debug, Clone, Default)]
pub struct BmcLine {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Until somebody takes it.
    end: Mutex<Option<UnixStream>>,
    news: Notify,
}

impl BmcLine {
    /// Leads to a QEMU that has just been started, instead of the one before.
    pub(super) fn connect(&self, end: UnixStream) {
        *self.lock() = Some(end);
        self.shared.news.notify_one();
    }

    /// The line to a QEMU that has been started since the last call. For one caller.
    pub async fn next(&self) -> UnixStream {
        loop {
            let end = self.lock().take();
            if let Some(end) = end {
                return end;
            }
            self.shared.news.notified().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        self.shared
            .end
            .lock()
            .expect("no holder of this lock can panic")
    }
}
