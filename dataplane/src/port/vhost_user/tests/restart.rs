//! Rings that begin anew, and rings whose device was killed.

use std::collections::VecDeque;

use super::*;
use crate::port::vhost_user::packed_ring::RingPosition;

/// `burst` is only a place for frames: making one takes a while.
fn send(port: &mut VhostUser, burst: &mut Burst, count: usize) {
    burst.clear();
    for _ in 0..count {
        burst.push(VnetHeader::default(), &frame(60, 1));
    }
    let mut drops = Losses::default();
    port.send(burst, 0, &mut drops);
    assert_eq!(drops.total(), 0);
    assert_eq!(port.fault, None);
}

/// Receives until nothing waits; how many frames.
fn drain(port: &mut VhostUser, burst: &mut Burst) -> usize {
    burst.clear();
    let (mut taken, mut drops) = (0, Losses::default());
    while port.receive(burst, &mut drops) {
        taken += burst.len();
        burst.clear();
        port.release();
    }
    assert_eq!(port.fault, None);
    taken
}

impl Driver {
    /// Begins anew on the same memory; in the used ring is what was there before.
    fn reset(&mut self, used_before: u16) {
        (self.next, self.heads, self.used) = (0, 0, 0);
        self.write(0x4002, &[0; 2]);
        self.write(0x8002, &used_before.to_le_bytes());
    }

    fn clear_used_ring(&self) {
        self.write(0x8000, &[0; 6 + 8 * SIZE as usize]);
    }

    fn used_ids(&self, count: u64) -> Vec<u16> {
        (0..count)
            .map(|index| self.read_u16(0x8004 + 8 * index))
            .collect()
    }
}

#[test]
fn a_split_ring_begins_with_its_first_entry_after_every_reset() {
    let (mut driver, mut burst) = (Driver::new(false), Burst::new());
    for reset in 0..1_000u32 {
        let used_before = 1 + (reset * 61 % 60_000) as u16;
        driver.reset(used_before);
        for index in 0..u64::from(SIZE) {
            driver.offer(&[(BUFFERS + index * 0x1000, 1536)], WRITE);
        }
        let mut port = driver.port(0, VERSION_1);
        driver.clear_used_ring();
        send(&mut port, &mut burst, 3);
        assert_eq!(driver.read_u16(0x8002), 3, "receive, reset {reset}");
        assert_eq!(driver.used_ids(3), [0, 1, 2]);

        driver.reset(used_before);
        let mut port = driver.port(1, VERSION_1);
        assert_eq!(drain(&mut port, &mut burst), 0);
        assert!(!port.arm());
        driver.clear_used_ring();
        for _ in 0..2 {
            fill(&driver, BUFFERS, &frame(60, 1));
            driver.offer(&[(BUFFERS, 72)], 0);
        }
        assert_eq!(drain(&mut port, &mut burst), 2);
        assert_eq!(driver.read_u16(0x8002), 2, "transmit, reset {reset}");
        assert_eq!(driver.used_ids(2), [0, 1]);
    }
}

#[test]
fn a_split_ring_goes_on_at_the_used_index_whatever_its_front_end_says() {
    let (mut driver, mut burst) = (Driver::new(false), Burst::new());
    let mut used = 0;
    for round in 0..100u32 {
        for index in 0..8 {
            let at = BUFFERS + index * 0x1000;
            fill(&driver, at, &frame(60, 1));
            driver.offer(&[(at, 72)], 0);
        }
        let base = [0, used, u32::from(driver.heads)][round as usize % 3];
        let spec = QueueSpec {
            base: VringBase(base),
            ..driver.spec(1)
        };
        let memory = driver.memory.clone();
        let mut port = VhostUser::new(memory, VERSION_1, vec![spec], Alarm::new(|| {})).unwrap();
        assert_eq!(
            drain(&mut port, &mut burst),
            8,
            "round {round}, base {base}"
        );
        used += 8;
        assert_eq!(u32::from(driver.read_u16(0x8002)), used);
    }
}

#[test]
fn a_packed_ring_begins_where_its_front_end_says_after_every_reset() {
    let mut burst = Burst::new();
    for reset in 0..100u16 {
        let mut driver = Driver::new(true);
        // The note of a device that was there before, at any place and turn.
        driver.write(
            0x8000,
            &((reset % SIZE + 1) | (reset % 2) << 15).to_le_bytes(),
        );
        let mut port = driver.port(1, VERSION_1);
        drain(&mut port, &mut burst);
        driver.write(0, &[0; 16 * SIZE as usize]);
        driver.write(0x8000, &[0; 4]);
        fill(&driver, BUFFERS, &frame(60, 1));
        driver.offer(&[(BUFFERS, 72)], 0);
        assert_eq!(drain(&mut port, &mut burst), 1, "reset {reset}");
        assert_eq!(driver.packed_at(0).2 & 0x8080, 0x8080);
    }
}

/// A packed queue's driver that remembers what it posted.
struct Line {
    driver: Driver,
    index: u16,
    /// Descriptors of each buffer.
    pieces: u16,
    features: u64,
    /// The next used buffer is expected there.
    seen: RingPosition,
    /// The ids of the buffers that are posted.
    posted: VecDeque<u16>,
}

impl Line {
    fn new(index: u16, pieces: u16, features: u64) -> Self {
        let mut line = Line {
            driver: Driver::new(true),
            index,
            pieces,
            features,
            seen: RingPosition {
                index: 0,
                wrap: true,
            },
            posted: VecDeque::new(),
        };
        line.refill();
        line
    }

