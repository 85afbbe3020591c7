//! The report of a probe: passive data.

use serde::{Deserialize, Serialize};

/// The findings of a probe.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Whether all checks passed.
    pub(crate) green: bool,
    /// How long the probe took, in seconds.
    pub(crate) seconds: f64,
    /// Positions that were not used, and why.
    pub(crate) skipped: Vec<Skipped>,
    /// Checks that could not be made, and why; and what is wrong with the host's side of the fabric.
    pub(crate) troubles: Vec<String>,
    /// The hosts that were plugged in.
    pub(crate) hosts: Vec<HostReport>,
    /// The echo requests between hosts and their targets.
    pub(crate) pings: Vec<PingReport>,
    /// The transfers between hosts.
    pub(crate) transfers: Vec<TransferReport>,
    /// What leaves refused to take from servers over BGP. The fabric is healthy all the same.
    #[serde(default)]
    pub(crate) refused: Vec<Refused>,
}

/// Announcements of one neighbour that a leaf refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// The leaf's name.
    pub(crate) leaf: String,
    /// The leaf's port, such as `leaf1:u6`, or the neighbour's address.
    pub(crate) from: String,
    /// Why, such as `shorter than /8`.
    pub(crate) why: String,
    /// The prefixes, the latest last, at most 32.
    pub(crate) prefixes: Vec<String>,
}

/// A position that was not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Skipped {
    /// `rack1:u23`, or a rack.
    pub(crate) position: String,
    /// Why it was not used.
    pub(crate) why: String,
}

/// A host, and whether it got a lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct HostReport {
    /// Whether it was plugged in and has a lease.
    pub(crate) green: bool,
    /// Where it is plugged in: `rack1:u23`.
    pub(crate) position: String,
    pub(crate) mac: String,
    /// Its address and prefix.
    pub(crate) address: Option<String>,
    pub(crate) gateway: Option<String>,
    /// The time from plugging in to the lease, in ms.
    pub(crate) lease_ms: Option<f64>,
    /// Why it has no lease.
    pub(crate) trouble: Option<String>,
}

/// Echo requests from one host (its position) to one address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PingReport {
    /// Whether all were answered.
    pub(crate) green: bool,
    pub(crate) from: String,
    /// Another host's position, `gateway`, `host`, a switch's name, or `outside`.
    pub(crate) to: String,
    /// The address of `to`.
    pub(crate) address: String,
    pub(crate) sent: usize,
    /// Requests answered in time.
    pub(crate) answered: usize,
    /// The median of their round-trip times, in ms.
    pub(crate) rtt_ms: Option<f64>,
}

/// TCP, then UDP, from one host to another, by their positions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TransferReport {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Whether TCP reached the rate of `--at-least`.
    pub(crate) tcp_green: bool,
    /// Payload received by TCP; `None` without a connection.
    pub(crate) tcp_bits_per_second: Option<f64>,
    /// Whether no more datagrams were lost than allowed.
    pub(crate) udp_green: bool,
    /// Payload received by UDP, which is sent at half of TCP's rate.
    pub(crate) udp_bits_per_second: f64,
    pub(crate) udp_sent: u64,
    pub(crate) udp_received: u64,
}

impl Report {
    /// Whether each single check passed.
    fn verdicts(&self) -> impl Iterator<Item = bool> {
        let hosts = self.hosts.iter().map(|host| host.green);
        let pings = self.pings.iter().map(|ping| ping.green);
        let transfers = self.transfers.iter();
        let transfers = transfers.flat_map(|found| [found.tcp_green, found.udp_green]);
        let troubles = self.troubles.iter().map(|_| false);
        hosts.chain(pings).chain(transfers).chain(troubles)
    }

    /// The number of checks that were made.
    pub(crate) fn checks(&self) -> usize {
        self.verdicts().count()
    }

    /// The number of checks that failed.
    pub(crate) fn failed(&self) -> usize {
        self.verdicts().filter(|green| !green).count()
    }

    /// Sets the overall verdict: green if at least one check was made and none failed.
    #[must_use]
    pub(super) fn judged(mut self) -> Self {
        self.green = self.checks() > 0 && self.failed() == 0;
        self
    }
}
