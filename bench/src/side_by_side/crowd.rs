//! One busy cable beside many idle ones, all with the same worker.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use dataplane::port::Tap;
use dataplane::{Cable, PanelOptions, Port};

use crate::BenchError;
use crate::bed::{CpuPair, FreshCable};
use crate::endpoint::Endpoint;
use crate::trial::Stage;
use guest::{GuestOptions, MemoryOptions};

/// Frame size of the busy cable.
const SIZE: usize = 64;

/// Makes `idle` cables between taps and one between guests. Returns the busy one's rate in
/// million frames a second, both ways together, and the share of a CPU that the worker takes
/// while all are idle, in percent.
///
/// Run it in a network namespace of its own: it makes two devices for each idle cable.
///
/// # Errors
/// When a port cannot be made or the busy cable carries nothing.
pub fn crowd(idle: usize, time: Duration) -> Result<(f64, f64), BenchError> {
    let cpus = CpuPair::of_this_process();
    let options = PanelOptions {
        workers: 1,
        cpus: cpus.worker.into_iter().collect(),
        ..PanelOptions::default()
    };
    let fresh = FreshCable::plug(&options)?;
    cpus.bind_generator();
    for number in 0..idle {
        let port = |end: &str| {
            Tap::open(&format!("i{number}{end}"))
                .map(Port::Tap)
                .map_err(|error| BenchError::Fresh(error.to_string()))
        };
        fresh.beside(Cable::new(port("a")?, port("b")?))?;
    }
    let bed = fresh.bed();
    let guest = GuestOptions {
        queue_size: 1024,
        memory: MemoryOptions {
            huge: true,
            ..MemoryOptions::default()
        },
        ..GuestOptions::default()
    };
    let open = |end| Endpoint::open(end, SIZE, &guest);
    let mut stage = Stage {
        ends: [open(&bed.ends[0])?, open(&bed.ends[1])?],
        size: SIZE,
        both_ways: true,
        cpu: bed.cpu.clone(),
        stop: &AtomicBool::new(false),
        trials: 0,
    };
    stage.wait_for_first()?;
    let rate = stage.flood(time)?.frames_per_second / 1e6;
    let used = || {
        bed.cpu
            .as_ref()
            .and_then(crate::clock::CpuMeter::seconds)
            .unwrap_or(0.0)
    };
    // The worker goes to sleep first.
    std::thread::sleep(Duration::from_millis(200));
    let (began, before) = (Instant::now(), used());
    std::thread::sleep(time);
    let percent = (used() - before) / began.elapsed().as_secs_f64() * 100.0;
    Ok((rate, percent))
}
