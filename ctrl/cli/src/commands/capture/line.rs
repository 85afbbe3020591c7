//! A frame as a line of text or of JSON.

use dataplane::capture::Record;
use dataplane::offload::pieces;
use serde::Serialize;

use api::capture::verdict;
use api::{CaptureInterface, CaptureStart};
use model::printable;

/// The longest summary of a frame, in characters.
const LONGEST: usize = 500;

/// A frame as a line; in JSON its keys are the fields.
#[derive(Debug, Serialize)]
pub(super) struct Line<'f> {
    /// Nanoseconds since 1970, UTC.
    time_ns: u64,
    port: &'f str,
    cable: &'f str,
    direction: &'static str,
    /// Bytes on the wire, without FCS.
    length: u32,
    captured: usize,
    summary: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    verdict: String,
}

impl<'f> Line<'f> {
    pub(super) fn new(
        start: &CaptureStart,
        interface: &'f CaptureInterface,
        record: &Record,
        bytes: &[u8],
    ) -> Self {
        let super_frame = pieces(&record.header, bytes, record.len as usize);
        Line {
            time_ns: record.time + start.wall_offset,
            port: &interface.name,
            cable: &interface.cable,
            direction: if start.wire { "out" } else { "in" },
            length: record.len,
            captured: bytes.len(),
            // A guest may have put control characters into names and texts.
            summary: printable::head(decode::summary(bytes).as_bytes(), LONGEST),
            verdict: verdict::comment(&record.verdict, super_frame),
        }
    }

    /// `21:45:03.123456789Z ikst12 in  …`, with the end of the line. Port names are padded to the
    /// longest of the capture.
    pub(super) fn text(&self, start: &CaptureStart) -> String {
        let widest = start.interfaces.iter().map(|port| port.name.len()).max();
        let mut text = format!(
            "{} {:width$} {:<3} {}, {} bytes",
            time_of_day(self.time_ns),
            self.port,
            self.direction,
            self.summary,
            self.length,
            width = widest.unwrap_or(0)
        );
        if !self.verdict.is_empty() {
            text += &format!(" [{}]", self.verdict);
        }
        text.push('\n');
        text
    }

    /// One JSON object, with the end of the line.
    pub(super) fn json(&self) -> String {
        let mut text = serde_json::to_string(self).expect("numbers and strings are always JSON");
        text.push('\n');
        text
    }
}

/// The time of day in UTC, the clock that all hosts of a datacenter share.
fn time_of_day(ns: u64) -> String {
    let (seconds, ns) = (ns / 1_000_000_000, ns % 1_000_000_000);
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{ns:09}Z", seconds % 60)
}

#[cfg(test)]
mod tests {
    use dataplane::capture::Verdict;

    use super::*;

    fn start() -> CaptureStart {
        let port = |name: &str| CaptureInterface {
            name: name.into(),
            alias: name.into(),
            peer: "peer".into(),
            cable: "wire".into(),
        };
        CaptureStart {
            interfaces: vec![port("pa"), port("longer")],
            wall_offset: 1_700_000_000_000_000_000,
            ..CaptureStart::default()
        }
    }

    #[test]
    fn a_line_says_when_where_and_what() {
        let record = Record {
            time: 5,
            len: 60,
            verdict: Verdict {
                delay: Some(10_000_000),
                ..Verdict::default()
            },
            ..Record::default()
        };
        let start = start();
        let line = Line::new(&start, &start.interfaces[0], &record, &[0; 60]);
        let said = line.text(&start);
        assert!(
            said.starts_with("22:13:20.000000005Z pa     in  "),
            "{said}"
        );
        assert!(said.ends_with(", 60 bytes [delayed 10.000 ms]\n"), "{said}");
        let said: serde_json::Value = serde_json::from_str(&line.json()).unwrap();
        assert_eq!(said["time_ns"], 1_700_000_000_000_000_005u64);
        assert_eq!(said["verdict"], "delayed 10.000 ms");
        assert_eq!(
            (&said["port"], &said["direction"]),
            (&"pa".into(), &"in".into())
        );
    }
}
