//! The answer that a thread of the dataplane has yet to give: [`Reply`].
//!
//! A caller that must not block (an async runtime's one thread) awaits a reply under a time limit of
//! its own; any other calls [`Reply::wait`]. The thread that answers takes the slot's lock for as
//! long as it takes to store one value, and never waits for the caller.

use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::panel::{Answerer, Panel, PanelError};
use crate::worker::WorkerStats;

/// How long [`Reply::wait`] waits. A worker answers within one round of bursts, in microseconds: one
/// that has not answered after this is stuck.
const LIMIT: Duration = Duration::from_secs(5);

/// A worker that is to answer, and its number.
pub(crate) type NumberedWorker = (usize, Arc<WorkerStats>);

/// The result of a command that was sent and may not have taken effect yet.
///
/// It is a future and needs no particular runtime. Dropping it does not take the command back: only
/// its result is lost.
#[must_use = "the command may fail, or may not have taken effect yet"]
pub struct Reply<T> {
    from: Answerer,
    /// Those that are to answer.
    workers: Vec<NumberedWorker>,
    result: Pin<Box<dyn Future<Output = Result<T, PanelError>> + Send>>,
}

impl<T: Send + 'static> Reply<T> {
    pub(crate) fn new(
        from: Answerer,
        result: impl Future<Output = Result<T, PanelError>> + Send + 'static,
    ) -> Self {
        let result = Box::pin(result);
        Reply {
            from,
            workers: Vec::new(),
            result,
        }
    }

    /// Nobody waits for it while one of these workers hangs.
    pub(crate) fn unless_hanging(mut self, workers: Vec<NumberedWorker>) -> Self {
        self.workers = workers;
        self
    }

    /// A reply that is known already, such as that of a command that could not be sent.
    pub(crate) fn ready(from: Answerer, result: Result<T, PanelError>) -> Self {
        Reply::new(from, ready(result))
    }

    /// Whether a worker that is to answer is known to hang: waiting for it is of no use.
    pub fn is_from_hanging(&self) -> bool {
        self.hanging().is_some()
    }

    fn hanging(&self) -> Option<Answerer> {
        let mut workers = self.workers.iter();
        let (number, _) = workers.find(|(_, worker)| worker.hangs())?;
        Some(Answerer::Worker(*number))
    }

    /// Blocks the calling thread until the command has taken effect, for 5 s at most, and no longer
    /// than until the worker is found to hang.
    ///
    /// # Errors
    /// Those of the command; [`PanelError::Silent`] when there is no answer in time. The command may
    /// still take effect later.
    pub fn wait(self) -> Result<T, PanelError> {
        self.wait_for(LIMIT)
    }

    /// As [`Reply::wait`], with another limit.
    ///
    /// # Errors
    /// As [`Reply::wait`].
    pub fn wait_for(mut self, limit: Duration) -> Result<T, PanelError> {
        let deadline = Instant::now() + limit;
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            if let Poll::Ready(result) = Pin::new(&mut self).poll(&mut Context::from_waker(&waker))
            {
                return result;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let hanging = self.hanging();
            if left.is_zero() || hanging.is_some() {
                return Err(PanelError::Silent(hanging.unwrap_or(self.from)));
            }
            // It is not woken when the worker is found to hang.
            thread::park_timeout(left.min(Panel::LOOK));
        }
    }

    /// The result, if it is there already. To be asked again only after `None`.
    pub fn try_take(&mut self) -> Option<Result<T, PanelError>> {
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(self).poll(&mut context) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }
}

impl<T> Future for Reply<T> {
    type Output = Result<T, PanelError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.result.as_mut().poll(context)
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

/// Wakes a thread that waits in [`Reply::wait_for`].
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Makes the two ends of an answer: the thread that carries the command out holds the first.
pub(crate) fn one_shot<T>() -> (Answer<T>, Pending<T>) {
    let slot = Arc::new(Mutex::new(Slot {
        value: None,
        closed: false,
        waker: None,
    }));
    (Answer(slot.clone()), Pending(slot))
}

struct Slot<T> {
    value: Option<T>,
    /// No value will come any more.
    closed: bool,
    waker: Option<Waker>,
}

fn lock<T>(slot: &Mutex<Slot<T>>) -> MutexGuard<'_, Slot<T>> {
    // Each holder stores or takes one field, so that a panic leaves no inconsistent state.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end that answers. Dropped without an answer, it ends the wait: the thread is gone.
pub(crate) struct Answer<T>(Arc<Mutex<Slot<T>>>);

impl<T> Answer<T> {
    pub(crate) fn send(self, value: T) {
        lock(&self.0).value = Some(value);
        // `drop` wakes the caller that waits.
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        let mut slot = lock(&self.0);
        slot.closed = true;
        let waker = slot.waker.take();
        drop(slot);
        // Without the lock: what a waker does is its runtime's affair.
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

/// The end that waits. `None`: the thread has ended without an answer.
pub(crate) struct Pending<T>(Arc<Mutex<Slot<T>>>);

impl<T> Future for Pending<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = lock(&self.0);
        if slot.closed {
            return Poll::Ready(slot.value.take());
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply<T: Send + 'static>(pending: Pending<T>) -> Reply<T> {
        let result = async { pending.await.ok_or(PanelError::Stopped) };
        Reply::new(Answerer::Worker(3), result)
    }

    #[test]
    fn an_answer_wakes_the_thread_that_waits() {
        let (answer, pending) = one_shot();
        let worker = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            answer.send(7);
        });
        assert_eq!(reply(pending).wait().unwrap(), 7);
        worker.join().unwrap();
    }

    #[test]
    fn no_answer_ends_at_the_limit_and_names_the_thread() {
        let (_answer, pending) = one_shot::<()>();
        let error = reply(pending)
            .wait_for(Duration::from_millis(10))
            .unwrap_err();
        assert!(matches!(error, PanelError::Silent(Answerer::Worker(3))));
    }

    #[test]
    fn an_answer_that_is_dropped_ends_the_wait_at_once() {
        let (answer, pending) = one_shot::<()>();
        drop(answer);
        assert!(matches!(reply(pending).wait(), Err(PanelError::Stopped)));
    }

    #[test]
    fn a_reply_is_polled_until_it_is_there() {
        let (answer, pending) = one_shot();
        let mut reply = reply(pending);
        assert!(reply.try_take().is_none());
        answer.send("done");
        assert_eq!(reply.try_take().unwrap().unwrap(), "done");
    }
}
