//! From captured frames to what matters of them.

use std::net::IpAddr;

use dataplane::capture::Record;

use decode::bfd::State;
use decode::bgp::Message;
use decode::{Packet, PacketKey, packet_key};

/// One direction of a cable, as people call its ends: `spine1:2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lane {
    /// Where frames enter.
    pub(super) from: String,
    /// Where they leave.
    pub(super) to: String,
    /// The cable.
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

/// The two ends of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

/// A frame that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sighting {
    /// When it entered the lane, in ns of the fabric's clock.
    pub(super) time: u64,
    /// Which lane, by its place in the capture.
    pub(super) lane: usize,
    /// It did not get through the cable.
    pub(super) lost: bool,
    pub(super) what: What,
}

/// What matters about a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// Routes come and go: numbers of prefixes.
    Updates { withdrawn: usize, announced: usize },
    /// A BGP session stands.
    Keepalive,
    /// A BGP session ends, and why.
    Notification(String),
    /// A BFD session is not up.
    BfdDown,
    /// A packet of the flow, there or back.
    Flow { key: PacketKey, back: bool },
}

/// What of a frame matters; a segment may hold several messages.
pub(super) fn sight(
    lane: usize,
    record: &Record,
    bytes: &[u8],
    ends: Option<Ends>,
) -> Vec<Sighting> {
    // A copy that an impairment made is no frame that anybody sent.
    if record.verdict.copy {
        return Vec::new();
    }
    let seen = |what| Sighting {
        time: record.time,
        lane,
        lost: record.verdict.dropped.is_some(),
        what,
    };
    let Some(packet) = Packet::read(bytes) else {
        return Vec::new();
    };
    if let Some(segment) = packet.bgp() {
        return segment.messages.iter().filter_map(said).map(seen).collect();
    }
    if let Some(control) = packet.bfd() {
        let down = matches!(control.state, State::Down | State::AdminDown);
        return down.then(|| seen(What::BfdDown)).into_iter().collect();
    }
    let key = packet_key(bytes).zip(ends);
    let flow = key.and_then(|(key, ends)| {
        let there = (ends.source, ends.destination);
        let back = match (key.source, key.destination) {
            addresses if addresses == there => false,
            (from, to) if (to, from) == there => true,
            _ => return None,
        };
        Some(seen(What::Flow { key, back }))
    });
    flow.into_iter().collect()
}

fn said(message: &Message) -> Option<What> {
    match message {
        Message::Update(update) if !update.end_of_rib => Some(What::Updates {
            withdrawn: update.withdrawn.len(),
            announced: update.announced.len(),
        }),
        Message::Keepalive => Some(What::Keepalive),
        Message::Notification(notification) => Some(What::Notification(notification.to_string())),
        _ => None,
    }
}
