//! Sentences for the user that wait until `run` shows them: [`Notices`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::events::log::{EventLog, FABRIC};
use api::EventKind;

/// The most notices that wait to be shown. Older ones are dropped.
const MOST: usize = 100;

/// Sentences for the user, and a signal when anything that `status` shows has changed.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    waiting: Mutex<VecDeque<String>>,
    changed: Notify,
    /// Where each of them is written down.
    log: Arc<EventLog>,
}

impl Notices {
    /// No notices yet; each will be written down in `log`.
    pub(crate) fn written_to(log: Arc<EventLog>) -> Self {
        Notices {
            log,
            ..Notices::default()
        }
    }

    /// Adds a notice about the fabric, and wakes all callers of [`Notices::changed`].
    pub(crate) fn add(&self, text: String) {
        self.say(EventKind::Notice, FABRIC, text);
    }

    /// As [`Notices::add`], about what happened to `subject`.
    pub(crate) fn say(&self, kind: EventKind, subject: &str, text: String) {
        self.log.add(kind, subject, &text);
        let mut waiting = self.lock();
        if waiting.len() >= MOST {
            waiting.pop_front();
        }
        waiting.push_back(text);
        drop(waiting);
        self.signal();
    }

    /// Takes all waiting notices, the oldest first.
    pub(crate) fn take(&self) -> Vec<String> {
        self.lock().drain(..).collect()
    }

    /// Reports that something which `status` shows has changed.
    pub(crate) fn signal(&self) {
        self.changed.notify_waiters();
    }

    /// Waits for the next notice or [`Notices::signal`].
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.waiting
            .lock()
            .expect("no holder of this lock can panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_in_their_order() {
        let notices = Notices::default();
        for number in 0..MOST + 2 {
            notices.add(number.to_string());
        }
        let taken = notices.take();
        assert_eq!((taken.len(), taken[0].as_str()), (MOST, "2"));
        assert_eq!(notices.take(), Vec::<String>::new());
    }
}
