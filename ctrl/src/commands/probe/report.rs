//! The report of a probe: passive data.

use serde::{Deserialize, Serialize};

/// The findings of a probe.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether all checks passed.
    pub green: bool,
    /// How long the probe took.
    pub seconds: f64,
    /// Positions that were not used, and why.
    pub skipped: Vec<Skipped>,
    /// The trials that could not be made.
    pub troubles: Vec<String>,
    /// The hosts that were plugged in.
    pub hosts: Vec<HostReport>,
    /// The echo requests between hosts and their targets.
    pub pings: Vec<PingReport>,
    /// The transfers between hosts.
    pub transfers: Vec<TransferReport>,
}

/// A position that was not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// `rack1:u23`, or a rack.
    pub position: String,
    /// Why it was not used.
    pub why: String,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostReport {
    /// Whether it was plugged in and has a lease.
    pub green: bool,
    /// `rack1:u23`.
    pub position: String,
    /// Its MAC address.
    pub mac: String,
    /// Its address and prefix.
    pub address: Option<String>,
    /// Its default gateway.
    pub gateway: Option<String>,
    /// The time from plugging in to the lease.
    pub lease_ms: Option<f64>,
    /// Why it has no lease.
    pub trouble: Option<String>,
}

/// Echo requests from one host to one address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PingReport {
    /// Whether all were answered.
    pub green: bool,
    /// The host's position.
    pub from: String,
    /// Another host's position, `gateway`, `host`, a switch's name, or `outside`.
    pub to: String,
    /// The address.
    pub address: String,
    /// Requests sent.
    pub sent: usize,
    /// Requests answered in time.
    pub answered: usize,
    /// The median of their round-trip times.
    pub rtt_ms: Option<f64>,
}

/// TCP, then UDP, from one host to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransferReport {
    /// The sender's position.
    pub from: String,
    /// The receiver's.
    pub to: String,
    /// Whether TCP carried at least the rate asked for.
    pub tcp_green: bool,
    /// Payload received by TCP; `None` without a connection.
    pub tcp_bits_per_second: Option<f64>,
    /// Whether no more datagrams were lost than allowed.
    pub udp_green: bool,
    /// Payload received by UDP, which is sent at half of TCP's rate.
    pub udp_bits_per_second: f64,
    /// Datagrams sent.
    pub udp_sent: u64,
    /// Datagrams received.
    pub udp_received: u64,
}

impl Report {
    /// The verdicts of all single checks.
    fn verdicts(&self) -> impl Iterator<Item = bool> {
        let hosts = self.hosts.iter().map(|host| host.green);
        let pings = self.pings.iter().map(|ping| ping.green);
        let transfers = self.transfers.iter();
        let transfers = transfers.flat_map(|found| [found.tcp_green, found.udp_green]);
        let troubles = self.troubles.iter().map(|_| false);
        hosts.chain(pings).chain(transfers).chain(troubles)
    }

    /// The number of checks that were made.
    pub fn checks(&self) -> usize {
        self.verdicts().count()
    }

    /// The number of checks that failed.
    pub fn failed(&self) -> usize {
        self.verdicts().filter(|green| !green).count()
    }

    /// Sets the verdict over all: green if something was checked and nothing failed.
    #[must_use]
    pub(super) fn judged(mut self) -> Self {
        self.green = self.checks() > 0 && self.failed() == 0;
        self
    }
}
