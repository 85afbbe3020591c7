//! The host's part of a fabric: links, addresses, the route, NAT and guard, forwarding.
//!
//! [`plan`] says what must exist on the host and in which order: pure. [`execute`] does it, having
//! first written to the [`journal`] how to undo it, and undoes it at the end. The other modules
//! each change one kind of thing and decide nothing. [`lock`] keeps two fabrics apart and says
//! where a fabric's files are.
//!
//! Everything acts in the network namespace of the calling thread, so a fabric inside
//! `ip netns exec` stays inside. `vm` and `fabric` may use this crate.

use std::io;

pub mod address;
pub mod execute;
pub mod firewall;
pub mod journal;
pub mod links;
pub mod lock;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod plan;
pub mod program;
pub mod sysctl;
pub mod watch;

/// Why a change to the host failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A tap could not be made.
    #[error("tap {name}: {source}{}", tap_remedy(source))]
    Tap {
        /// The device's name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A device could not be changed.
    #[error("cannot {what} link {name}: {source}")]
    Link {
        /// What was to be done.
        what: &'static str,
        /// The device's name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel's routing socket.
    #[error("netlink: {0}")]
    Netlink(io::Error),
    /// An address of ours.
    #[error("address {address} on {link}: {source}")]
    Address {
        /// The address.
        address: ipnet::Ipv4Net,
        /// The device.
        link: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A route of ours.
    #[error("route {range} on {link}: {source}; `ip route get` shows what is in its way")]
    Route {
        /// Where it leads.
        range: ipnet::Ipv4Net,
        /// The device.
        link: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The nftables tables.
    #[error("nftables tables {table}: {source}", table = crate::plan::TABLE)]
    Nft {
        /// What nft said.
        #[from]
        source: nft::NftError,
    },
    /// A kernel switch.
    #[error("sysctl {key}: {source}")]
    Sysctl {
        /// Its path below `/proc/sys/net`.
        key: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file in the fabric's folder.
    #[error("{path}: {source}")]
    Path {
        /// Which.
        path: std::path::PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl HostError {
    pub(crate) fn tap(name: &str, source: io::Error) -> Self {
        Self::Tap {
            name: name.to_owned(),
            source,
        }
    }

    pub(crate) fn link(what: &'static str, name: &str, source: io::Error) -> Self {
        Self::Link {
            what,
            name: name.to_owned(),
            source,
        }
    }

    pub(crate) fn sysctl(key: &str, source: io::Error) -> Self {
        Self::Sysctl {
            key: key.to_owned(),
            source,
        }
    }
}

fn tap_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; /dev/net/tun is missing: `modprobe tun` mends it",
        io::ErrorKind::ResourceBusy => {
            "; a device of this name exists: `ikv-fabric clean` if a fabric left it, else `ip link del`"
        }
        io::ErrorKind::PermissionDenied => "; root is needed",
        _ => "",
    }
}
