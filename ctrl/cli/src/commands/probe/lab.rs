//! The hosts of a probe and their checks: leases, pings, transfers.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use smoltcp::wire::EthernetAddress;

use super::device::Nic;
use super::flow::{Datagrams, Pair, tcp, udp};
use super::host::{Host, poll_or_wait};
use super::report::{HostReport, PingReport, Report, TransferReport};
use api::Position;
use model::cable_change::CableState;
use model::topology::NodeJson;

/// How long a host waits for a lease.
const LEASE: Duration = Duration::from_secs(4);

/// The number of echo requests from each host to each target.
const ECHOES: usize = 5;

/// The time between two echo requests.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long a host waits for an answer.
const ANSWER: Duration = Duration::from_secs(2);

/// The default time for all transfers together; each gets at least the shortest time.
const TRANSFERS: Duration = Duration::from_secs(4);
const LEAST: Duration = Duration::from_millis(100);

/// A transfer that fails is tried once more, for this long: if the machine was busy for a moment,
/// TCP waits for a second before it sends again.
const AGAIN: Duration = Duration::from_secs(2);

/// The rate of UDP, in bits per second, where TCP does not get through.
const SLOW: f64 = 1e6;

/// The longest wait for a frame before deadlines and interruptions are checked again.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// What the probe checks.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The leaves, whose logs say what they refused.
    pub(super) leaves: Vec<NodeJson>,
    /// The addresses that each host pings besides its gateway and the other hosts.
    pub(super) targets: Vec<(String, Ipv4Addr)>,
    /// Whether there are transfers.
    pub(super) transfers: bool,
    /// The length of each transfer.
    pub(super) time: Option<Duration>,
    /// The least rate of TCP that passes, in bits per second.
    pub(super) least: f64,
    /// The share of the datagrams that may be lost, 0..=1.
    pub(super) tolerance: f64,
}

/// The hosts of a probe. Dropping it unplugs them.
pub(super) struct Lab {
    positions: Vec<Position>,
    hosts: Vec<Host>,
    /// Why the host of the same index is not plugged in.
    troubles: Vec<Option<String>>,
}

/// Called with the name of each stage of a probe as it begins.
pub(super) type Progress<'t> = &'t dyn Fn(&str);

impl Lab {
    /// A host for each position, none plugged in yet.
    pub(super) fn new(positions: Vec<Position>) -> Lab {
        Lab {
            hosts: positions
                .iter()
                .map(|position| Host::new(Nic::loose(), mac(position)))
                .collect(),
            troubles: vec![None; positions.len()],
            positions,
        }
    }

    /// Updates the positions to what the fabric reports `now`.
    pub(super) fn refresh(&mut self, now: &[Position]) {
        for position in &mut self.positions {
            if let Some(found) = now.iter().find(|found| found.name == position.name) {
                position.clone_from(found);
            }
        }
    }

