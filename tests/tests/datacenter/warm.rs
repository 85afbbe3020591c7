//! Switches restored from the same saved state share neither secrets nor a wrong clock.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use super::facts::SWITCHES;
use super::lab::Up;

/// What each switch is asked for, by name and command. No two switches may give the same answer.
const QUESTIONS: [(&str, &str); 5] = [
    ("its machine-id", "cat /etc/machine-id"),
    ("its boot id", "cat /proc/sys/kernel/random/boot_id"),
    (
        "a random UUID of its kernel's",
        "cat /proc/sys/kernel/random/uuid",
    ),
    ("random bytes", "head -c 16 /dev/urandom | od -A n -t x1"),
    ("its host key", "cat /etc/ssh/ssh_host_ed25519_key.pub"),
];

pub(crate) fn no_shared_secrets(up: &mut Up) {
    for node in SWITCHES {
        assert_eq!(up.was_restored(node), up.restores, "{node}");
    }
    for (what, question) in QUESTIONS {
        let answers: BTreeSet<_> = SWITCHES
            .iter()
            .map(|node| up.cli.exec(node, &["sh", "-c", question]))
            .collect();
        assert_eq!(answers.len(), SWITCHES.len(), "{what}: {answers:?}");
        assert!(
            answers.iter().all(|answer| answer.trim().len() >= 32),
            "{what}: {answers:?}"
        );
    }
}

pub(crate) fn clocks(up: &mut Up) {
    for node in SWITCHES {
        let said = up.cli.exec(node, &["date", "+%s"]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let apart = now.as_secs().abs_diff(said.trim().parse().unwrap());
        // Running the command takes seconds on an emulated switch.
        assert!(apart <= 5, "{node}'s clock is {apart} s off");
    }
}
