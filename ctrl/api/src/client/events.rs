//! Reads a stream of events: [`EventReader`].

use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{Client, ClientError};
use crate::{Event, Streamed};

/// The most bytes of one event on the wire: its texts are bounded, this is several times as much.
const LONGEST: usize = 16 << 10;

/// The events of a fabric, one after the other.
#[derive(Debug)]
pub struct EventReader {
    client: Client,
    body: Incoming,
    frames: Frames,
}

impl EventReader {
    pub(super) fn new(client: Client, body: Incoming) -> Self {
        EventReader {
            client,
            body,
            frames: Frames::default(),
        }
    }

    /// Waits for the next event. `None` once the fabric has ended the stream. May be dropped and called
    /// again without loss.
    ///
    /// # Errors
    /// When the fabric ends in mid-stream, or sends something that is not of this version.
    pub async fn next(&mut self) -> Result<Option<Streamed>, ClientError> {
        loop {
            match self.frames.next() {
                Ok(Some(streamed)) => return Ok(Some(streamed)),
                Ok(None) => {}
                Err(error) => return Err(self.client.broken(error)),
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.client.broken(error)),
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.frames.push(bytes);
                    }
                }
            }
        }
    }
}

/// Takes server-sent events apart, as far as our own server writes them: lines end with LF, and an event
/// has one line of data.
#[derive(Debug, Default)]
struct Frames {
    waiting: Vec<u8>,
}

impl Frames {
    fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// The next event that is complete.
    ///
    /// # Errors
    /// When it is none of this version, or has no end.
    fn next(&mut self) -> Result<Option<Streamed>, String> {
        loop {
            let end = self.waiting.windows(2).position(|pair| pair == b"\n\n");
            if end.unwrap_or(self.waiting.len()) > LONGEST {
                return Err(format!("an event of more than {LONGEST} bytes"));
            }
            let Some(end) = end else {
                return Ok(None);
            };
            let frame: Vec<u8> = self.waiting.drain(..end + 2).collect();
            if let Some(streamed) = parse(&String::from_utf8_lossy(&frame))? {
                return Ok(Some(streamed));
            }
        }
    }
}

/// One event. `None` for a comment.
fn parse(frame: &str) -> Result<Option<Streamed>, String> {
    let (mut name, mut data) = ("", None);
    for line in frame.lines() {
        match line.split_once(": ") {
            Some(("event", value)) => name = value,
            Some(("data", value)) => data = Some(value),
            _ => {}
        }
    }
    let Some(data) = data else {
        return Ok(None);
    };
    let parsed = if name == Streamed::LAGGED {
        serde_json::from_str(data).map(Streamed::Lagged)
    } else {
        serde_json::from_str::<Event>(data).map(|event| Streamed::Event(Arc::new(event)))
    };
    parsed.map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EventKind, Lagged};

    const STREAM: &str = concat!(
        ":\n\n",
        "id: 7\nevent: carrier\ndata: {\"id\":7,\"time\":\"now\",\"kind\":\"carrier\",\"subject\":\"a: b\",\"text\":\"é\"}\n\n",
        ":\n\n",
        "id: 9\nevent: lagged\ndata: {\"missed\":2,\"since\":9}\n\n",
    );

    #[test]
    fn events_are_read_wherever_the_stream_is_cut() {
        for size in 1..STREAM.len() {
            let mut frames = Frames::default();
            let mut read = Vec::new();
            for piece in STREAM.as_bytes().chunks(size) {
                frames.push(piece);
                while let Some(streamed) = frames.next().unwrap() {
                    read.push(streamed);
                }
            }
            let [Streamed::Event(event), Streamed::Lagged(lagged)] = &read[..] else {
                panic!("{size}: {read:?}");
            };
            assert_eq!((event.id, event.kind), (7, EventKind::Carrier));
            assert_eq!((&*event.subject, &*event.text), ("a: b", "é"));
            let expected = Lagged {
                missed: 2,
                since: 9,
            };
            assert_eq!(*lagged, expected);
        }
    }

    #[test]
    fn an_event_without_an_end_is_not_waited_for() {
        let mut frames = Frames::default();
        frames.push(&vec![b'x'; LONGEST]);
        assert_eq!(frames.next(), Ok(None));
        frames.push(b"x");
        assert!(frames.next().is_err());
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for data in ["{}", "[", "{\"id\":1,\"kind\":\"other\"}"] {
            let mut frames = Frames::default();
            frames.push(format!("data: {data}\n\n").as_bytes());
            assert!(frames.next().is_err(), "{data}");
        }
    }
}
