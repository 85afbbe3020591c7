//! What a fabric without root needs.

use super::finding::{Finding, Severity};
use host::rootless;

/// Checks it for the user who runs this process.
pub(super) fn needs() -> Vec<Finding> {
    let mut found = vec![Finding::new(
        Severity::Note,
        "without root the fabric runs in namespaces of this user; `ikv-fabric shell` enters them",
        "sudo ikv-fabric check, for a fabric of root",
    )];
    if let Err((what, remedy)) = rootless::allowed() {
        found.push(Finding::new(Severity::Error, what, remedy));
    }
    if let Err(why) = rootless::has_way_out() {
        let what = "the fabric will have no way out to the world";
        found.push(Finding::new(Severity::Warning, what, why));
    }
    if let Err(why) = rootless::has_many_ids() {
        let what = "QEMU will run as this user: each switch's has no uid of its own";
        found.push(Finding::new(Severity::Warning, what, why));
    }
    found
}
