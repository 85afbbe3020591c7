//! The last events: [`Ring`]. Time is an argument.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use api::{Event, EventKind, Lagged};
use model::{printable, utc};

/// The most events that are kept.
const MOST: usize = 1000;

/// The most characters of a subject and of a text. Each may become an escape of ten bytes or so.
const LONGEST_SUBJECT: usize = 80;
const LONGEST_TEXT: usize = 400;

/// The last events, by rising ids.
#[derive(Debug, Default)]
pub(super) struct Ring {
    events: VecDeque<Arc<Event>>,
    /// The id of the newest event; 0 before the first.
    newest: u64,
}

impl Ring {
    /// Adds an event; returns its id. The texts may come from anyone.
    pub(super) fn push(
        &mut self,
        time: SystemTime,
        kind: EventKind,
        subject: &str,
        text: &str,
    ) -> u64 {
        self.newest += 1;
        let event = Event {
            id: self.newest,
            time: utc::date_and_time_ms(time),
            kind,
            subject: one_line(subject, LONGEST_SUBJECT),
            text: one_line(text, LONGEST_TEXT),
        };
        if self.events.len() >= MOST {
            self.events.pop_front();
        }
        self.events.push_back(Arc::new(event));
        self.newest
    }

    /// The id of the last event that has left the ring; 0 if none has.
    fn gone(&self) -> u64 {
        self.newest - self.events.len() as u64
    }

    /// After which id a reader begins who asks for the events since this one. An id that was not reached
    /// yet is that of an earlier fabric, whose events this one has not.
    pub(super) fn begin(&self, since: Option<u64>) -> u64 {
        match since {
            None => self.newest,
            Some(since) if since == 0 || since > self.newest => self.gone(),
            Some(since) => since,
        }
    }

    /// The first `most` events after the one with the id `last`.
    ///
    /// # Errors
    /// When some of them have left the ring.
    pub(super) fn after(&self, last: u64, most: usize) -> Result<Vec<Arc<Event>>, Lagged> {
        let gone = self.gone();
        match last.checked_sub(gone) {
            None => Err(Lagged {
                missed: gone - last,
                since: gone,
            }),
            Some(read) => {
                let unread = self.events.iter().skip(read as usize);
                Ok(unread.take(most).cloned().collect())
            }
        }
    }
}

/// A text as one printable line: line ends and what indents the next line become one space.
fn one_line(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    printable::head(line.as_bytes(), most)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ring(events: usize) -> Ring {
        let mut ring = Ring::default();
        for number in 1..=events {
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(number as u64);
            let id = ring.push(at, EventKind::Notice, "fabric", &number.to_string());
            assert_eq!(id, number as u64);
        }
        ring
    }

    fn ids(events: &[Arc<Event>]) -> Vec<u64> {
        events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn events_come_once_in_their_order() {
        let ring = ring(5);
        assert_eq!(ids(&ring.after(0, 3).unwrap()), [1, 2, 3]);
        let rest = ring.after(3, 9).unwrap();
        assert_eq!(ids(&rest), [4, 5]);
        assert_eq!(
            (&*rest[0].time, &*rest[0].text),
            ("1970-01-01T00:00:00.004Z", "4")
        );
        assert!(ring.after(5, 9).unwrap().is_empty());
    }

    #[test]
    fn the_newest_are_kept_and_the_others_counted() {
        let ring = ring(MOST + 7);
        assert_eq!(ring.events.len(), MOST);
        assert_eq!(ids(&ring.after(7, 2).unwrap()), [8, 9]);
        let lagged = |missed| Lagged { missed, since: 7 };
        assert_eq!(ring.after(6, 9), Err(lagged(1)));
        // One who began when there was no event yet.
        assert_eq!(ring.after(0, 9), Err(lagged(7)));
        assert_eq!(ring.after(lagged(1).since, 1).unwrap()[0].id, 8);
    }

    #[test]
    fn a_reader_begins_where_it_asks_to() {
        assert_eq!(ring(0).begin(None), 0);
        assert_eq!(ring(0).begin(Some(3)), 0);
        let ring = ring(MOST + 7);
        let newest = MOST as u64 + 7;
        assert_eq!(ring.begin(None), newest, "from now on");
        assert_eq!(ring.begin(Some(0)), 7, "all that is kept");
        assert_eq!(ring.begin(Some(newest + 1)), 7, "another fabric's id");
        assert_eq!(ring.begin(Some(newest)), newest);
        assert_eq!(ring.begin(Some(3)), 3, "it is told what it missed");
    }

    #[test]
    fn what_a_guest_says_stays_one_printable_line_of_bounded_length() {
        let mut ring = Ring::default();
        let text = format!("a\u{1b}[2J\r\n   b\u{202e}{}", "x".repeat(9999));
        ring.push(SystemTime::UNIX_EPOCH, EventKind::Notice, "a\nb", &text);
        let event = &ring.after(0, 1).unwrap()[0];
        assert_eq!(event.subject, "a b");
        let start = "a\\u{1b}[2J b\\u{202e}xxx";
        assert!(event.text.starts_with(start), "{}", event.text);
        assert!(event.text.len() < LONGEST_TEXT + 20, "{}", event.text.len());
    }
}
