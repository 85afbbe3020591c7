//! Follows the way out of a fabric without root.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::live::Live;
use host::rootless::{Rootless, WayOutState};

/// How long it may take to open. It takes 50 ms on an idle machine.
const LIMIT: Duration = Duration::from_secs(5);

/// The pause between two looks while it opens.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The pause between two looks at one that is open.
const WATCH: Duration = Duration::from_secs(1);

/// Waits until it is open.
///
/// # Errors
/// Why the fabric has none.
pub(crate) async fn opened(rootless: &Rootless) -> Result<(), String> {
    let limit = Instant::now() + LIMIT;
    loop {
        match rootless.way_out() {
            WayOutState::Open => return Ok(()),
            WayOutState::None(why) => return Err(why),
            WayOutState::Opening if Instant::now() > limit => {
                return Err(format!("pasta has made none in {} s", LIMIT.as_secs()));
            }
            WayOutState::Opening => sleep(LOOK_AGAIN).await,
        }
    }
}

/// Tells the user once when it closes while the fabric runs.
pub(crate) async fn watch(live: Arc<Live>, rootless: &'static Rootless) {
    if rootless.way_out() != WayOutState::Open {
        return;
    }
    loop {
        sleep(WATCH).await;
        if let WayOutState::None(why) = rootless.way_out() {
            live.notices.add(format!(
                "the way out to the world has closed: {why}; it opens again at the next `ikv-fabric run`"
            ));
            return;
        }
    }
}
