//! The specification of a BMC as passive data, and its states.

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// The user name for logins over IPMI, as in ikvswitch.
pub const USER: &str = "ipmiusr";

/// The specification of a switch's BMC, as passive data.
#[derive(Clone, PartialEq, Eq)]
pub struct BmcSpec {
    /// The switch's name, such as `leaf1`.
    pub name: String,
    /// An existing folder for its files. It belongs to root; `uid` may enter it but not write to
    /// it.
    pub folder: PathBuf,
    /// The uid and gid that it runs as, which no other process has. No account is needed.
    pub uid: u32,
    /// The addresses at which it listens.
    pub addresses: Vec<Ipv4Addr>,
    /// The UDP port at which it listens, at each address.
    pub port: u16,
    /// The password of [`USER`]: at most 16 letters and digits (the limit of IPMI 1.5; 20 in 2.0).
    pub password: String,
}

impl std::fmt::Debug for BmcSpec {
    /// Leaves out the password, which must not reach any log.
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
    /// The name of the BMC's switch.
    pub(super) name: String,
    /// The path of the file.
    pub(super) path: PathBuf,
    /// The error that the system returned.
    pub(super) error: std::io::Error,
}

/// Whether a BMC runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BmcState {
    /// It was started but does not answer yet.
    Starting,
    /// It answers requests.
    Running,
    /// It has ended for this reason, and will be restarted.
    Down(String),
}
