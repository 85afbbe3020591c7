//! One worker, driven round by round: what a lane gets beside others.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::frame::{Offloads, VnetHeader};
use crate::lane::tests::super_frame;
use crate::mailbox::mailbox;
use crate::port::{MemoryHost, memory_taking};
use crate::stats::LaneSnapshot;
use crate::worker::*;

/// Frames that wait at each sender at the beginning of each round.
const WAITING: usize = 64;

/// What a guest sends without end, and to whom.
struct Sender {
    what: &'static str,
    header: VnetHeader,
    frame: Vec<u8>,
    /// Its receiver takes these offloads.
    takes: Offloads,
    /// Its receiver takes frames out; otherwise it is full.
    drains: bool,
}

impl Sender {
    fn plain(what: &'static str, len: usize) -> Self {
        Sender {
            what,
            header: VnetHeader::default(),
            frame: vec![2; len],
            takes: Offloads::ALL,
            drains: true,
        }
    }

    fn super_frames(what: &'static str, size: u16, takes: Offloads, drains: bool) -> Self {
        let (header, frame) = super_frame(65_400, size);
        Sender {
            what,
            header,
            frame,
            takes,
            drains,
        }
    }
}

fn attackers() -> Vec<Sender> {
    let unfinished = Sender {
        header: VnetHeader([1, 0, 0, 0, 0, 0, 34, 0, 16, 0]),
        takes: Offloads::NONE,
        ..Sender::plain("64 KiB, and the checksum left to us", 65_454)
    };
    vec![
        Sender::super_frames("2044 pieces a frame", 32, Offloads::NONE, true),
        Sender::super_frames("the same, its receiver full", 32, Offloads::NONE, false),
        Sender::super_frames("too many pieces", 8, Offloads::NONE, true),
        Sender::super_frames("46 pieces a frame", 1448, Offloads::NONE, true),
        Sender::super_frames("whole super-frames", 1448, Offloads::ALL, true),
        Sender::plain("shortest frames", 14),
        Sender::plain("jumbo frames", 9014),
        unfinished,
    ]
}

/// A cable on the bench's worker, and the hosts at its ends.
struct Traffic {
    sender: Sender,
    from: MemoryHost,
    to: MemoryHost,
    stats: Arc<crate::stats::LaneStats>,
}

impl Traffic {
    fn top_up(&self) {
        while self.from.send(self.sender.header, &self.sender.frame) {}
        if self.sender.drains {
            while self.to.receive(Duration::ZERO).is_some() {}
        }
    }
}

fn worker() -> Worker {
    let poll = Poll::new().unwrap();
    let (_, commands) = mailbox(poll.registry(), WAKE).unwrap();
    let channels = WorkerChannels {
        commands,
        events: crossbeam_channel::bounded(1).0,
        notifier: Arc::new(|| {}),
        stats: Arc::default(),
    };
    Worker::new(poll, channels, Idle::Spin).unwrap()
}

fn plug(worker: &mut Worker, id: u32, sender: Sender) -> Traffic {
    let (a, from) = memory_taking(Offloads::ALL, WAITING).unwrap();
    let (b, to) = memory_taking(sender.takes, 4096).unwrap();
    let cable = Cable::new(Port::Memory(a), Port::Memory(b));
    let stats = cable.stats(Side::A);
    worker.add(CableId(id), cable).unwrap();
    Traffic {
        sender,
        from,
        to,
        stats,
    }
}

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec as u32)
}

/// Runs until so many of the bystander's frames have passed. Returns the worker's time for it.
fn time_beside(sender: Sender, frames: u64) -> (Duration, LaneSnapshot, LaneSnapshot) {
    let mut worker = worker();
    let other = plug(&mut worker, 1, sender);
    let bystander = plug(&mut worker, 2, Sender::plain("bystander", 1514));
    let mut time = Duration::ZERO;
    while bystander.stats.snapshot().frames_out < frames {
        other.top_up();
        bystander.top_up();
        let began = thread_time();
        worker.shares.begin_round();
        worker.round(Instant::now());
        time += thread_time().saturating_sub(began);
    }
    let [of_other, own] = [other, bystander].map(|traffic| traffic.stats.snapshot());
    (time, of_other, own)
}

#[test]
fn a_bystander_keeps_half_of_what_it_has_beside_a_fair_sender() {
    let frames = 6_400;
    let fair = || time_beside(Sender::plain("fair", 1514), frames);
    for attacker in attackers() {
        let what = attacker.what;
        // Debug builds slow one kind of work down more than another.
        let most = if cfg!(debug_assertions) { 4 } else { 2 };
        let (beside_fair, _, _) = fair();
        let (time, theirs, own) = time_beside(attacker, frames);
        println!(
            "{what}: {:.2} of the time beside a fair sender, throttled {}",
            time.as_secs_f64() / beside_fair.as_secs_f64(),
            theirs.throttled
        );
        assert_eq!(own.dropped(), 0, "{what}");
        assert!(
            time < beside_fair * most,
            "{what}: {time:?}, {beside_fair:?}"
        );
        let gone = theirs.frames_out + theirs.dropped();
        assert_eq!(theirs.frames_in, gone, "{what}");
    }
}

#[test]
fn who_waits_for_others_is_counted() {
    let attacker = Sender::super_frames("2044 pieces a frame", 32, Offloads::NONE, true);
    let (_, theirs, own) = time_beside(attacker, 640);
    assert!(theirs.throttled > 0, "{theirs:?}");
    assert_eq!(own.throttled, 0);
    let (_, theirs, own) = time_beside(Sender::plain("fair", 1514), 640);
    assert_eq!((theirs.throttled, own.throttled), (0, 0));
}

#[test]
fn alone_nobody_waits() {
    let mut worker = worker();
    let sender = Sender::super_frames("2044 pieces a frame", 32, Offloads::NONE, true);
    let traffic = plug(&mut worker, 1, sender);
    for round in 1..=20 {
        traffic.top_up();
        worker.shares.begin_round();
        worker.round(Instant::now());
        // Each turn is as short as it can be: one of these frames.
        let seen = traffic.stats.snapshot();
        assert_eq!((seen.frames_in, seen.throttled), (round * 2044, 0));
    }
}
