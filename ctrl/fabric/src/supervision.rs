//! Sees to it that what stops is said: workers that hang and tasks that end.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};

use dataplane::Panel;
use futures_util::FutureExt;
use tokio::time::sleep;

use crate::events::log::FABRIC;
use crate::live::Live;
use api::EventKind;

/// Tasks that have ended although the fabric needs them, a sentence for each. The fabric goes on
/// without: its guests' frames pass, and ending it would take the datacenter away from under them.
#[derive(Debug, Default)]
pub(crate) struct EndedTasks(Mutex<Vec<String>>);

impl EndedTasks {
    pub(crate) fn sentences(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().expect("no holder of this lock can panic")
    }
}

/// Runs a task that may end by itself; a panic in it is said. `what` it does begins with a verb.
pub(crate) async fn supervised(live: Arc<Live>, what: &str, task: impl Future<Output = ()>) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        say_ended(&live, what);
    }
}

/// As [`supervised`], for a task that must not end as long as the fabric runs.
pub(crate) async fn endless<T>(live: Arc<Live>, what: &str, task: impl Future<Output = T>) {
    _ = AssertUnwindSafe(task).catch_unwind().await;
    say_ended(&live, what);
}

/// Says that a task has ended.
pub(crate) fn say_ended(live: &Live, what: &str) {
    let sentence = format!("the task that {what} has ended: restart the fabric and report this");
    live.ended_tasks.lock().push(sentence.clone());
    live.notices.say(EventKind::Worker, FABRIC, sentence);
}

/// Looks after the workers until dropped.
pub(crate) async fn look_after_workers(live: Arc<Live>) {
    loop {
        sleep(Panel::LOOK).await;
        for sentence in live.state().cables.look_after_workers() {
            live.notices.say(EventKind::Worker, FABRIC, sentence);
        }
    }
}