    /// Makes each check once.
    pub(super) fn probe(
        &mut self,
        plan: &Plan,
        stop: &AtomicBool,
        progress: Progress<'_>,
    ) -> io::Result<Report> {
        let began = Instant::now();
        let mut report = Report::default();
        self.plug();
        progress("leases");
        self.lease(stop)?;
        progress("pings");
        report.pings = self.ping(plan, stop)?;
        if plan.transfers {
            report.transfers = self.transfer(plan, stop, progress)?;
        }
        // Last, so that a host that lost its lease or its cable meanwhile is red.
        report.hosts = self.hosts();
        report.seconds = began.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Plugs in the hosts that are not plugged in.
    fn plug(&mut self) {
        for ((position, host), trouble) in self
            .positions
            .iter()
            .zip(&mut self.hosts)
            .zip(&mut self.troubles)
        {
            if host.nic.is_plugged() {
                continue;
            }
            let (nic, why) = match Nic::plug(&position.socket) {
                Ok(nic) => (nic, None),
                Err(error) => {
                    let why = match (position.cable, position.held) {
                        (CableState::Down, _) => "its cable is down".into(),
                        (_, Some(_)) => "another VM is plugged in now".into(),
                        _ => format!("cannot plug in: {error}"),
                    };
                    (Nic::loose(), Some(why))
                }
            };
            *host = Host::new(nic, mac(position));
            *trouble = why;
        }
    }

    /// Waits until every host that is plugged in has a lease, or [`LEASE`] is over.
    fn lease(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let deadline = Instant::now() + LEASE;
        let waits = |host: &mut Host| host.lease.is_none() && host.nic.is_plugged();
        while self.hosts.iter_mut().any(waits)
            && Instant::now() < deadline
            && !stop.load(Ordering::Relaxed)
        {
            poll_or_wait(&mut self.hosts, CHECK_INTERVAL)?;
        }
        Ok(())
    }

    /// Reports each host, and why it has no lease.
    fn hosts(&mut self) -> Vec<HostReport> {
        let all = self
            .positions
            .iter()
            .zip(&mut self.hosts)
            .zip(&self.troubles);
        all.map(|((position, host), trouble)| {
            let lease = host.lease;
            let trouble = if let Some(why) = trouble {
                Some(why.clone())
            } else if let Some(fault) = &host.nic.fault {
                Some(fault.to_string())
            } else if !host.nic.is_plugged() {
                Some("it was unplugged by the fabric".into())
            } else if lease.is_none() {
                Some(format!("no DHCP lease from {}", position.leaf))
            } else {
                None
            };
            HostReport {
                green: trouble.is_none(),
                position: position.rack_and_u(),
                mac: position.mac.clone(),
                address: lease.map(|lease| lease.address.to_string()),
                gateway: lease
                    .and_then(|lease| lease.gateway)
                    .map(|gateway| gateway.to_string()),
                lease_ms: lease.map(|lease| ms(lease.after)),
                trouble,
            }
        })
        .collect()
    }

    /// The targets that the host `from` pings.
    fn targets(&self, from: usize, plan: &Plan) -> Vec<(String, Ipv4Addr)> {
        let Some(lease) = self.hosts[from].lease else {
            return Vec::new();
        };
        let others = (0..self.hosts.len()).filter(|to| *to != from);
        let others = others.filter_map(|to| {
            let address = self.hosts[to].address()?;
            Some((self.positions[to].rack_and_u(), address))
        });
        let gateway = lease.gateway.map(|gateway| ("gateway".to_owned(), gateway));
        others
            .chain(gateway)
            .chain(plan.targets.iter().cloned())
            .collect()
    }

    /// All hosts ping at once, each one target after the other, so that a burst of requests does not
    /// delay the answers that it measures.
    fn ping(&mut self, plan: &Plan, stop: &AtomicBool) -> io::Result<Vec<PingReport>> {
        let mut series: Vec<_> = (0..self.hosts.len())
            .map(|from| Series::new(self.targets(from, plan)))
            .collect();
        let most = series.iter().map(|series| series.targets.len()).max();
        let steps = most.unwrap_or(0) * ECHOES;
        let pause = INTERVAL / most.unwrap_or(1).max(1) as u32;
        let began = Instant::now();
        let mut step = 0;
        while !stop.load(Ordering::Relaxed) {
            if step < steps && began.elapsed() >= pause * step as u32 {
                for (host, series) in self.hosts.iter_mut().zip(&mut series) {
                    series.send(host);
                }
                step += 1;
            }
            let next = pause * step as u32;
            poll_or_wait(
                &mut self.hosts,
                next.saturating_sub(began.elapsed()).min(CHECK_INTERVAL),
            )?;
            for (host, series) in self.hosts.iter_mut().zip(&mut series) {
                series.take_answers(host);
            }
            let all = series.iter().all(Series::is_done);
            if step == steps && (all || began.elapsed() > next + ANSWER) {
                break;
            }
        }
        let reports = self.positions.iter().zip(series);
        Ok(reports
            .flat_map(|(position, series)| series.reports(&position.rack_and_u()))
            .collect())
    }

    /// Makes a TCP and a UDP transfer between each pair of hosts. Only one pair transfers at a time, so
    /// that the rates are those of its path.
    fn transfer(
        &mut self,
        plan: &Plan,
        stop: &AtomicBool,
        progress: Progress<'_>,
    ) -> io::Result<Vec<TransferReport>> {
        let pairs = self.pairs();
        let share = TRANSFERS / (2 * pairs.len()).max(1) as u32;
        let time = plan.time.unwrap_or_else(|| share.max(LEAST));
        let mut reports = Vec::new();
        for pair in pairs {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let [from, to] = [pair.from, pair.to].map(|host| self.positions[host].rack_and_u());
            progress(&format!("TCP and UDP from {from} to {to}"));
            let fast = |rate: &f64| *rate >= plan.least;
            let mut stream = tcp(&mut self.hosts, pair, time, stop)?;
            if stream.is_some_and(|rate| !fast(&rate)) {
                stream = tcp(&mut self.hosts, pair, time.max(AGAIN), stop)?;
            }
            // TCP has found how much the path carries. Half of that leaves room for other traffic, so
            // that datagrams are lost only if the path is faulty.
            let rate = stream.map_or(SLOW, |rate| (rate / 2.0).max(SLOW));
            let complete = |seen: &Datagrams| {
                let least = seen.sent as f64 * (1.0 - plan.tolerance);
                seen.sent > 0 && seen.received as f64 >= least
            };
            let mut seen = udp(&mut self.hosts, pair, rate, time, stop)?;
            if seen.received > 0 && !complete(&seen) {
                seen = udp(&mut self.hosts, pair, rate, time.max(AGAIN), stop)?;
            }
            reports.push(TransferReport {
                from,
                to,
                tcp_green: stream.as_ref().is_some_and(fast),
                tcp_bits_per_second: stream,
                udp_green: complete(&seen),
                udp_bits_per_second: seen.bits_per_second,
                udp_sent: seen.sent,
                udp_received: seen.received,
            });
        }
        Ok(reports)
    }

    /// Each host that has a lease with each other one, in both directions.
    fn pairs(&self) -> Vec<Pair> {
        let ready = || (0..self.hosts.len()).filter(|host| self.hosts[*host].lease.is_some());
        let pairs = ready().flat_map(|from| ready().map(move |to| Pair { from, to }));
        pairs.filter(|pair| pair.from != pair.to).collect()
    }
}

/// The echo requests of one host.
struct Series {
    targets: Vec<(String, Ipv4Addr)>,
    sent: usize,
    /// Target and time of the requests that are not answered yet, by sequence number.
    open: HashMap<u16, (usize, Instant)>,
    /// Round-trip times by target.
    times: Vec<Vec<Duration>>,
}

impl Series {
    fn new(targets: Vec<(String, Ipv4Addr)>) -> Series {
        Series {
            times: vec![Vec::new(); targets.len()],
            targets,
            sent: 0,
            open: HashMap::new(),
        }
    }

