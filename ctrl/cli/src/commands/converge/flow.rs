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
    /// The same of the last packet that arrived after the cut.
    pub(crate) path_after: Vec<String>,
    /// The number of packets that were sent while the flow was watched.
    pub(crate) sent: usize,
    /// The number of those that did not arrive.
    pub(crate) lost: usize,
    /// From the cut until the first packet had arrived that took another path, ms.
    pub(crate) new_path_ms: Option<f64>,
    /// The longest time after the cut in which nothing arrived, ms.
    pub(crate) gap_ms: Option<f64>,
}

/// The path of a packet.
#[derive(Debug, Default)]
struct Way {
    /// The time when it entered each lane, and the lane.
    seen: Vec<(u64, usize)>,
    /// Whether a cable dropped it.
    lost: bool,
}

impl Way {
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
        let (key, ways) = ways(observations, back)?;
        let (sender, receiver) = ends(&ways, lanes, cut)?;
        let end = observations.last()?.time;
        let from_sender = |way: &&Way| lanes[way.seen[0].1].sender() == sender;
        let arrives = |way: &&Way| {
            let last = way.seen[way.seen.len() - 1].1;
            !way.lost && lanes[last].receiver() == receiver
        };
        let sent: Vec<_> = ways.iter().filter(from_sender).collect();
        let arrived: Vec<_> = sent.iter().copied().filter(arrives).collect();
        let undecided = |way: &&&Way| way.sent() + ON_THE_WAY > end && !way.lost && !arrives(way);
        let before = arrived.iter().rfind(|way| way.arrived() < cut);
        let after: Vec<_> = arrived.iter().filter(|way| way.arrived() >= cut).collect();
        let old = before.map(|way| way.lanes());
        let new = after.iter().find(|way| Some(way.lanes()) != old);
        let ms = |ns: u64| ns as f64 / 1e6;
        let arrivals: Vec<_> = arrived.iter().map(|way| way.arrived()).collect();
        Some(FlowReport {
            from: key.source.to_string(),
            to: key.destination.to_string(),
            path_before: old.map_or(Vec::new(), |path| ports(&path, lanes)),
            path_after: after
                .last()
                .map_or(Vec::new(), |way| ports(&way.lanes(), lanes)),
            sent: sent.len(),
            lost: sent.len() - arrived.len() - sent.iter().filter(undecided).count(),
            new_path_ms: new.map(|way| ms(way.arrived() - cut)),
            gap_ms: longest_gap(arrivals, cut, end).map(ms),
        })
    }
}

/// The lanes that the flow takes now: those of the last packet that arrived.
pub(super) fn path(observations: &[Observation], lanes: &[Lane]) -> Vec<usize> {
    let Some((_, ways)) = ways(observations, false) else {
        return Vec::new();
    };
    let Some((_, receiver)) = ends(&ways, lanes, u64::MAX) else {
        return Vec::new();
    };
    let paths = ways.iter().rev().filter(|way| !way.lost).map(Way::lanes);
    let arrives = |path: &Vec<usize>| lanes[path[path.len() - 1]].receiver() == receiver;
    paths.into_iter().find(arrives).unwrap_or_default()
}

/// The packets in the order in which they were sent, and the key of one.
fn ways(observations: &[Observation], back: bool) -> Option<(PacketKey, Vec<Way>)> {
    let mut ways: HashMap<PacketKey, Way> = HashMap::new();
    let mut any = None;
    for observation in observations {
        let Event::Flow { key, back: is_back } = observation.event else {
            continue;
        };
        if is_back == back {
            any = Some(key);
            let way = ways.entry(key).or_default();
            way.seen.push((observation.time, observation.lane));
            way.lost |= observation.lost;
        }
    }
    let mut ways: Vec<_> = ways.into_values().collect();
    ways.sort_by_key(Way::sent);
    Some((any?, ways))
}

/// The machines where most packets come from and end: before the cut if there were any.
fn ends<'l>(ways: &[Way], lanes: &'l [Lane], cut: u64) -> Option<(&'l str, &'l str)> {
    let early = ways.iter().take_while(|way| way.arrived() < cut).count();
    let sample = if early > 0 { &ways[..early] } else { ways };
    let first = |way: &Way| lanes[way.seen[0].1].sender();
    let last = |way: &Way| lanes[way.seen[way.seen.len() - 1].1].receiver();
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
