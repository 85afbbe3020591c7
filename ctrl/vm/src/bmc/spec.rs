//! A BMC as passive data, and its states.

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// The user name for logins, as in ikvswitch.
pub const USER: &str = "ipmiusr";

/// A switch's BMC, as passive data.
#[derive(Clone, PartialEq, Eq)]
pub struct BmcSpec {
    /// The switch's name.
    pub name: String,
    /// An existing folder for its files. It belongs to root; `uid` may enter it but not write it.
    pub folder: PathBuf,
    /// The uid and gid it runs as, a pair of its own. No account is needed.
    pub uid: u32,
    /// Addresses at which it listens.
    pub addresses: Vec<Ipv4Addr>,
    /// UDP port at which it listens.
    pub port: u16,
    /// The password of [`USER`]: at most 16 letters and digits (IPMI 1.5; 20 in 2.0).
    pub password: String,
}

impl std::fmt::Debug for BmcSpec {
    /// Leaves the password out, because it must not reach logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BmcSpec")
            .field("name", &self.name)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// A BMC's file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the BMC of {name}: {}: {error}", .path.display())]
pub struct BmcError {
    /// The switch's name.
    pub(super) name: String,
    /// The file's path.
    pub(super) path: PathBuf,
    /// The system's reason.
    pub(super) error: std::io::Error,
}

/// Whether a BMC runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BmcState {
    /// It was started and does not answer yet.
    Starting,
    /// It answers.
    Running,
    /// It ended, for this reason, and will be started again.
    Down(String),
}
