//! Determines when the fabric is ready: every selected switch runs with all its sessions, and every
//! loopback answers `internet`. Switches that this fabric does not run do not count.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::live::Live;
use crate::state::FabricState;
use vm::agent::{ExitStatus, Limits};

/// How long all loopbacks may take to answer.
const PING: Limits = Limits {
    time: Duration::from_secs(20),
    output: 64 << 10,
};

/// The pause after a loopback did not answer: routes lag behind sessions.
const AGAIN: Duration = Duration::from_millis(500);

/// How long a change can go unnoticed if its signal was missed.
const LOOK: Duration = Duration::from_secs(1);

/// Updates [`Live::is_ready`] from what the switches report, until dropped.
pub(crate) async fn judge(live: Arc<Live>) {
    loop {
        let state = live.state();
        let doubts = live.doubts();
        if !state.all_well() {
            live.set_ready(false);
        } else if !live.is_ready() {
            if loopbacks_answer(&state).await {
                // The ping takes time, in which a session may have been lost or a cable cut.
                live.set_ready(live.doubts() == doubts && state.all_well());
            } else {
                sleep(AGAIN).await;
                continue;
            }
        }
        let _ = timeout(LOOK, live.notices.changed()).await;
    }
}

async fn loopbacks_answer(state: &FabricState) -> bool {
    let topology = &state.plan.topology;
    let reached = state.plan.switches.reached(topology);
    let mut switches = reached.iter();
    // The topology's first switch is `internet`. If it runs alone, it has no loopback to reach.
    let Some(internet) = switches.next().filter(|_| reached.len() > 1) else {
        return true;
    };
    // One fping for all loopbacks: under TCG each process costs the guest noticeable time.
    let mut ping: Vec<String> = ["fping", "-q", "-r", "2", "-t", "500"]
        .map(Into::into)
        .into();
    ping.extend(switches.map(|switch| topology.switches[switch].loopback.to_string()));
    let Some(internet) = state.switches.get(&internet) else {
        return false;
    };
    let answer = internet.vm().agent().exec(&ping, b"", PING).await;
    answer.is_ok_and(|output| output.status == ExitStatus::Code(0))
}
