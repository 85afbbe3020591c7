//! Numbered frames that keep flowing while a test disturbs something: a [`Flow`] counts what it
//! loses, a [`TwoWayFlow`] may lose nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::patience::{SOON, deadline, wait_until};
use crate::{Netns, Nic, Station};

/// EtherType for local experiments (IEEE 802), and what marks our frames behind it.
const TYPE: [u8; 2] = [0x88, 0xb5];
const MARK: [u8; 4] = *b"flow";

/// Bytes of a frame of a [`Flow`]: the shortest without FCS.
const LENGTH: usize = 60;

/// Bytes of a frame of a [`TwoWayFlow`].
const TWO_WAY_LENGTH: usize = 200;

/// The number of frames that only make their sender known.
const INTRODUCTION: u64 = u64::MAX;

/// How long a sender waits for room when its window is full.
const FULL: Duration = Duration::from_micros(100);

/// A flow of frames from one tap to another, on a thread of its own.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Passed>>,
}

/// How many frames a flow sent, and which were lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Number of frames sent; they count from 1.
    pub sent: u64,
    /// The numbers of the frames that never arrived.
    pub lost: Vec<u64>,
}

impl Flow {
    /// Plugs into the taps `from` and `to` of the host and sends a frame at each interval `every`,
    /// once a first frame has arrived.
    ///
    /// # Panics
    /// When no frame arrives, or another program holds a tap.
    pub fn start(host: &Netns, from: &str, to: &str, every: Duration) -> Self {
        let plug = |tap: &str, last| Station::plug(host, tap, [2, 0x66, 0x6c, 0x6f, 0x77, last]);
        let (from, mut to) = (plug(from, 1), plug(to, 2));
        let deadline = deadline(SOON);
        // Bridges on the way learn the receiver's address.
        to.send(&frame(to.mac, from.mac, 0, LENGTH));
        let found = loop {
            from.send(&frame(from.mac, to.mac, 0, LENGTH));
            let patience = (Instant::now() + Duration::from_millis(100)).min(deadline);
            let found = to.receive(patience, number);
            if found.is_some() || Instant::now() >= deadline {
                break found;
            }
        };
        assert!(found.is_some(), "no frame passes");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || run(&from, &mut to, every, &stopped));
        Flow {
            stop,
            thread: Some(thread),
        }
    }

    /// Stops sending, and waits for the frames on their way.
    ///
    /// # Panics
    /// When a tap fails.
    pub fn end(mut self) -> Passed {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("taken only here");
        thread.join().expect("the taps work")
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The test has failed for another reason.
            let _ = thread.join();
        }
    }
}

impl Passed {
    /// Asserts that frames were sent and that every one arrived.
    ///
    /// # Panics
    /// With the numbers of lost frames.
    #[track_caller]
    pub fn assert_complete(&self, during: &str) {
        assert!(
            self.sent > 0 && self.lost.is_empty(),
            "{during}: {} of {} frames lost, such as {:?}",
            self.lost.len(),
            self.sent,
            &self.lost[..self.lost.len().min(12)]
        );
    }
}

/// Numbered frames between two taps in both directions, never more on their way than the taps and
/// what lies between them can hold: so every frame must arrive, in order.
#[derive(Debug)]
pub struct TwoWayFlow {
    nics: [Nic; 2],
    window: u64,
}

/// One direction of a [`TwoWayFlow`]: frames sent and received so far.
#[derive(Debug, Default)]
struct Progress {
    sent: AtomicU64,
    received: AtomicU64,
}

impl TwoWayFlow {
    /// Plugs into the two taps of the host. At most `window` frames are on their way at a time in
    /// each direction.
    ///
    /// # Panics
    /// When a tap is missing, or another program holds it.
    pub fn plug(host: &Netns, taps: [&str; 2], window: u64) -> Self {
        let nics = taps.map(|tap| host.enter(|| Nic::plain(tap)));
        TwoWayFlow { nics, window }
    }

    /// Sends until each NIC has received a frame of the other, so that a bridge between them knows
    /// both and does not flood.
    ///
    /// # Panics
    /// When no frame passes.
    pub fn introduce(&self) {
        let deadline = deadline(SOON);
        for from in [0, 1] {
            loop {
                self.send(from, INTRODUCTION);
                let answer = self.nics[1 - from].receive_within(Duration::from_millis(200));
                if answer.is_some_and(|(_, frame)| number(&frame).is_some()) {
                    break;
                }
                assert!(Instant::now() < deadline, "no frame passes");
            }
        }
    }

