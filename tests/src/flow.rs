//! Frames that pass all the while, each with a number: what a disturbance elsewhere must not cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::patience::SOON;
use crate::{Netns, Station};

/// EtherType for local experiments (IEEE 802), and what marks our frames behind it.
const TYPE: [u8; 2] = [0x88, 0xb5];
const MARK: [u8; 4] = *b"flow";

/// Shortest frame without FCS.
const LENGTH: usize = 60;

/// A flow from one plug to another, on a thread of its own.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Passed>>,
}

/// What became of a flow's frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Frames that were sent.
    pub sent: u64,
    /// The numbers of those that never arrived.
    pub lost: Vec<u64>,
}

impl Flow {
    /// Plugs into the taps `from` and `to` of the host and sends a frame `every` so often, once
    /// the first has found its way.
    ///
    /// # Panics
    /// When none does, or somebody else holds a tap.
    pub fn start(host: &Netns, from: &str, to: &str, every: Duration) -> Self {
        let plug = |tap: &str, last| Station::plug(host, tap, [2, 0x66, 0x6c, 0x6f, 0x77, last]);
        let (from, mut to) = (plug(from, 1), plug(to, 2));
        let deadline = Instant::now() + SOON;
        // Where a bridge is on the way, it learns by this where the receiver is.
        to.send(&frame(&to, &from, 0));
        let found = loop {
            from.send(&frame(&from, &to, 0));
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

    /// Ends it, and waits for what is on its way.
    ///
    /// # Panics
    /// When a plug does not work any more.
    pub fn end(mut self) -> Passed {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("taken here only");
        thread.join().expect("plugs that work")
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Of a test that failed for another reason.
            let _ = thread.join();
        }
    }
}

impl Passed {
    /// Every frame arrived, and there were some.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn assert_whole(&self, during: &str) {
        assert!(
            self.sent > 0 && self.lost.is_empty(),
            "{during}: {} of {} frames lost, such as {:?}",
            self.lost.len(),
            self.sent,
            &self.lost[..self.lost.len().min(12)]
        );
    }
}

fn run(from: &Station, to: &mut Station, every: Duration, stop: &AtomicBool) -> Passed {
    // Number 0 is for finding the way.
    let mut missing = std::collections::BTreeSet::new();
    let mut sent = 0;
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        sent += 1;
        missing.insert(sent);
        from.send(&frame(from, to, sent));
        // A thread that was kept from its CPU does not make up for it by a burst.
        due = (due + every).max(Instant::now());
        while let Some(arrived) = to.receive(due, number) {
            missing.remove(&arrived);
        }
    }
    let deadline = Instant::now() + SOON;
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

fn frame(from: &Station, to: &Station, number: u64) -> Vec<u8> {
    let number = number.to_be_bytes();
    let mut frame = [&to.mac[..], &from.mac, &TYPE, &MARK, &number].concat();
    frame.resize(LENGTH, 0);
    frame
}

fn number(frame: &[u8]) -> Option<u64> {
    let rest = frame.get(12..)?;
    let number = rest.strip_prefix(&TYPE)?.strip_prefix(&MARK)?;
    Some(u64::from_be_bytes(*number.first_chunk()?))
}
