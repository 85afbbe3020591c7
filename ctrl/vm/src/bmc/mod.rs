//! The switches' BMCs. For each, an `ipmi_sim` (of Debian's openipmi) speaks IPMI on the LAN and
//! with the switch's own kernel. It only asks; the VM's supervisor decides and acts.
//!
//! ```text
//!  ipmitool ──UDP──> ipmi_sim (uid of its own) ──chassis.rs──> Vm::power, Vm::status
//!                        │ TCP, 127.0.0.1                           of this one switch
//!                     bus.rs ──unix socket──> QEMU's isa-ipmi-kcs ──> the guest's kernel
//! ```
//!
//! An `ipmi_sim` is untrusted: its input comes from LAN and guest, and it is written in C. It can
//! write no file and gain no right. Over its only socket (`chassis.rs`) it can ask whether this
//! switch is on, and ask to switch it. `bus.rs` does not pass commands for QEMU on, such as a
//! watchdog's, but hands them to the supervisor, so that only one place knows the VM's power state.
//!
//! The supervisor in `process.rs` restarts an `ipmi_sim` that ends. The switch does not notice,
//! because its end of the line stays open.

mod bus;
mod chassis;
mod files;
pub mod password;
mod peer;
mod process;
mod spec;

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::handle::Vm;
use process::Supervisor;
pub use spec::{BmcError, BmcSpec, BmcState, USER};

/// A BMC, restarted whenever it ends, until [`Bmc::stop`].
#[derive(Debug)]
pub struct Bmc {
    port: u16,
    state: watch::Receiver<BmcState>,
    stop: Arc<Notify>,
}

impl Bmc {
    /// Writes the BMC's files and starts it. [`Bmc::watch`] shows when it runs.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn start(spec: BmcSpec, vm: Vm) -> Result<Self, BmcError> {
        files::write(&spec)?;
        let port = spec.port;
        let (state, watcher) = watch::channel(BmcState::Starting);
        let stop = Arc::new(Notify::new());
        tokio::spawn(Supervisor::new(spec, vm, state).run(stop.clone()));
        Ok(Self {
            port,
            state: watcher,
            stop,
        })
    }

    /// Its UDP port, the same at all of its addresses.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its present state.
    pub fn state(&self) -> BmcState {
        self.state.borrow().clone()
    }

    /// Follows its state from now on. The channel closes when the BMC is stopped.
    pub fn watch(&self) -> watch::Receiver<BmcState> {
        self.state.clone()
    }

    /// Ends the BMC. After this returns, it can no longer control its switch.
    pub async fn stop(&self) {
        self.stop.notify_one();
        let mut state = self.state.clone();
        // The task drops its end of the channel when it ends.
        while state.changed().await.is_ok() {}
    }
}
