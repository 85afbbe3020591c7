//! Front ends that make the eventfds they share block, and fill their counters.

use guest::{Guest, GuestOptions, Ring};
use ikv_tests::patience::{SOON, wait_until};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::testbed::Testbed;

/// Both of a guest's queues want interrupts, by eventfds that block and are full.
pub(crate) fn fill_calls(guest: &mut Guest) {
    for index in [0, 1] {
        let queue = guest.queue(index);
        queue.interrupts(true);
        let call = queue.call();
        let flags = fcntl_getfl(call).unwrap();
        fcntl_setfl(call, flags - OFlags::NONBLOCK).unwrap();
        call.write(u64::MAX - 1).unwrap();
    }
}

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
        fill_calls(&mut hostile);
        let frames = || cable.handle.lanes.each_ref().map(|lane| lane.snapshot().frames_in);
        let before = frames();
        hostile.queue(1).send(1, |out| out.frame(&[0x77; 60])).unwrap();
        other.queue(1).send(1, |out| out.frame(&[0x77; 60])).unwrap();
        wait_until("frames both ways", SOON, || {
            let now = frames();
            now[0] > before[0] && now[1] > before[1]
        });
        // The worker still does as it is told.
        drop([hostile, other]);
        cable.assert_works(&options);
        assert_eq!(testbed.faults(&cable), Vec::<String>::new());
    }
    testbed.end();
}
