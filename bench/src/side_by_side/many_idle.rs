//! One busy cable beside many idle ones, all with the same worker.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use dataplane::port::Tap;
use dataplane::{Cable, PanelOptions, Port};

use crate::BenchError;
use crate::cpu_time::CpuMeter;
use crate::generator::LoadGenerator;
use crate::testbed::{CpuPair, FreshCable};
use guest::{GuestOptions, MemoryOptions};

/// Frame size on the busy cable, in bytes without FCS.
const SIZE: usize = 64;

/// How long the worker gets to fall asleep.
const SETTLE: Duration = Duration::from_millis(200);

/// Makes `idle` cables between taps and one between guests. Returns the busy cable's rate in
/// million frames per second, in both directions together, and the worker's share of a CPU while
/// all cables are idle, in percent.
///
/// Run it in a network namespace of its own: it makes two devices for each idle cable.
///
/// # Errors
/// When a port cannot be made or the busy cable carries no frames.
pub fn measure_many_idle(idle: usize, time: Duration) -> Result<(f64, f64), BenchError> {
    let cpus = CpuPair::of_this_process();
    let options = PanelOptions {
        workers: 1,
        cpus: cpus.worker.into_iter().collect(),
        ..PanelOptions::default()
    };
    let fresh = FreshCable::start(&options)?;
    cpus.bind_generator();
    for number in 0..idle {
        let port = |end: &str| {
            Tap::open(&format!("i{number}{end}"))
                .map(Port::Tap)
                .map_err(|error| BenchError::FreshCable(error.to_string()))
        };
        fresh.add_cable(Cable::new(port("a")?, port("b")?))?;
    }
    let testbed = fresh.testbed();
    let guest = GuestOptions {
        queue_size: 1024,
        memory: MemoryOptions {
            huge: true,
            ..MemoryOptions::default()
        },
        ..GuestOptions::default()
    };
    let stop = AtomicBool::new(false);
    let mut generator = LoadGenerator::open(&testbed, SIZE, true, &guest, &stop)?;
    generator.wait_for_first_frame()?;
    let rate = generator.flood(time)?.frames_per_second / 1e6;
    let cpu_seconds = || {
        let meter = testbed.cpu.as_ref();
        meter.and_then(CpuMeter::seconds).unwrap_or(0.0)
    };
    std::thread::sleep(SETTLE);
    let (began, before) = (Instant::now(), cpu_seconds());
    std::thread::sleep(time);
    let percent = (cpu_seconds() - before) / began.elapsed().as_secs_f64() * 100.0;
    Ok((rate, percent))
}
