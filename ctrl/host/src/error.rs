//! What can be wrong with one change to the host.

use std::io;
use std::path::PathBuf;

use crate::nft::NftError;
use crate::plan::TABLE;

/// Why a change to the host failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A tap could not be created.
    #[error("tap {name}: {source}{}", tap_remedy(source))]
    Tap {
        /// The device's name.
        name: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A device could not be changed.
    #[error("cannot {what} link {name}: {source}")]
    Link {
        /// The verb that follows "cannot", as "raise".
        what: &'static str,
        /// The device's name.
        name: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel's routing socket failed, or the kernel refused a change of several devices.
    #[error("netlink: {0}")]
    Netlink(io::Error),
    /// An address of ours could not be added or removed.
    #[error("address {address} on {link}: {source}")]
    Address {
        /// The address.
        address: ipnet::Ipv4Net,
        /// The device.
        link: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A route of ours could not be added or removed.
    #[error("route {range} on {link}: {source}; `ip route get` shows what is in its way")]
    Route {
        /// The destination.
        range: ipnet::Ipv4Net,
        /// The device.
        link: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The nftables tables could not be loaded or removed.
    #[error("nftables tables {table}: {source}", table = TABLE)]
    Nft {
        /// The reason that nft gave.
        #[from]
        source: NftError,
    },
    /// A kernel setting could not be read or written.
    #[error("sysctl {key}: {source}")]
    Sysctl {
        /// Its path below `/proc/sys/net`.
        key: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A file in the fabric's folder could not be removed.
    #[error("{path}: {source}")]
    Path {
        /// Its path.
        path: PathBuf,
        /// The system's reason.
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
        io::ErrorKind::NotFound => "; /dev/net/tun is missing: `modprobe tun` loads it",
        io::ErrorKind::ResourceBusy => {
            "; a device of this name exists: `ikv-fabric clean` if a fabric left it, otherwise `ip link del`"
        }
        io::ErrorKind::PermissionDenied => "; this needs root",
        _ => "",
    }
}
