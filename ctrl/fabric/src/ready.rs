//! When is the fabric ready: every switch that is to run does, with all its sessions, and every
//! loopback is reachable from `internet`. What is not run by this fabric is not waited for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Fabric;
use super::whole::Whole;
use vm::agent::{ExitStatus, Limits};

/// Time for all loopbacks to answer.
const PING: Limits = Limits {
    time: Duration::from_secs(20),
    output: 64 << 10,
};

/// Between two tries when one did not answer: routes may lag behind sessions.
const AGAIN: Duration = Duration::from_millis(500);

/// The longest that a change is overlooked, should its ring have been missed.
const LOOK: Duration = Duration::from_secs(1);

impl Fabric {
    /// Keeps [`Fabric::is_ready`] true to what the switches say, for ever.
    pub(super) async fn judge(self: Arc<Self>) {
        loop {
            let whole = self.whole();
            let well = || whole.switches.values().all(|switch| switch.is_well());
            if !well() {
                self.set_ready(false);
            } else if !self.is_ready() {
                if loopbacks_answer(&whole).await {
                    self.set_ready(well());
                } else {
                    sleep(AGAIN).await;
                    continue;
                }
            }
            let _ = timeout(LOOK, self.news()).await;
        }
    }

    fn set_ready(&self, ready: bool) {
        if self.ready.swap(ready, Ordering::Relaxed) != ready {
            self.news.notify_waiters();
        }
    }
}

async fn loopbacks_answer(whole: &Whole) -> bool {
    let mut reached = whole.reached.iter();
    // The topology's first switch, where it runs; alone it has nothing to reach.
    let Some(internet) = reached.next().filter(|_| whole.reached.len() > 1) else {
        return true;
    };
    let mut ping: Vec<String> = ["fping", "-q", "-r", "2", "-t", "500"]
        .map(Into::into)
        .into();
    ping.extend(reached.map(|switch| whole.topology.switches[switch].loopback.to_string()));
    let vm = whole.switches[&internet].vm();
    let answer = vm.agent().exec(&ping, b"", PING).await;
    answer.is_ok_and(|output| output.status == ExitStatus::Code(0))
}
