//! The switches' BMCs: for each an `ipmi_sim` (of Debian's openipmi), which speaks IPMI on the LAN
//! and with the switch's own kernel. It decides nothing: it asks, and the VM's supervisor acts.
//!
//! ```text
//!  ipmitool ──UDP──> ipmi_sim (uid of its own) ──chassis.rs──> Vm::power, Vm::status
//!                        │ TCP, 127.0.0.1                           of this one switch
//!                     bus.rs ──unix socket──> QEMU's isa-ipmi-kcs ──> the guest's kernel
//! ```
//!
//! An `ipmi_sim` is untrusted: its input comes from LAN and guest, and it is written in C. It can
//! write no file and gain no right. It has one socket (`chassis.rs`), by which it asks whether this
//! switch is on, and asks to switch it. `bus.rs` does not pass commands for QEMU itself on, such as
//! a watchdog's: it turns them to the supervisor, so that there is one state.
//!
//! The supervisor in `process.rs` starts an `ipmi_sim` again when it ends. The switch does not notice,
//! because its end of the line stays.

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

/// A BMC that is kept running until [`Bmc::stop`].
#[derive(Debug)]
pub struct Bmc {
    port: u16,
    state: watch::Receiver<BmcState>,
    stop: Arc<Notify>,
}

impl Bmc {
    /// Writes its files and starts it. [`Bmc::watch`] shows when it runs.
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

    /// Its UDP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it runs now.
    pub fn state(&self) -> BmcState {
        self.state.borrow().clone()
    }

    /// Follows its state.
    pub fn watch(&self) -> watch::Receiver<BmcState> {
        self.state.clone()
    }

    /// Ends it. Once this has returned, it switches its switch no more.
    pub async fn stop(&self) {
        self.stop.notify_one();
        let mut state = self.state.clone();
        // The task drops its end of the channel when it has ended.
        while state.changed().await.is_ok() {}
    }
}
