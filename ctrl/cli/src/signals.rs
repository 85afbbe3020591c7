//! The signals that ask a command to end.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives the signals that ask this process to end. From the call of a constructor on, they no
/// longer end the process by themselves, so that the command can undo what it has done.
pub(crate) struct StopSignals(Vec<Signal>);

impl StopSignals {
    /// SIGINT and SIGTERM. SIGHUP keeps its effect, so that `nohup` works.
    pub(crate) fn new() -> io::Result<Self> {
        Self::of(&[SignalKind::interrupt(), SignalKind::terminate()])
    }

    /// SIGINT, SIGTERM and SIGHUP, for commands that leave something behind unless they undo it:
    /// they must do so when their terminal closes, too.
    pub(crate) fn with_hangup() -> io::Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        Self::of(&kinds)
    }

    fn of(kinds: &[SignalKind]) -> io::Result<Self> {
        let signals = kinds.iter().map(|kind| signal(*kind));
        signals.collect::<io::Result<_>>().map(StopSignals)
    }

    /// Waits for the next of these signals. Dropping the future loses none.
    pub(crate) async fn wait(&mut self) {
        poll_fn(|context| {
            let came = |signal: &mut Signal| signal.poll_recv(context).is_ready();
            if self.0.iter_mut().any(came) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_signal_that_comes_between_two_waits_is_not_lost() {
        let mut stop = StopSignals::new().unwrap();
        let nothing = timeout(Duration::from_millis(10), stop.wait()).await;
        assert!(nothing.is_err(), "no signal was sent");
        kill_process(getpid(), Signal::TERM).unwrap();
        timeout(Duration::from_secs(10), stop.wait()).await.unwrap();
    }
}