    /// Lets frames flow while `work` runs. Returns how many each NIC has sent; the other has
    /// received every one of them.
    ///
    /// # Panics
    /// When a frame is lost or overtaken, and as `work` does.
    pub fn during(&self, work: impl FnOnce()) -> [u64; 2] {
        let stop = AtomicBool::new(false);
        let lanes = [Progress::default(), Progress::default()];
        std::thread::scope(|scope| {
            for (from, lane) in lanes.iter().enumerate() {
                let stop = &stop;
                scope.spawn(move || self.send_all(from, lane, stop));
                scope.spawn(move || self.receive_all(from, lane, stop));
            }
            let _stopped = StopOnDrop(&stop);
            wait_until("frames to flow", SOON, || {
                let flows =
                    |lane: &Progress| lane.received.load(Ordering::SeqCst) > 5 * self.window;
                lanes.iter().all(flows)
            });
            work();
        });
        lanes.map(|lane| lane.sent.into_inner())
    }

    fn send_all(&self, from: usize, lane: &Progress, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            let number = lane.sent.load(Ordering::SeqCst);
            if number - lane.received.load(Ordering::SeqCst) >= self.window {
                std::thread::sleep(FULL);
                continue;
            }
            // Counted before it is sent: the receiver never has more than were counted.
            lane.sent.store(number + 1, Ordering::SeqCst);
            self.send(from, number);
        }
    }

    fn receive_all(&self, from: usize, lane: &Progress, stop: &AtomicBool) {
        let mut next = 0;
        let mut heard = Instant::now();
        while !(stop.load(Ordering::SeqCst) && next == lane.sent.load(Ordering::SeqCst)) {
            let frame = self.nics[1 - from].receive_within(Duration::from_millis(50));
            let Some(number) = frame.and_then(|(_, frame)| number(&frame)) else {
                assert!(heard.elapsed() < SOON, "frame {next} of NIC {from} is lost");
                continue;
            };
            if number == INTRODUCTION {
                continue;
            }
            assert_eq!(number, next, "frames of NIC {from} are lost or overtaken");
            next += 1;
            lane.received.store(next, Ordering::SeqCst);
            heard = Instant::now();
        }
    }

    fn send(&self, from: usize, number: u64) {
        let [from_mac, to_mac] = [from, 1 - from].map(|nic| [2, 0, 0, 0, 0, 3 + nic as u8]);
        self.nics[from].send([0; 10], &frame(from_mac, to_mac, number, TWO_WAY_LENGTH));
    }
}

/// Stops threads also when the work beside them panics: they would never be joined.
#[derive(Debug)]
pub struct StopOnDrop<'s>(pub &'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn run(from: &Station, to: &mut Station, every: Duration, stop: &AtomicBool) -> Passed {
    // Number 0 is that of the first frames.
    let mut missing = std::collections::BTreeSet::new();
    let mut sent = 0;
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        sent += 1;
        missing.insert(sent);
        from.send(&frame(from.mac, to.mac, sent, LENGTH));
        // A thread that was delayed does not catch up by a burst.
        due = (due + every).max(Instant::now());
        while let Some(arrived) = to.receive(due, number) {
            missing.remove(&arrived);
        }
    }
    let deadline = deadline(SOON);
    while !missing.is_empty() {
        let Some(arrived) = to.receive(deadline, number) else {
            break;
        };
        missing.remove(&arrived);
    }
    Passed {
        sent,
        lost: missing.into_iter().collect(),
    }
}

fn frame(from: [u8; 6], to: [u8; 6], number: u64, length: usize) -> Vec<u8> {
    let number = number.to_be_bytes();
    let mut frame = [&to[..], &from, &TYPE, &MARK, &number].concat();
    frame.resize(length, 0);
    frame
}

fn number(frame: &[u8]) -> Option<u64> {
    let rest = frame.get(12..)?;
    let number = rest.strip_prefix(&TYPE)?.strip_prefix(&MARK)?;
    Some(u64::from_be_bytes(*number.first_chunk()?))
}
