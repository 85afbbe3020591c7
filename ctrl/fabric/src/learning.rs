//! What the leaves have learned of the servers at their ports: [`Learning`] asks them, seldom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::state::FabricState;
use crate::switches::switch::Switch;
use api::NodeState;
use model::topology::PortKind;
use vm::learned::{self, Learned};

/// How long the leaves, all at the same time, may take to answer.
const LIMIT: Duration = Duration::from_secs(3);

/// How long an answer is given again.
const KEPT: Duration = Duration::from_secs(2);

/// Asks leaves on behalf of all clients.
pub(crate) type Learning = OneQuestion<LeafAnswers>;

/// What leaves answered.
#[derive(Debug, Default)]
pub(crate) struct LeafAnswers {
    /// By the name of the leaf, then by that of its NIC.
    pub(crate) learned: BTreeMap<String, BTreeMap<String, Learned>>,
    /// A sentence for each leaf that did not answer.
    pub(crate) notes: Vec<String>,
}

impl Learning {
    /// What the leaves of these indices have learned, now or a moment ago. Those that do not run are not
    /// asked.
    pub(crate) async fn of(
        &self,
        state: &Arc<FabricState>,
        leaves: BTreeSet<usize>,
    ) -> Arc<LeafAnswers> {
        self.answer(ask(state.clone(), leaves)).await
    }
}

async fn ask(state: Arc<FabricState>, leaves: BTreeSet<usize>) -> LeafAnswers {
    let running = leaves.into_iter().filter_map(|index| {
        let switch = state.switches.get(&index)?;
        let ports = state.plan.topology.switches[index].ports.iter();
        let ports = ports.filter(|port| matches!(port.kind, PortKind::Server { .. }));
        let ports: BTreeSet<_> = ports.map(|port| port.nic.clone()).collect();
        (switch.state() == NodeState::Running).then_some((switch, ports))
    });
    let answers = join_all(running.map(|(switch, ports)| ask_one(switch, ports))).await;
    let mut all = LeafAnswers::default();
    for (leaf, answer) in answers {
        match answer {
            Ok(learned) => _ = all.learned.insert(leaf, learned),
            Err(why) => all.notes.push(format!(
                "{leaf} has not said what it has learned: {why}; try again"
            )),
        }
    }
    all
}

async fn ask_one(
    switch: &Switch,
    ports: BTreeSet<String>,
) -> (String, Result<BTreeMap<String, Learned>, String>) {
    let read = learned::read(switch.vm().agent(), &ports, LIMIT);
    // Killing a command that ran out of time takes time itself, for which nobody has to wait.
    let answer = match timeout(LIMIT, read).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {LIMIT:?}")),
    };
    (switch.name().to_owned(), answer)
}

/// When a question was answered, and what the answer was.
type Answered<T> = (Instant, Arc<T>);

/// One question at a time, however many ask it; its answer is given again for a while.
#[derive(Debug)]
pub(crate) struct OneQuestion<T> {
    last: Arc<Mutex<Option<Answered<T>>>>,
    kept: Duration,
}

/// When the question was answered last, and how.
type Answered<T> = (Instant, Arc<T>);

impl<T> Default for OneQuestion<T> {
    fn default() -> Self {
        OneQuestion {
            last: Arc::default(),
            kept: KEPT,
        }
    }
}

impl<T: Default + Send + Sync + 'static> OneQuestion<T> {
    /// The answer to `question`, or the last one if it is not too old. Waits while the question is open
    /// for someone else.
    async fn answer(&self, question: impl Future<Output = T> + Send + 'static) -> Arc<T> {
        let mut last = self.last.clone().lock_owned().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < self.kept
        {
            return answer.clone();
        }
        // A task of its own: were the question dropped with the client who asks it, clients that come and
        // go could ask without a pause.
        let asked = tokio::spawn(async move {
            let answer = Arc::new(question.await);
            *last = Some((Instant::now(), answer.clone()));
            answer
        });
        // It fails if it has panicked, which is in the log then.
        asked.await.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    fn keeping(kept: Duration) -> OneQuestion<usize> {
        OneQuestion {
            kept,
            ..OneQuestion::default()
        }
    }

    /// Counts how often it is asked; answers when `open` is notified.
    fn question(
        asked: &Arc<AtomicUsize>,
        open: &Arc<Notify>,
    ) -> impl Future<Output = usize> + Send + use<> {
        let (asked, open) = (asked.clone(), open.clone());
        async move {
            let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
            open.notified().await;
            number
        }
    }

    #[tokio::test]
    async fn a_thousand_clients_ask_once() {
        let once = keeping(Duration::from_secs(3600));
        let (asked, open) = (Arc::default(), Arc::new(Notify::new()));
        open.notify_one();
        let clients = (0..1000).map(|_| once.answer(question(&asked, &open)));
        let answers = join_all(clients).await;
        assert!(answers.iter().all(|answer| **answer == 1), "{answers:?}");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn clients_that_come_and_go_ask_once() {
        let once = keeping(Duration::from_secs(3600));
        let (asked, open) = (Arc::default(), Arc::new(Notify::new()));
        for _ in 0..100 {
            let gone = timeout(
                Duration::from_millis(1),
                once.answer(question(&asked, &open)),
            );
            assert!(gone.await.is_err(), "nobody answers yet");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        open.notify_one();
        assert_eq!(*once.answer(question(&asked, &open)).await, 1);
    }

    #[tokio::test]
    async fn an_old_answer_is_not_given_again() {
        let once = keeping(Duration::ZERO);
        let (asked, open) = (Arc::default(), Arc::new(Notify::new()));
        for expected in 1..4 {
            open.notify_one();
            assert_eq!(*once.answer(question(&asked, &open)).await, expected);
        }
    }
}