    /// Sends the next request.
    fn send(&mut self, host: &mut Host) {
        if self.sent == self.targets.len() * ECHOES {
            return;
        }
        let target = self.sent % self.targets.len();
        let number = self.sent as u16;
        // A request for which the host has no buffer counts as not answered.
        host.ping(self.targets[target].1, number);
        self.open.insert(number, (target, Instant::now()));
        self.sent += 1;
    }

    fn take_answers(&mut self, host: &mut Host) {
        for (from, number) in host.answers() {
            if let Some((target, sent)) = self.open.get(&number).copied()
                && self.targets[target].1 == from
            {
                self.open.remove(&number);
                self.times[target].push(sent.elapsed());
            }
        }
    }

    fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    fn reports(self, from: &str) -> Vec<PingReport> {
        let count = self.targets.len();
        let targets = self.targets.into_iter().zip(self.times).enumerate();
        let reports = targets.map(|(index, ((to, address), mut times))| {
            times.sort_unstable();
            PingReport {
                green: times.len() == ECHOES,
                from: from.to_owned(),
                to,
                address: address.to_string(),
                sent: self.sent / count + usize::from(index < self.sent % count),
                answered: times.len(),
                rtt_ms: times.get(times.len() / 2).copied().map(ms),
            }
        });
        reports.collect()
    }
}

fn mac(position: &Position) -> EthernetAddress {
    position
        .mac
        .parse()
        .expect("the fabric writes MAC addresses in their usual form")
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
