//! Harness of the end-to-end tests: namespaces, fabrics, hosts that plug in.
//!
//! A test that needs what this machine lacks says SKIP and why; under CI (`CI=true`) that is
//! a failure.

mod binary;
pub mod host_state;
mod namespace_guest;
mod netns;
mod nic;
pub mod panel;
pub mod patience;
mod report;

pub use binary::ikv_fabric;
pub use namespace_guest::NamespaceGuest;
pub use netns::{Netns, run};
pub use nic::Nic;
pub use report::{figure, say, skip};

/// Whether this process may make namespaces and devices. `false` after saying SKIP.
///
/// # Panics
/// Under CI, where nothing may be skipped.
pub fn have_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("needs root (run `sudo make test`)");
    }
    root
}
