//! BGP messages in a TCP segment (RFC 4271), each segment for itself: what began in the segment
//! before is skipped, what ends in the next one is read as far as it goes.
//!
//! NLRI is read without path identifiers (RFC 7911): whether a session has them cannot be seen
//! in a segment.

mod error;
mod update;

use std::net::Ipv4Addr;

pub use error::Notification;
pub use update::Update;

use super::bytes::Bytes;

/// Its TCP port.
pub const PORT: u16 = 179;

/// What each message begins with.
const MARKER: [u8; 16] = [0xff; 16];
/// Marker, length and type.
const HEADER: usize = 19;

/// What a segment holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segment {
    /// The messages that begin in it. Of the last one, its end may be missing.
    pub messages: Vec<Message>,
    /// It begins in the midst of a message.
    pub continued: bool,
    /// Its last message goes on in the next segment, or the frame was cut.
    pub cut: bool,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A speaker tells who it is.
    Open(Open),
    /// Routes come and go.
    Update(Update),
    /// The session ends, and why.
    Notification(Notification),
    /// The speaker is there.
    Keepalive,
    /// Asks for all routes again (RFC 2918).
    RouteRefresh,
    /// Of an unknown type.
    Other(u8),
}

/// What a speaker tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Its autonomous system; with four octets where it tells them (RFC 6793).
    pub asn: u32,
    /// Seconds of silence after which it takes its peer for dead; 0 is never.
    pub hold_time: u16,
    /// Its router identifier.
    pub identifier: Ipv4Addr,
}

/// The messages in the payload of a TCP segment from or to [`PORT`].
pub fn segment(payload: &[u8]) -> Segment {
    let mut segment = Segment::default();
    let Some(start) = first_marker(payload) else {
        segment.continued = !payload.is_empty();
        return segment;
    };
    segment.continued = start > 0;
    let mut left = Bytes(&payload[start..]);
    while !left.0.is_empty() {
        let header = left;
        let Some((kind, length)) = head(&mut left) else {
            segment.cut = MARKER.starts_with(header.up_to_marker());
            return segment;
        };
        let body = left.up_to(length);
        segment.cut = body.len() < length;
        if let Some(message) = message(kind, body) {
            segment.messages.push(message);
        }
    }
    segment
}

impl<'a> Bytes<'a> {
    fn up_to_marker(mut self) -> &'a [u8] {
        self.up_to(MARKER.len())
    }
}

fn first_marker(payload: &[u8]) -> Option<usize> {
    let whole = payload.windows(MARKER.len()).position(|at| at == MARKER);
    // A segment that begins with a piece of a header shorter than a marker.
    whole.or_else(|| (!payload.is_empty() && MARKER.starts_with(payload)).then_some(0))
}

/// Type and length of the body.
fn head(left: &mut Bytes<'_>) -> Option<(u8, usize)> {
    if left.array()? != MARKER {
        return None;
    }
    let length = usize::from(left.u16()?).checked_sub(HEADER)?;
    Some((left.u8()?, length))
}

fn message(kind: u8, body: &[u8]) -> Option<Message> {
    Some(match kind {
        1 => Message::Open(open(body)?),
        2 => Message::Update(Update::read(body)),
        3 => Message::Notification(Notification::read(body)?),
        4 => Message::Keepalive,
        5 => Message::RouteRefresh,
        other => Message::Other(other),
    })
}

fn open(body: &[u8]) -> Option<Open> {
    let mut left = Bytes(body);
    let _version = left.u8()?;
    let asn = left.u16()?;
    let hold_time = left.u16()?;
    let identifier = left.ipv4()?;
    Some(Open {
        asn: four_octets(left).unwrap_or(asn.into()),
        hold_time,
        identifier,
    })
}

/// The AS number in the capability "four octets" (RFC 6793), if it is there.
fn four_octets(mut left: Bytes<'_>) -> Option<u32> {
    const CAPABILITIES: u8 = 2;
    const FOUR_OCTETS: u8 = 65;
    left.u8()?;
    // RFC 9072: where the first parameter is 255, lengths have two octets.
    let extended = left.0.first() == Some(&255);
    if extended {
        left.take(3)?;
    }
    loop {
        let parameter = left.u8()?;
        let length = if extended {
            left.u16()?
        } else {
            left.u8()?.into()
        };
        let mut value = Bytes(left.up_to(length.into()));
        while parameter == CAPABILITIES && !value.0.is_empty() {
            let code = value.u8()?;
            let length = value.u8()?;
            let mut capability = Bytes(value.take(length.into())?);
            if code == FOUR_OCTETS {
                return capability.u32();
            }
        }
    }
}

#[cfg(test)]
mod tests;
