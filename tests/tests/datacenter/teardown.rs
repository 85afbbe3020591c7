//! The fabric ends while a server is still plugged in, and leaves the host unchanged.

use std::time::Duration;

use ikv_tests::patience::{ensure, until};
use ikv_tests::{HostState, figure};

use super::lab::Up;

/// Limit for the whole teardown.
const LIMIT: Duration = Duration::from_secs(3);

pub(crate) fn as_before(up: &mut Up) {
    let ended = up.fabric.end();
    figure(
        "default fabric, teardown",
        &format!("{:.2} s (wanted: 3 s)", ended.after.as_secs_f64()),
    );
    assert!(
        ended.status.success(),
        "{}: {}",
        ended.status,
        up.fabric.stderr()
    );
    // The test's own VM is in the host's namespace, too.
    up.server.stop();
    let now = HostState::of(&up.fabric.site.host, &up.fabric.run_folder());
    up.fabric.before.assert_unchanged(&now, "after the end");
    assert!(
        ended.after <= LIMIT,
        "{:?}; the limit is {LIMIT:?}",
        ended.after
    );
    let gone = up.cli.run(&["status"]);
    assert_eq!(gone.code, Some(1));
    assert!(gone.stderr.contains("no fabric answers"), "{gone:?}");
    // No process is left in the namespace.
    until("the namespace to be empty", Duration::from_secs(5), || {
        let pids = up.fabric.site.host.pids();
        ensure(pids.is_empty(), || format!("{pids:?}"))
    });
}
