//! BGP messages in a TCP segment (RFC 4271). Each segment is decoded on its own: the end of a
//! message that began in the segment before is skipped, and a message that ends in the next one
//! is decoded as far as it goes.
//!
//! Prefixes are decoded without path identifiers (RFC 7911): a segment does not show whether its
//! session uses them.

mod error;
mod update;

use std::net::Ipv4Addr;

pub use error::Notification;
pub use update::Update;

use super::bytes::Cursor;

/// The TCP port of BGP.
pub const PORT: u16 = 179;

/// The first bytes of each message.
const MARKER: [u8; 16] = [0xff; 16];
/// The length of marker, length and type in bytes.
const HEADER: usize = 19;

/// The messages of a TCP segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segment {
    /// The messages that begin in it. The last one may be incomplete.
    pub messages: Vec<Message>,
    /// Whether the segment begins within a message.
    pub continued: bool,
    /// Whether the last message continues in the next segment or the frame was truncated.
    pub cut: bool,
}

/// A message of a BGP session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The speaker introduces itself.
    Open(Open),
    /// The speaker announces and withdraws routes.
    Update(Update),
    /// The speaker closes the session, and why.
    Notification(Notification),
    /// The speaker is alive.
    Keepalive,
    /// The speaker asks for all routes again (RFC 2918).
    RouteRefresh,
    /// A message of a type that is not known.
    Other(u8),
}

/// How a speaker introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Its autonomous system; the number with four octets if it sends one (RFC 6793).
    pub asn: u32,
    /// After how many seconds without a message it declares its peer dead; 0: never.
    pub hold_time: u16,
    /// Its router identifier.
    pub identifier: Ipv4Addr,
}

/// Decodes the payload of a TCP segment from or to [`PORT`].
pub fn segment(payload: &[u8]) -> Segment {
    let mut segment = Segment::default();
    let Some(start) = first_marker(payload) else {
        segment.continued = !payload.is_empty();
        return segment;
    };
    segment.continued = start > 0;
    let mut left = Cursor(&payload[start..]);
    while !left.0.is_empty() {
        let mut start = left;
        let Some((kind, length)) = header(&mut left) else {
            segment.cut = MARKER.starts_with(start.up_to(MARKER.len()));
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

fn first_marker(payload: &[u8]) -> Option<usize> {
    let complete = payload.windows(MARKER.len()).position(|at| at == MARKER);
    // A segment may consist of the first bytes of a marker.
    complete.or_else(|| (!payload.is_empty() && MARKER.starts_with(payload)).then_some(0))
}

/// The type of a message and the length of its body.
fn header(left: &mut Cursor<'_>) -> Option<(u8, usize)> {
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
    let mut left = Cursor(body);
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

/// The AS number in the four-octet AS capability (RFC 6793), if the speaker sends it.
fn four_octets(mut left: Cursor<'_>) -> Option<u32> {
    const CAPABILITIES: u8 = 2;
    const FOUR_OCTETS: u8 = 65;
    left.u8()?;
    // RFC 9072: if the first parameter is 255, lengths have two octets.
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
        let mut value = Cursor(left.up_to(length.into()));
        while parameter == CAPABILITIES && !value.0.is_empty() {
            let code = value.u8()?;
            let length = value.u8()?;
            let mut capability = Cursor(value.take(length.into())?);
            if code == FOUR_OCTETS {
                return capability.u32();
            }
        }
    }
}

#[cfg(test)]
mod tests;
