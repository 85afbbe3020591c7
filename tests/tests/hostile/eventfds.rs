//! Front ends that make the eventfds they share block, and fill their counters.

use guest::{GuestOptions, Ring};
use ikv_tests::patience::{SOON, wait_until};

use crate::testbed::Testbed;

/// write(2) would sleep for ever, and with it the worker and all its cables.
#[test]
fn a_call_eventfd_that_is_full_and_blocks_holds_up_nobody() {
    let testbed = Testbed::new();
    for ring in [Ring::Split, Ring::Packed] {
        let cable = testbed.cable();
        let options = GuestOptions {
            ring,
            ..GuestOptions::default()
        };
        let [mut hostile, mut other] = cable.guests(&options);
        let jams = [0, 1].map(|index| hostile.jam(index).unwrap());
        let frames = || {
            let lanes = cable.handle.lanes.each_ref();
            lanes.map(|lane| lane.snapshot().frames_in)
        };
        let before = frames();
        wait_until("frames both ways", SOON, || {
            for end in [&mut hostile, &mut other] {
                end.queue(1).send(1, |out| out.frame(&[0x77; 60])).unwrap();
            }
            let now = frames();
            now[0] > before[0] + 1 && now[1] > before[1] + 1
        });
        // The worker still does as it is told.
        drop([hostile, other]);
        cable.assert_works(&options);
        assert_eq!(testbed.faults(&cable), Vec::<String>::new());
        drop(jams);
    }
    testbed.end();
}
