//! Turns captured frames into observations.

use std::net::IpAddr;

use dataplane::capture::Record;

use decode::bfd::State;
use decode::bgp::Message;
use decode::{Packet, PacketKey, packet_key};

/// A direction of a cable, by the aliases of its ends, such as `spine1:2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lane {
    /// The port where frames enter.
    pub(super) from: String,
    /// The port where frames leave.
    pub(super) to: String,
    /// The name of the cable.
    pub(super) cable: String,
}

impl Lane {
    /// The machine that sends into it.
    pub(super) fn sender(&self) -> &str {
        machine(&self.from)
    }

    /// The machine that it leads to.
    pub(super) fn receiver(&self) -> &str {
        machine(&self.to)
    }
}

/// `spine1` of `spine1:2`, `rack1:u3` of `rack1:u3:1`.
fn machine(port: &str) -> &str {
    port.rsplit_once(':').map_or(port, |(machine, _)| machine)
}

/// The addresses of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

/// A frame that is an event of routing or a packet of the flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Observation {
    /// When it entered the lane, in ns of the fabric's clock.
    pub(super) time: u64,
    /// The index of its lane in the capture.
    pub(super) lane: usize,
    /// Whether the cable dropped it.
    pub(super) lost: bool,
    pub(super) event: Event,
}

/// What a frame means for the measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A router withdraws and announces this many prefixes.
    Updates { withdrawn: usize, announced: usize },
    /// The BGP session is established.
    Keepalive,
    /// A router closes a BGP session; the reason.
    Notification(String),
    /// An end of a BFD session reports that it is down.
    BfdDown,
    /// A packet of the flow; `back` means that it goes from destination to source.
    Flow { key: PacketKey, back: bool },
}

/// The events of a frame: several if a segment has several BGP messages, usually none.
pub(super) fn observe(
    lane: usize,
    record: &Record,
    bytes: &[u8],
    ends: Option<Ends>,
) -> Vec<Observation> {
    // An impairment made this copy; counting it as well would count what was sent twice.
    if record.verdict.copy {
        return Vec::new();
    }
    let observed = |event| Observation {
        time: record.time,
        lane,
        lost: record.verdict.dropped.is_some(),
        event,
    };
    let Some(packet) = Packet::read(bytes) else {
        return Vec::new();
    };
    if let Some(segment) = packet.bgp() {
        return segment
            .messages
            .iter()
            .filter_map(event_of)
            .map(observed)
            .collect();
    }
    if let Some(control) = packet.bfd() {
        let down = matches!(control.state, State::Down | State::AdminDown);
        return down.then(|| observed(Event::BfdDown)).into_iter().collect();
    }
    let key = packet_key(bytes).zip(ends);
    let flow = key.and_then(|(key, ends)| {
        let there = (ends.source, ends.destination);
        let back = match (key.source, key.destination) {
            addresses if addresses == there => false,
            (from, to) if (to, from) == there => true,
            _ => return None,
        };
        Some(observed(Event::Flow { key, back }))
    });
    flow.into_iter().collect()
}

fn event_of(message: &Message) -> Option<Event> {
    match message {
        Message::Update(update) if !update.end_of_rib => Some(Event::Updates {
            withdrawn: update.withdrawn.len(),
            announced: update.announced.len(),
        }),
        Message::Keepalive => Some(Event::Keepalive),
        Message::Notification(notification) => Some(Event::Notification(notification.to_string())),
        _ => None,
    }
}
