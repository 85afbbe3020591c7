//! The way out to the world: pasta (passt), which carries what leaves the namespace by sockets of the
//! user, without any rights.

use std::path::PathBuf;

use super::helper::Helper;
use crate::links;
use crate::netlink::Netlink;
use crate::{packages, program};

/// The link in the namespace that leads out.
pub const WORLD: &str = "world";

/// With addresses and routes as on the host, of IPv4: only these are kept from the fabric's guests.
/// Nothing that listens on the host's loopback is reached
/// from inside (`--no-map-gw`, `-T`, `-U`), and nothing inside from the host's network (`-t`, `-u`).
const OPTIONS: [&str; 17] = [
    "--foreground",
    "--quiet",
    "--config-net",
    "--ipv4-only",
    "--no-map-gw",
    "--ns-ifname",
    WORLD,
    "--tcp-ports",
    "none",
    "--udp-ports",
    "none",
    "--tcp-ns",
    "none",
    "--udp-ns",
    "none",
    "--mtu",
    "65520",
];

/// The program's path.
///
/// # Errors
/// What to install.
pub(super) fn pasta() -> Result<PathBuf, String> {
    let missing = || {
        format!(
            "pasta is not installed: `{}`",
            packages::install(&["passt"])
        )
    };
    program::find("pasta").ok_or_else(missing)
}

/// Whether the fabric has a way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WayOutState {
    /// It has one.
    Open,
    /// It is being made.
    Opening,
    /// It has none, for this reason.
    None(String),
}

/// A pasta.
#[derive(Debug)]
pub(super) struct WayOut {
    helper: Helper,
    /// Its link has been up.
    open: bool,
}

impl WayOut {
    /// Prepares a pasta for the namespaces that the process `pid` will be in.
    ///
    /// # Errors
    /// What is missing, with the remedy.
    pub(super) fn prepare(pid: &str) -> Result<Self, String> {
        let pasta = pasta()?;
        let pasta = pasta.to_string_lossy();
        let words: Vec<&str> = [&*pasta].into_iter().chain(OPTIONS).chain([pid]).collect();
        let helper = Helper::prepare(&words).map_err(|error| format!("pasta: {error}"))?;
        let open = false;
        Ok(Self { helper, open })
    }

    pub(super) fn start(&mut self) {
        // If it cannot be started, it has ended, which the state tells.
        let _ = self.helper.start();
    }

    pub(super) fn state(&mut self) -> WayOutState {
        if let Some(why) = self.helper.ended() {
            return WayOutState::None(format!("pasta has ended: {why}"));
        }
        if !self.open {
            let links = Netlink::open().and_then(|mut netlink| links::list(&mut netlink));
            let leads_out = |link: &links::Link| link.name == WORLD && link.up;
            self.open = links.is_ok_and(|links| links.iter().any(leads_out));
        }
        if self.open {
            WayOutState::Open
        } else {
            WayOutState::Opening
        }
    }
}
