//! The switches' BMCs: for each an `ipmi_sim` (of Debian's openipmi), which speaks IPMI on the LAN
//! and with the switch's own kernel. It decides nothing: it asks, and the VM's supervisor does.
//!
//! ```text
//!  ipmitool ──UDP──> ipmi_sim (uid of its own) ──chassis.rs──> Vm::power, Vm::status
//!                        │ TCP, 127.0.0.1                           of this one switch
//!                     bus.rs ──unix socket──> QEMU's isa-ipmi-kcs ──> the guest's kernel
//! ```
//!
//! An `ipmi_sim` is taken for hostile: LAN and guest both feed it, and it is written in C. It can
//! write no file, gains no right, and what it is given is one socket (`chassis.rs`) by which it asks
//! whether this switch is on and has it switched. Commands for QEMU itself, such as a watchdog's,
//! do not pass `bus.rs`: they go to the supervisor too, so that there is one state.
//!
//! The supervisor here starts an `ipmi_sim` again when it dies. The switch does not notice: its end
//! of the line stays.

mod bus;
mod chassis;
mod files;
pub mod password;
mod peer;
mod process;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::Vm;
use process::Supervisor;

/// Who logs in, as in ikvswitch.
pub const USER: &str = "ipmiusr";

/// A switch's BMC, as passive data.
#[derive(Clone, PartialEq, Eq)]
pub struct BmcSpec {
    /// The switch's name.
    pub name: String,
    /// A folder for its files, which is there and which its uid may enter and no more. Root's.
    pub folder: PathBuf,
    /// The uid and gid it runs as. Numeric: no account is needed. Give each its own.
    pub uid: u32,
    /// Addresses at which it listens.
    pub addresses: Vec<Ipv4Addr>,
    /// UDP port at which it listens.
    pub port: u16,
    /// What [`USER`] must know: letters and digits, at most 16 (IPMI 1.5; 20 in 2.0).
    pub password: String,
}

impl std::fmt::Debug for BmcSpec {
    /// Without the password: it does not belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BmcSpec")
            .field("name", &self.name)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Why a BMC has no files.
#[derive(Debug, thiserror::Error)]
#[error("the BMC of {name}: {}: {error}", .path.display())]
pub struct BmcError {
    /// The switch.
    name: String,
    /// The file.
    path: PathBuf,
    /// The system's words.
    error: std::io::Error,
}

/// What a BMC does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BmcState {
    /// It has been started and does not answer yet.
    Starting,
    /// It answers.
    Running,
    /// It ended, for this reason, and will be started again.
    Down(String),
}

/// A BMC that is kept running until [`Bmc::stop`].
#[derive(Debug)]
pub struct Bmc {
    port: u16,
    state: watch::Receiver<BmcState>,
    stop: Arc<Notify>,
}

impl Bmc {
    /// Writes its files and starts it; it runs soon after.
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

    /// What it does now.
    pub fn state(&self) -> BmcState {
        self.state.borrow().clone()
    }

    /// Follows what it does.
    pub fn watch(&self) -> watch::Receiver<BmcState> {
        self.state.clone()
    }

    /// Ends it. Afterwards it switches nothing any more.
    pub async fn stop(&self) {
        self.stop.notify_one();
        let mut state = self.state.clone();
        // Its task holds the other end until it has ended.
        while state.changed().await.is_ok() {}
    }
}
