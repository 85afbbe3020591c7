//! The line between a VM and its BMC. Each new QEMU has a new end of it.

use std::sync::{Arc, Mutex};

use tokio::net::UnixStream;
use tokio::sync::Notify;

/// A VM's line to its BMC, which outlives restarts of the VM. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct BmcLine {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The end of the newest QEMU, until the BMC takes it.
    end: Mutex<Option<UnixStream>>,
    arrived: Notify,
}

impl BmcLine {
    /// Offers the end of a QEMU that was just started, replacing the previous one.
    pub(crate) fn connect(&self, end: UnixStream) {
        *self.lock() = Some(end);
        self.shared.arrived.notify_one();
    }

    /// Waits for a QEMU that was started since the last call. Returns its end. Only one caller at a
    /// time may wait.
    pub(crate) async fn next(&self) -> UnixStream {
        loop {
            let end = self.lock().take();
            if let Some(end) = end {
                return end;
            }
            self.shared.arrived.notified().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        self.shared
            .end
            .lock()
            .expect("no holder of this lock can panic")
    }
}
