//! Harness of the end-to-end tests: namespaces, fabrics, hosts that plug in.
//!
//! A test that needs what this machine lacks says SKIP and why; under CI (`CI=true`) that is
//! a failure.

mod netns;

pub use netns::{Netns, run};

/// Whether this process may make namespaces and devices. `false` after saying SKIP.
///
/// # Panics
/// Under CI, where nothing may be skipped.
pub fn have_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("SKIP: needs root (run `sudo make test`)");
    }
    root
}
