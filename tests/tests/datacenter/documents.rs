//! The commands of README and of `docs/` that need switches and end by themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use ikv_tests::documents::{Typist, Verdict, pages, verdict};

use super::lab::Up;

/// Time for one of them; `converge` waits until routing has settled.
const LIMIT: Duration = Duration::from_secs(60);

/// Seconds for the sessions to be established again after what the commands cut.
const BACK: u32 = 60;

pub(crate) fn commands(up: &mut Up) {
    let typist = Typist::new(
        &up.fabric.site.host,
        &up.fabric.socket(),
        up.fabric.scratch(),
    );
    let mut typed = BTreeSet::new();
    for page in pages() {
        typist.write_files(&page);
        for command in page.commands() {
            let is_ours = matches!(verdict(&command.text), Some(Verdict::Datacenter));
            if !is_ours || !typed.insert(command.text.clone()) {
                continue;
            }
            typist.must_type(&page, &command, LIMIT);
        }
    }
    assert!(typed.len() > 1, "{typed:?}");
    up.cli.wait_ready(BACK);
}
