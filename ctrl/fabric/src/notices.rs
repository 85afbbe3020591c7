//! Sentences for the user that wait until `run` shows them: [`Notices`].

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

/// The most notices that wait to be shown. Older ones are dropped.
const MOST: usize = 100;

/// Sentences for the user, and a signal when anything that `status` shows has changed.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    waiting: Mutex<VecDeque<String>>,
    changed: Notify,
}

impl Notices {
    /// Adds a notice and wakes all callers of [`Notices::changed`].
    pub(crate) fn add(&self, text: String) {
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