    fn receives(&self) -> bool {
        self.index == 0
    }

    fn port(&self) -> VhostUser {
        self.driver.port(self.index, self.features)
    }

    fn post(&mut self) {
        let first = self.driver.next;
        let at = BUFFERS + u64::from(first) * 0x1000;
        let (len, flags) = if self.receives() {
            (0x600, WRITE)
        } else {
            (72 / u32::from(self.pieces), 0)
        };
        fill(&self.driver, at, &frame(60, 1));
        let pieces = (0..u64::from(self.pieces)).map(|piece| (at + piece * u64::from(len), len));
        self.driver.offer(&pieces.collect::<Vec<_>>(), flags);
        self.posted
            .push_back((first + self.pieces - 1) % SIZE + 1000);
    }

    /// Keeps a receive queue full.
    fn refill(&mut self) {
        let full = usize::from(SIZE / self.pieces);
        while self.receives() && self.posted.len() < full {
            self.post();
        }
    }

    /// Takes what came back; how many buffers.
    fn reap(&mut self) -> usize {
        let mut count = 0;
        loop {
            let (id, _, flags) = self.driver.packed_at(self.seen.index);
            if flags & 0x8080 != self.seen.used_flags() {
                self.refill();
                return count;
            }
            while let Some(oldest) = self.posted.pop_front() {
                count += 1;
                self.seen = self.seen.ahead(self.pieces, SIZE);
                if oldest == id {
                    break;
                }
                assert_ne!(self.features & IN_ORDER, 0, "{oldest} came back as {id}");
            }
        }
    }

    /// Sends or receives a frame, and what else waits; how many.
    fn pass(&mut self, port: &mut VhostUser, burst: &mut Burst) -> usize {
        if self.receives() {
            send(port, burst, 1);
            return 1;
        }
        self.post();
        drain(port, burst)
    }

    fn image(&self) -> Vec<u8> {
        self.driver.read(0, 16 * usize::from(SIZE))
    }
}

/// Kills the device after each of its stores: it gives back a group of buffers in any order that an
/// ordinary device may choose, and then notes its place.
#[test]
fn a_packed_ring_goes_on_wherever_its_device_was_killed() {
    const GROUP: usize = 5;
    /// Frames after it: more than one turn.
    const MORE: usize = 80;
    let mut burst = Burst::new();
    let kinds = [(0, VERSION_1), (1, VERSION_1), (1, VERSION_1 | IN_ORDER)];
    for (index, features) in kinds {
        for (pieces, warm_up) in [(1, 3), (1, 62), (1, 125), (3, 3), (3, 20), (3, 41)] {
            for (killed_after, backwards, driver_first) in (0..=GROUP + 1)
                .flat_map(|stores| [(stores, false), (stores, true)])
                .flat_map(|(stores, order)| [(stores, order, false), (stores, order, true)])
            {
                let what = format!(
                    "queue {index}, {features:#x}, {pieces} pieces, {warm_up} before, killed after \
                     {killed_after}, backwards {backwards}, driver first {driver_first}"
                );
                let mut line = Line::new(index, pieces, features);
                let mut port = line.port();
                for _ in 0..warm_up {
                    line.pass(&mut port, &mut burst);
                    assert_eq!(line.reap(), 1, "{what}");
                }
                let posts = if index == 0 { 0 } else { GROUP };
                (0..posts).for_each(|_| line.post());
                let (before, note) = (line.image(), line.driver.read(0x8000, 2));
                match index {
                    0 => send(&mut port, &mut burst, GROUP),
                    _ => assert_eq!(drain(&mut port, &mut burst), GROUP),
                }
                drop(port);
                println!("{what}");
                let given = kill(&line, &before, &note, killed_after, backwards);
                let mut reaped = if driver_first { line.reap() } else { 0 };
                let mut port = line.port();
                let mut passed = 0;
                for _ in 0..MORE {
                    passed += line.pass(&mut port, &mut burst);
                    reaped += line.reap();
                }
                let leftover = if index == 0 { given } else { GROUP };
                assert_eq!(reaped, MORE + leftover, "{what}");
                let again = if index == 0 { 0 } else { GROUP - given };
                assert_eq!(passed, MORE + again, "{what}");
            }
        }
    }
}

/// Takes back all stores of the last group but the first few. How many buffers are given back then.
fn kill(line: &Line, before: &[u8], note: &[u8], stores: usize, backwards: bool) -> usize {
    let after = line.image();
    let word = |place: u16| 16 * usize::from(place) + 8..16 * usize::from(place) + 16;
    let places = (0..SIZE).map(|by| line.seen.ahead(by, SIZE).index);
    let mut changed: Vec<_> = places
        .filter(|place| before[word(*place)] != after[word(*place)])
        .collect();
    // Each chain of a receive queue is given back and noted by itself.
    let alone = line.receives() && line.pieces > 1;
    if backwards && !alone {
        changed.reverse();
    }
    line.driver.write(0, before);
    for place in changed.iter().take(stores) {
        let word = word(*place);
        line.driver.write(word.start as u64, &after[word]);
    }
    let done = stores.min(changed.len());
    if alone {
        let next = line.seen.ahead(done as u16 * line.pieces, SIZE);
        let note = RingPosition {
            index: next.index + 1,
            ..next
        };
        line.driver.write(0x8000, &note.bits().to_le_bytes());
    } else if stores <= changed.len() {
        line.driver.write(0x8000, note);
    }
    // In order, one store gives back all of the group.
    done * 5 / changed.len()
}
