//! A short measurement of a cable in this process between two guests: every frame must arrive once,
//! intact and in order. Needs neither root nor huge pages.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bench::measure::{LoadPlan, measure};
use bench::pattern::LONGEST;
use bench::report::OfferedLoad;
use bench::testbed::FreshCable;
use dataplane::PanelOptions;
use guest::{GuestOptions, Ring, features};

#[test]
fn every_frame_arrives_once_and_in_order() {
    let panel = PanelOptions {
        workers: 1,
        ..PanelOptions::default()
    };
    let fresh = FreshCable::start(&panel).unwrap();
    for ring in [Ring::Split, Ring::Packed] {
        for (mergeable, in_order) in [(false, false), (true, false), (false, true), (true, true)] {
            let guest = GuestOptions {
                ring,
                mergeable,
                in_order,
                queue_size: 1024,
                features: features::TSO4,
                ..GuestOptions::default()
            };
            let plan = LoadPlan {
                sizes: vec![64, 1518, 9000, LONGEST],
                time: Duration::from_millis(50),
                search_time: Duration::ZERO,
                tolerance: 0.0,
                attempts: 1,
                resolution: 0.1,
                loads: vec![OfferedLoad::Rate(400.0)],
                both_ways: true,
                guest,
            };
            let reports =
                measure(&fresh.testbed(), &plan, &AtomicBool::new(false), |_| ()).unwrap();
            for report in reports {
                let what = format!("{guest:?}, {} bytes", report.size);
                let found = report
                    .throughput
                    .unwrap_or_else(|| panic!("{what}: {:?}", report.not_carried));
                assert!(found.frames_per_second > 100.0, "{what}: {found:?}");
                assert!(
                    found
                        .cpu_seconds_per_million_frames
                        .is_some_and(|cpu| cpu > 0.0),
                    "{what}"
                );
                assert!(
                    found.counts.is_clean(),
                    "{what}: {}, {:?}",
                    found.counts.faults(),
                    fresh.counters()
                );
                let latency = &report.latency[0];
                assert!(
                    latency.counts.is_clean(),
                    "{what}: {}, {:?}",
                    latency.counts.faults(),
                    fresh.counters()
                );
                assert_eq!(latency.counts.sent, 40, "{what}");
                assert!(
                    latency.p50 > 0 && latency.p50 <= latency.max,
                    "{what}: {latency:?}"
                );
            }
        }
    }
}
