//! Guests with several receive queues, and with many small buffers.

use super::*;

/// Bytes from one ring to the next.
const RING: u64 = 0x1_0000;
const QUEUES: u16 = 8;

/// A port of eight receive queues; of those, the driver knows the first alone.
fn eight_queues(driver: &Driver) -> VhostUser {
    let packed = if driver.packed { RING_PACKED } else { 0 };
    let specs = (0..QUEUES).map(|pair| {
        let at = USER + RING * u64::from(pair);
        QueueSpec {
            descriptors: at,
            driver: at + 0x4000,
            device: at + 0x8000,
            ..driver.spec(pair * 2)
        }
    });
    let features = VERSION_1 | packed;
    let alarm = Alarm::new(|| {});
    VhostUser::new(driver.memory.clone(), features, specs.collect(), alarm).unwrap()
}

/// Offers buffers in the split ring of a pair, from its `from`th buffer on.
fn offer_in_split(driver: &Driver, pair: u16, from: u16, count: u16) {
    let ring = RING * u64::from(pair);
    for number in from..from + count {
        let slot = number % SIZE;
        let address = GUEST + BUFFERS + RING * u64::from(pair) + 0x100 * u64::from(slot);
        driver.raw(ring + 16 * u64::from(slot), address, 0x100, WRITE, 0);
        let entry = ring + 0x4004 + 2 * u64::from(slot);
        driver.write(entry, &slot.to_le_bytes());
    }
    driver.write(ring + 0x4002, &(from + count).to_le_bytes());
}

fn used(driver: &Driver, pair: u16) -> u16 {
    driver.read_u16(RING * u64::from(pair) + 0x8002)
}

/// Sends one frame that came from that queue of its sender; `false` when it was lost.
fn send_one(port: &mut VhostUser, from_queue: usize) -> bool {
    let mut burst = Burst::new();
    burst.push(VnetHeader::default(), &frame(60, 1));
    burst.set_queue(from_queue);
    let mut drops = Losses::default();
    port.send(&burst, 0, &mut drops);
    assert_eq!(drops.total(), drops.of(DropReason::ReceiverFull));
    drops.is_empty()
}

#[test]
fn flows_of_queues_that_the_driver_does_not_use_get_through_another() {
    for packed in [false, true] {
        let mut driver = Driver::new(packed);
        let mut port = eight_queues(&driver);
        for index in 0..32 {
            driver.offer(&[(BUFFERS + index * 0x100, 0x100)], WRITE);
        }
        assert!(send_one(&mut port, 0));
        for round in 0..24 {
            assert!(send_one(&mut port, round % 8), "packed: {packed}");
        }
        assert!(port.fault.is_none());
    }
}

/// The flows of queues that nobody drains are spread over all that somebody drains, each over one; a
/// queue that is drained again gets its own flows back.
#[test]
fn flows_leave_a_queue_that_is_not_drained_any_more_and_come_back() {
    let driver = Driver::new(false);
    let mut port = eight_queues(&driver);
    offer_in_split(&driver, 2, 0, 60);
    offer_in_split(&driver, 5, 0, 60);
    offer_in_split(&driver, 6, 0, 1);
    assert!(send_one(&mut port, 2) && send_one(&mut port, 5) && send_one(&mut port, 6));
    // It had a buffer just now: its guest may be slow.
    let refused = (0..1000).take_while(|_| !send_one(&mut port, 6)).count();
    assert_eq!(refused, 256);
    let before = [used(&driver, 2), used(&driver, 5)];
    for _ in 0..10 {
        assert!(send_one(&mut port, 6) && send_one(&mut port, 7));
    }
    let after = [used(&driver, 2), used(&driver, 5)];
    assert_eq!([after[0] - before[0], after[1] - before[1]], [10, 10]);
    offer_in_split(&driver, 6, 1, 10);
    for _ in 0..10 {
        assert!(send_one(&mut port, 6));
    }
    assert_eq!(used(&driver, 6), 11);
}

#[test]
fn a_guest_that_drains_no_queue_loses_its_frames_and_gets_them_again() {
    let driver = Driver::new(false);
    let mut port = eight_queues(&driver);
    assert!((0..100).all(|round| !send_one(&mut port, round % 8)));
    offer_in_split(&driver, 3, 0, 64);
    let lost = (0..100).take_while(|_| !send_one(&mut port, 0)).count();
    assert!(lost < 8, "{lost}");
    assert!((0..30).all(|round| send_one(&mut port, round % 8)));
}

/// As in a split ring: 64 buffers a frame were the most.
#[test]
fn a_frame_may_take_hundreds_of_buffers_of_a_packed_ring() {
    let driver = Driver::new(true);
    for place in 0..256 {
        let address = GUEST + BUFFERS + place * 0x80;
        driver.raw(16 * place, address, 0x80, place as u16, WRITE | 1 << 7);
    }
    let spec = QueueSpec {
        size: 256,
        ..driver.spec(0)
    };
    let features = VERSION_1 | RING_PACKED | MRG_RXBUF;
    let alarm = Alarm::new(|| {});
    let mut port = VhostUser::new(driver.memory.clone(), features, vec![spec], alarm).unwrap();
    let mut burst = Burst::new();
    burst.push(VnetHeader::default(), &frame(20_000, 9));
    let mut drops = Losses::default();
    port.send(&burst, 0, &mut drops);
    assert_eq!(drops, Losses::default());
    let count = (12 + 20_000_u64).div_ceil(0x80);
    let written = driver.read(BUFFERS, 12 + 20_000);
    assert_eq!(written[10..12], (count as u16).to_le_bytes());
    assert_eq!(written[12..], frame(20_000, 9));
    let given_back = (0..256).take_while(|place| driver.packed_at(*place).2 & 0x8080 == 0x8080);
    assert_eq!(given_back.count() as u64, count);
}
