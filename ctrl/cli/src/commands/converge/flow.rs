//! What became of a flow's packets, and which paths they took: the same packet, recognised on
//! each cable that it passed.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::observation::{Event, Lane, Observation};
use decode::PacketKey;

/// Packets that were sent less than this before the end, in ns, may still have been on their way.
const ON_THE_WAY: u64 = 500_000_000;

/// One direction of a flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FlowReport {
    /// Address of the sender.
    pub(crate) from: String,
    /// Address of the receiver.
    pub(crate) to: String,
    /// The ports that the packets entered the cables by, and the port where they arrived, before
    /// the cut. Empty when none arrived.
    pub(crate) path_before: Vec<String>,
    /// The same for the last packet that arrived after the cut.
    pub(crate) path_after: Vec<String>,
    /// The number of packets that were sent while the flow was watched.
    pub(crate) sent: usize,
    /// The number of those that did not arrive, without those that may still have been on their way.
    pub(crate) lost: usize,
    /// From the cut until the first packet arrived that took another path, ms.
    pub(crate) new_path_ms: Option<f64>,
    /// The longest time after the cut in which nothing arrived, ms.
    pub(crate) gap_ms: Option<f64>,
}

/// A packet, and where it was captured.
#[derive(Debug, Default)]
struct Packet {
    /// When it entered each lane, in ns of the fabric's clock, and the index of the lane. Never empty.
    seen: Vec<(u64, usize)>,
    /// Whether a cable dropped it.
    lost: bool,
}

impl Packet {
    fn sent(&self) -> u64 {
        self.seen[0].0
    }

    fn arrived(&self) -> u64 {
        self.seen[self.seen.len() - 1].0
    }

    fn lanes(&self) -> Vec<usize> {
        self.seen.iter().map(|(_, lane)| *lane).collect()
    }
}

impl FlowReport {
    /// One direction of the flow in `observations`, which are in order of time. `None` when nothing
    /// of it was observed.
    pub(super) fn of(
        observations: &[Observation],
        lanes: &[Lane],
        back: bool,
        cut: u64,
    ) -> Option<FlowReport> {
        let (key, packets) = packets(observations, back)?;
        let (sender, receiver) = ends(&packets, lanes, cut)?;
        let end = observations.last()?.time;
        let from_sender = |packet: &&Packet| lanes[packet.seen[0].1].sender() == sender;
        let arrives = |packet: &&Packet| {
            let last = packet.seen[packet.seen.len() - 1].1;
            !packet.lost && lanes[last].receiver() == receiver
        };
        let sent: Vec<_> = packets.iter().filter(from_sender).collect();
        let arrived: Vec<_> = sent.iter().copied().filter(arrives).collect();
        let undecided = |packet: &&&Packet| {
            packet.sent() + ON_THE_WAY > end && !packet.lost && !arrives(packet)
        };
        let before = arrived.iter().rfind(|packet| packet.arrived() < cut);
        let after: Vec<_> = arrived
            .iter()
            .filter(|packet| packet.arrived() >= cut)
            .collect();
        let old = before.map(|packet| packet.lanes());
        let new = after.iter().find(|packet| Some(packet.lanes()) != old);
        let ms = |ns: u64| ns as f64 / 1e6;
        let arrivals: Vec<_> = arrived.iter().map(|packet| packet.arrived()).collect();
        Some(FlowReport {
            from: key.source.to_string(),
            to: key.destination.to_string(),
            path_before: old.map_or(Vec::new(), |path| ports(&path, lanes)),
            path_after: after
                .last()
                .map_or(Vec::new(), |packet| ports(&packet.lanes(), lanes)),
            sent: sent.len(),
            lost: sent.len() - arrived.len() - sent.iter().filter(undecided).count(),
            new_path_ms: new.map(|packet| ms(packet.arrived() - cut)),
            gap_ms: longest_gap(arrivals, cut, end).map(ms),
        })
    }
}

/// The lanes that the flow takes now: those of the last packet that arrived.
pub(super) fn path(observations: &[Observation], lanes: &[Lane]) -> Vec<usize> {
    let Some((_, packets)) = packets(observations, false) else {
        return Vec::new();
    };
    let Some((_, receiver)) = ends(&packets, lanes, u64::MAX) else {
        return Vec::new();
    };
    let paths = packets
        .iter()
        .rev()
        .filter(|packet| !packet.lost)
        .map(Packet::lanes);
    let arrives = |path: &Vec<usize>| lanes[path[path.len() - 1]].receiver() == receiver;
    paths.into_iter().find(arrives).unwrap_or_default()
}

/// The packets in the order in which they were sent, and the key of one.
fn packets(observations: &[Observation], back: bool) -> Option<(PacketKey, Vec<Packet>)> {
    let mut packets: HashMap<PacketKey, Packet> = HashMap::new();
    let mut any = None;
    for observation in observations {
        let Event::Flow { key, back: is_back } = observation.event else {
            continue;
        };
        if is_back == back {
            any = Some(key);
            let packet = packets.entry(key).or_default();
            packet.seen.push((observation.time, observation.lane));
            packet.lost |= observation.lost;
        }
    }
    let mut packets: Vec<_> = packets.into_values().collect();
    packets.sort_by_key(Packet::sent);
    Some((any?, packets))
}

/// The machines from which most packets come and to which most go: before the cut if there were any
/// packets, because after it some end on the way.
fn ends<'l>(packets: &[Packet], lanes: &'l [Lane], cut: u64) -> Option<(&'l str, &'l str)> {
    let early = packets
        .iter()
        .take_while(|packet| packet.arrived() < cut)
        .count();
    let sample = if early > 0 {
        &packets[..early]
    } else {
        packets
    };
    let first = |packet: &Packet| lanes[packet.seen[0].1].sender();
    let last = |packet: &Packet| lanes[packet.seen[packet.seen.len() - 1].1].receiver();
    Some((
        most(sample.iter().map(first))?,
        most(sample.iter().map(last))?,
    ))
}

fn most<'l>(names: impl Iterator<Item = &'l str>) -> Option<&'l str> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    // The name decides between equal counts, so that the result does not depend on the map's order.
    let most = counts
        .into_iter()
        .max_by_key(|(name, count)| (*count, *name));
    most.map(|(name, _)| name)
}

fn ports(path: &[usize], lanes: &[Lane]) -> Vec<String> {
    let arrival = path.last().map(|lane| lanes[*lane].to.clone());
    let entered = path.iter().map(|lane| lanes[*lane].from.clone());
    entered.chain(arrival).collect()
}

fn longest_gap(mut arrivals: Vec<u64>, cut: u64, end: u64) -> Option<u64> {
    arrivals.sort_unstable();
    // The gap may have begun just before the cut.
    let first = arrivals.partition_point(|time| *time < cut).checked_sub(1);
    let mut times = arrivals.split_off(first.unwrap_or(0));
    times.push(end.max(cut));
    times.windows(2).map(|pair| pair[1] - pair[0]).max()
}
