//! What Enter shows of a row: every figure, in words.

use super::columns::{length, wrapped};
use super::rows::Row;
use crate::commands::impair::report;
use crate::commands::{cables, places};
use api::{CableReport, LaneReport, NodeStatus, Position};
use model::{printable, utc};

/// Width of the names of figures, and of the figures of a lane.
const NAME: usize = 14;
const FIGURE: usize = 26;

/// Lines of at most `width` characters.
pub(super) fn lines(row: &Row<'_>, width: usize) -> Vec<String> {
    let lines = match row {
        Row::Switch(node) => of_switch(node),
        Row::Cable(cable, _) => of_cable(cable),
        Row::Place(place) => of_place(place),
    };
    // Tables fit by their shape; sentences are wrapped.
    let fits = |line: &String| length(line) <= width;
    let lines = lines.into_iter().flat_map(|line| {
        if fits(&line) {
            vec![line]
        } else {
            wrapped(&line, width)
        }
    });
    lines.collect()
}

fn figure(name: &str, text: &str) -> String {
    format!("{name:<NAME$}{text}")
}

fn time(ns: Option<u64>) -> String {
    ns.map_or_else(|| "-".into(), |ns| utc::date_and_time(utc::at_ns(ns)))
}

fn of_switch(node: &NodeStatus) -> Vec<String> {
    let sessions = format!("{} of {}", node.bgp.established, node.bgp.expected);
    let mut lines = vec![
        figure("switch", &node.name),
        figure("role", &node.role),
        figure("state", node.state.name()),
        figure("since", &time(node.since_ns)),
        figure("BGP sessions", &sessions),
    ];
    if !node.note.is_empty() {
        lines.push(String::new());
        lines.push(printable::head(node.note.as_bytes(), 1000));
    }
    lines
}

fn of_place(place: &Position) -> Vec<String> {
    let mut lines = vec![
        figure("position", &place.rack_and_u()),
        figure("end", &place.name),
        figure("leaf", &place.leaf),
        figure("cable", place.cable.name()),
        figure("plugged in by", places::by(place)),
        figure("since", &time(place.since_ns)),
    ];
    if place.guest.is_none() {
        lines.push(String::new());
        lines.push(format!(
            "{} has not said what it has learned of this server.",
            place.leaf
        ));
        return lines;
    }
    lines.push(figure("name", &places::name(place)));
    for (name, all) in [
        ("MAC", places::macs(place)),
        ("address", places::addresses(place)),
    ] {
        lines.extend(all.iter().map(|one| figure(name, one)));
    }
    lines
}

fn of_cable(cable: &CableReport) -> Vec<String> {
    let [there, back] = &cable.lanes;
    let two = |name: &str, [a, b]: [String; 2]| format!("{name:<NAME$}{a:>FIGURE$}{b:>FIGURE$}");
    let count = |name: &str, of: fn(&LaneReport) -> u64| {
        two(name, [of(there).to_string(), of(back).to_string()])
    };
    let mut lines = vec![
        figure("cable", &cable.name),
        figure("state", cables::state(cable)),
        String::new(),
        two("", [ends(there), ends(back)]),
        count("frames in", |lane| lane.frames_in),
        count("bytes in", |lane| lane.bytes_in),
        count("frames out", |lane| lane.frames_out),
        count("held now", |lane| lane.held),
    ];
    let mut reasons: Vec<_> = there.drops.keys().chain(back.drops.keys()).collect();
    reasons.sort();
    reasons.dedup();
    lines.push(count("dropped", |lane| lane.drops.values().sum()));
    for reason in reasons {
        let of = |lane: &LaneReport| lane.drops.get(reason).copied().unwrap_or(0).to_string();
        lines.push(two(&format!("  {reason}"), [of(there), of(back)]));
    }
    let others: [(&str, Counter); 6] = [
        ("throttled", |lane| lane.throttled),
        ("delayed", |lane| lane.delayed),
        ("duplicated", |lane| lane.duplicated),
        ("corrupted", |lane| lane.corrupted),
        ("reordered", |lane| lane.reordered),
        ("ECN-marked", |lane| lane.marked),
    ];
    let others = others.iter();
    let others = others.filter(|(_, of)| of(there) + of(back) > 0);
    lines.extend(others.map(|(name, of)| count(name, *of)));
    if let Some(closed) = &cable.closed {
        lines.push(String::new());
        lines.push(format!("! {}", printable::head(closed.as_bytes(), 500)));
    }
    for lane in &cable.lanes {
        let report = report::lines(lane);
        if !report.is_empty() {
            lines.push(String::new());
            lines.push(format!("impairment {}", ends(lane)));
            lines.extend(report);
        }
    }
    lines
}

/// Reads one counter of a lane.
type Counter = fn(&LaneReport) -> u64;

fn ends(lane: &LaneReport) -> String {
    format!("{} > {}", lane.from, lane.to)
}
