//! The memory that held frames of all lanes may take together: [`HoldMemory`].

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that a lane takes at a time. Only a lane that holds more than ever since its impairment was
/// set takes some: one atomic addition then, each 2 MiB of frames, is all that workers share. It orders
/// nothing, and no worker ever waits for it.
const STEP: u64 = 2 << 20;

/// The budget of all lanes of a panel. A frame that would exceed it is dropped.
#[derive(Debug)]
pub struct HoldMemory {
    limit: u64,
    taken: AtomicU64,
}

impl HoldMemory {
    /// A budget of `limit` bytes; `None`: a quarter of the machine's RAM.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        HoldMemory {
            limit: limit.unwrap_or_else(quarter_of_ram),
            taken: AtomicU64::new(0),
        }
    }

    /// The budget, in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How many bytes lanes have taken of it; at most the budget.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let more = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= self.limit);
        let order = Ordering::Relaxed;
        self.taken.fetch_update(order, order, more).is_ok()
    }
}

/// A quarter of the machine's RAM, in bytes: the default of [`HoldMemory`].
pub fn quarter_of_ram() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    // A kernel without /proc: enough for most impairments.
    kib.map_or(1 << 30, |kib| kib * 1024 / 4)
}

/// One hold's part of the budget: as much as it has ever touched, because memory stays touched until it
/// is unmapped. Dropping it, which happens on a thread of control, gives all back.
#[derive(Debug)]
pub(super) struct Quota {
    memory: Arc<HoldMemory>,
    granted: u64,
    used: u64,
}

impl Quota {
    pub(super) fn new(memory: Arc<HoldMemory>) -> Self {
        Quota {
            memory,
            granted: 0,
            used: 0,
        }
    }

    /// Whether so many bytes may be touched for the first time.
    #[inline]
    pub(super) fn allows(&mut self, bytes: u64) -> bool {
        if self.used + bytes > self.granted && !self.grow(bytes) {
            return false;
        }
        self.used += bytes;
        true
    }

    #[cold]
    fn grow(&mut self, bytes: u64) -> bool {
        // The last bit of the budget is for whoever needs no more than that.
        for step in [STEP, bytes] {
            let step = step.max(bytes);
            if self.memory.take(step) {
                self.granted += step;
                return true;
            }
        }
        false
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        self.memory.taken.fetch_sub(self.granted, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_share_one_budget_and_give_it_back() {
        let memory = Arc::new(HoldMemory::new(Some(3 * STEP)));
        let mut a = Quota::new(memory.clone());
        let mut b = Quota::new(memory.clone());
        assert!(a.allows(2 * STEP));
        assert!(b.allows(1));
        assert_eq!(memory.taken(), 3 * STEP);
        assert!(b.allows(STEP - 1));
        assert!(!b.allows(1));
        assert!(!a.allows(1));
        drop(b);
        assert!(a.allows(1));
        drop(a);
        assert_eq!(memory.taken(), 0);
    }

    #[test]
    fn a_budget_below_one_step_is_used_to_its_end() {
        let memory = Arc::new(HoldMemory::new(Some(1000)));
        let mut quota = Quota::new(memory.clone());
        assert!((0..10).all(|_| quota.allows(100)));
        assert!(!quota.allows(1));
        assert_eq!(memory.taken(), 1000);
    }

    #[test]
    fn the_default_is_a_quarter_of_this_machines_ram() {
        let quarter = quarter_of_ram();
        assert!((1 << 20..1 << 46).contains(&quarter), "{quarter}");
        assert_eq!(HoldMemory::new(None).limit(), quarter);
    }
}
