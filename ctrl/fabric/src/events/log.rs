//! The log that a fabric keeps of what happens, and its readers: [`EventLog`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;

use super::ring::Ring;
use api::{Event, EventKind, EventsRequest, Streamed};

/// How many events a reader takes from the ring at once.
const BATCH: usize = 32;

/// The subject of what concerns the whole fabric.
pub(crate) const FABRIC: &str = "fabric";

/// The last events, and a signal for each new one. There is no queue for a reader: it takes the next events
/// from the ring when it has sent those before.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    ring: Mutex<Ring>,
    /// The id of the newest event.
    newest: watch::Sender<u64>,
}

impl EventLog {
    /// Writes down what happened now to `subject`. The texts may be anyone's, and in several lines.
    pub(crate) fn add(&self, kind: EventKind, subject: &str, text: &str) {
        let id = self.lock().push(SystemTime::now(), kind, subject, text);
        self.newest.send_replace(id);
    }

    /// The events that a client asks for.
    pub(crate) fn read(self: &Arc<Self>, request: EventsRequest) -> BoxStream<'static, Streamed> {
        let reader = Reader {
            newest: self.newest.subscribe(),
            last: self.lock().begin(request.since),
            log: self.clone(),
            taken: VecDeque::new(),
            follows: request.follow,
            ended: false,
        };
        stream::unfold(reader, |mut reader| async {
            let next = reader.next().await?;
            Some((next, reader))
        })
        .boxed()
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().expect("no holder of this lock can panic")
    }
}

/// Reads the log for one client.
struct Reader {
    log: Arc<EventLog>,
    newest: watch::Receiver<u64>,
    /// The id of the last event that was taken from the ring.
    last: u64,
    /// Taken, and not given to the client yet.
    taken: VecDeque<Arc<Event>>,
    follows: bool,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Streamed> {
        loop {
            if let Some(event) = self.taken.pop_front() {
                return Some(Streamed::Event(event));
            }
            if self.ended {
                return None;
            }
            // Before the look: what comes after it wakes this reader.
            self.newest.borrow_and_update();
            let taken = self.log.lock().after(self.last, BATCH);
            match taken {
                Err(lagged) => {
                    self.ended = true;
                    return Some(Streamed::Lagged(lagged));
                }
                Ok(events) => self.taken.extend(events),
            }
            if let Some(newest) = self.taken.back() {
                self.last = newest.id;
            } else if !self.follows || self.newest.changed().await.is_err() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn request(since: Option<u64>, follow: bool) -> EventsRequest {
        EventsRequest { since, follow }
    }

    fn add(log: &EventLog, count: usize) {
        for _ in 0..count {
            log.add(EventKind::Notice, FABRIC, "a sentence");
        }
    }

    fn id(streamed: Option<Streamed>) -> u64 {
        match streamed {
            Some(Streamed::Event(event)) => event.id,
            other => panic!("no event: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_reader_gets_what_is_kept_and_then_what_comes() {
        let log = Arc::new(EventLog::default());
        add(&log, 2);
        let mut all = log.read(request(Some(0), true));
        let mut later = log.read(request(None, true));
        assert_eq!((id(all.next().await), id(all.next().await)), (1, 2));
        let waits = timeout(Duration::from_millis(20), later.next()).await;
        assert!(waits.is_err(), "from now on");
        add(&log, 1);
        assert_eq!((id(all.next().await), id(later.next().await)), (3, 3));
    }

    #[tokio::test]
    async fn one_that_does_not_follow_ends() {
        let log = Arc::new(EventLog::default());
        add(&log, 2 * BATCH + 1);
        let read: Vec<_> = log.read(request(Some(1), false)).collect().await;
        assert_eq!(read.len(), 2 * BATCH);
        let none: Vec<_> = log.read(request(None, false)).collect().await;
        assert_eq!(none, []);
    }

    #[tokio::test]
    async fn one_that_is_too_slow_is_told_what_it_missed_and_ends() {
        let log = Arc::new(EventLog::default());
        let mut slow = log.read(request(None, true));
        add(&log, 1);
        assert_eq!(id(slow.next().await), 1);
        add(&log, 5000);
        let Some(Streamed::Lagged(lagged)) = slow.next().await else {
            panic!("it has all of them");
        };
        // Those from 2 on which are not among the last 1000.
        assert_eq!((lagged.missed, lagged.since), (4000, 4001));
        assert_eq!(slow.next().await, None);
        let mut again = log.read(request(Some(lagged.since), true));
        assert_eq!(id(again.next().await), 4002);
    }
}
