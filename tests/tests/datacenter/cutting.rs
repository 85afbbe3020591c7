//! Cutting and mending a cable between switches.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ikv_tests::patience::{ensure, until};
use ikv_tests::{Cli, figure};

use super::facts;
use super::lab::Up;
use super::routing::{established, paths, summary};

/// Limit for a session to end. Without the loss of carrier it would last for the hold time, 16 s.
const AT_ONCE: Duration = Duration::from_secs(8);

/// Seconds for a session to be established again.
const BACK: u32 = 60;

/// Sets a cable up when dropped, also when the test fails.
pub(crate) struct Mended<'a>(pub(crate) &'a Cli, pub(crate) &'static str);

impl Drop for Mended<'_> {
    fn drop(&mut self) {
        self.0.run(&["cable", self.1, "up"]);
    }
}

/// The ends of cable iksb12: switch and port.
const ENDS: [(&str, usize); 2] = [("spine1", 2), ("leaf1", 1)];

pub(crate) fn down_and_up(up: &mut Up) {
    let cli = &up.cli;
    let began = Instant::now();
    let _mended = Mended(cli, "iksb12");
    cli.ok(&["cable", "iksb12", "down"]);
    // From the first answer on, at both ends alike.
    assert_eq!(cli.run(&["status"]).code, Some(1), "a cut fabric is ready");
    for (node, _) in ENDS {
        let (seen, all) = (cli.node(node), facts::sessions(node));
        assert_eq!(seen["bgp"]["established"], all - 1, "{seen}");
        assert_eq!(seen["note"], "no frame passes iksb12", "{seen}");
    }
    for (node, port) in ENDS {
        let nic = facts::nic(port);
        until(
            &format!("{node}'s session on {nic} to end"),
            AT_ONCE,
            || {
                ensure(!established(&summary(cli, node)).contains(&nic), || {
                    "still established".into()
                })
            },
        );
    }
    let time = began.elapsed().as_secs_f64();
    figure(
        "cable cut, both sessions known to be gone",
        &format!("{time:.1} s"),
    );
    for (node, port) in ENDS {
        let nic = facts::nic(port);
        let carrier = cli.exec(node, &["cat", &format!("/sys/class/net/{nic}/carrier")]);
        assert_eq!(carrier, "0\n", "{node} {nic}");
    }
    assert_eq!(cli.json(&["cables", "iksb12"])[0]["state"], "down");
    // The other spine leads everywhere.
    let leaf3 = facts::loopback(5);
    assert_eq!(paths(cli, "leaf1", leaf3), BTreeSet::from([facts::nic(2)]));
    cli.exec(
        "leaf1",
        &[
            "fping",
            "-q",
            "-r",
            "3",
            "-t",
            "1000",
            "192.168.98.1",
            "192.168.98.2",
        ],
    );

    let began = Instant::now();
    cli.ok(&["cable", "leaf1:1", "up"]);
    cli.wait_ready(BACK);
    for (node, port) in ENDS {
        let seen = summary(cli, node);
        assert!(established(&seen).contains(&facts::nic(port)), "{seen}");
    }
    let time = began.elapsed().as_secs_f64();
    figure("cable mended, ready again", &format!("{time:.1} s"));
    until("both paths", Duration::from_secs(10), || {
        let found = paths(cli, "leaf1", leaf3);
        ensure(found.len() == 2, || format!("{found:?}"))
    });
}
