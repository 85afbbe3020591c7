//! A soak: frames on twenty cables of all kinds of ports while faults come and go, and the books
//! are balanced again and again.
//!
//! `make soak` lets it last for half an hour; `make test` for two minutes. `IKV_SOAK_SECONDS` says
//! how long, `IKV_SOAK_SEED` repeats the faults of an earlier run.
//!
//! A patch panel of the default size runs as the real program. Two threads of this process keep
//! frames flowing ([`traffic`]), a third causes faults ([`faults`]), several at a time. After
//! every few faults all is put right, the frames on their way arrive, and the ledger
//! ([`ledger`]) compares what the fabric counted with what the ends of each cable sent and
//! received: no frame and no byte may be missing, and the fabric's memory and descriptors must not
//! grow.

// Clippy sees no tests here, because they are not marked by an attribute but listed in `main`.
#![allow(clippy::unwrap_used)]

mod faults;
mod ledger;
mod traffic;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use guest::Ring;
use ikv_tests::panel::PanelHost;
use ikv_tests::patience::{SOON, ensure, until};
use ikv_tests::process::{descriptors as open_descriptors, own_kib};
use ikv_tests::{Dice, StopOnDrop, figure, have_root, say};
use libtest_mimic::{Arguments, Trial};
use tempfile::TempDir;

use faults::{Fault, Target};
use ledger::Lanes;
use traffic::{Pair, Plugged, drivers};

/// How long it lasts unless `IKV_SOAK_SECONDS` says otherwise.
const SECONDS: u64 = 120;

/// Cables with traffic.
const CABLES: usize = 20;

/// Of these, cables with a driver at both ends, which carry as much as they can.
const FAST: usize = 4;

/// Frames on their way in one direction: of drivers, and of taps, which hold no more than 500.
const WINDOWS: [u64; 2] = [96, 40];

/// Faults at a time, and faults between two settlements.
const AT_A_TIME: usize = 3;
const BETWEEN_SETTLEMENTS: usize = 9;

/// Frames flow for this long, at most, before the next fault.
const PAUSE: Duration = Duration::from_millis(250);

/// By how much the program's own memory may exceed that after the first settlements: frames that
/// impairments hold, buffers of captures, and what the allocator keeps of them.
const SPARE_KIB: u64 = 64 << 10;

fn main() -> ExitCode {
    if let Some(socket) = std::env::var_os(traffic::GUEST) {
        // The fabric closes the socket when its cable is cut; then a guest's process ends.
        let _ = traffic::play_guest(socket.as_ref());
        return ExitCode::SUCCESS;
    }
    let trials = vec![Trial::test("no_frame_is_lost_unaccounted", || {
        if have_root() {
            soak();
        }
        Ok(())
    })];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// All that takes part.
struct Soak<'h> {
    host: &'h PanelHost,
    pid: u32,
    pairs: Vec<Mutex<Pair>>,
    targets: Vec<Target>,
    /// The counters at the last settlement.
    before: BTreeMap<String, Lanes>,
    /// Nobody sends.
    paused: AtomicBool,
    frames: u64,
    settlements: u64,
    /// Resident memory and descriptors after the first settlements.
    level: Option<(u64, usize)>,
}

fn soak() {
    let seconds = number("IKV_SOAK_SECONDS").unwrap_or(SECONDS);
    let began = Instant::now();
    let seed = number("IKV_SOAK_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
        now.map_or(1, |now| now.as_nanos() as u64)
    });
    say(&format!("IKV_SOAK_SECONDS={seconds} IKV_SOAK_SEED={seed}"));
    let host = PanelHost::new("soak");
    let clean = host.state();
    let fabric = host.run(&["--workers", "2"]);
    let mut soak = Soak::new(&host, fabric.pid());
    let mut dice = Dice(seed);
    let faults = soak.run(&mut dice, began + Duration::from_secs(seconds));
    let (frames, settlements) = (soak.frames, soak.settlements);
    drop(soak);
    fabric.end();
    clean.assert_unchanged(&host.state(), "after a soak");
    figure(
        "soak",
        &format!(
            "{frames} frames, {faults} faults, {settlements} settlements, 0 frames unaccounted, {} s",
            began.elapsed().as_secs()
        ),
    );
    assert!(faults as u64 >= seconds / 6, "too few faults: {faults}");
    assert!(frames > seconds * 1000, "too few frames: {frames}");
}

impl<'h> Soak<'h> {
    fn new(host: &'h PanelHost, pid: u32) -> Self {
        let pairs = pairs(host);
        let targets = pairs.iter().map(|pair| Target {
            cable: pair.cable.clone(),
            ends: pair.ends.clone(),
            has_process: pair.has_process(),
        });
        let targets = targets.collect();
        let soak = Soak {
            host,
            pid,
            pairs: pairs.into_iter().map(Mutex::new).collect(),
            targets,
            before: BTreeMap::new(),
            paused: AtomicBool::new(true),
            frames: 0,
            settlements: 0,
            level: None,
        };
        soak.plug_all();
        soak
    }

    fn pair(&self, index: usize) -> MutexGuard<'_, Pair> {
        self.pairs[index]
            .lock()
            .expect("a thread that panics ends the soak")
    }

    fn plug_all(&self) {
        for index in 0..self.pairs.len() {
            self.pair(index).plug(&self.host.netns);
        }
    }

    /// Causes faults under load until `deadline`. Returns how many.
    fn run(&mut self, dice: &mut Dice, deadline: Instant) -> usize {
        let files = tempfile::tempdir().expect("a folder for captures");
        let mut count = 0;
        let books = self.settle();
        self.open_books(books);
        while Instant::now() < deadline {
            self.plug_all();
            self.paused.store(false, Ordering::SeqCst);
            let this = &*self;
            std::thread::scope(|scope| {
                let _paused = StopOnDrop(&this.paused);
                scope.spawn(|| this.talk(0..FAST));
                scope.spawn(|| this.talk(FAST..CABLES));
                this.wait_for_talk();
                this.cause(dice, &files);
                this.wait_for_talk();
            });
            count += BETWEEN_SETTLEMENTS;
            let books = self.settle();
            self.check(&books);
            self.open_books(books);
        }
        count
    }

    /// Keeps frames flowing on some of the cables until they are paused.
    fn talk(&self, cables: std::ops::Range<usize>) {
        while !self.paused.load(Ordering::SeqCst) {
            let mut any = false;
            for index in cables.clone() {
                any |= self.pair(index).round();
            }
            if !any || cables.start >= FAST {
                // The two CPUs are also the fabric's.
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// Waits until frames pass in both directions of all cables that nobody has unplugged.
    fn wait_for_talk(&self) {
        for index in 0..self.pairs.len() {
            until(
                &format!("frames on {}", self.targets[index].cable),
                SOON,
                || {
                    let talked = self.pair(index).has_talked();
                    ensure(talked, || {
                        self.host
                            .ask(&["cables", &self.targets[index].cable])
                            .stdout
                    })
                },
            );
        }
    }

    /// Several faults, of which some last at the same time.
    fn cause(&self, dice: &mut Dice, files: &TempDir) {
        let mut lasting: Vec<Fault> = Vec::new();
        for _ in 0..BETWEEN_SETTLEMENTS {
            if lasting.len() == AT_A_TIME {
                let ended = lasting.remove(dice.below(AT_A_TIME));
                self.undo(ended, &lasting);
            }
            let mut fault = self.roll(dice, &lasting);
            if let Some(on) = self.unplugged_by(&fault) {
                self.pair(on).unplug();
            }
            fault.begin(self.host, &self.targets, files);
            lasting.push(fault);
            std::thread::sleep(PAUSE.mul_f64(dice.below(100) as f64 / 100.0));
            ledger::all_lanes(self.host);
        }
        while let Some(fault) = lasting.pop() {
            self.undo(fault, &lasting);
        }
    }

    /// A fault unlike those that last: a cable is not both cut and a blackhole.
    fn roll(&self, dice: &mut Dice, lasting: &[Fault]) -> Fault {
        loop {
            let fault = Fault::roll(dice, &self.targets);
            if lasting.iter().all(|other| !fault.conflicts(other)) {
                return fault;
            }
        }
    }

    /// The cable whose ends are unplugged while the fault lasts.
    fn unplugged_by(&self, fault: &Fault) -> Option<usize> {
        fault.unplugs(|on| self.pair(on).has_front_end())
    }

    fn undo(&self, fault: Fault, lasting: &[Fault]) {
        let unplugged = self.unplugged_by(&fault);
        fault.end(self.host, &self.targets);
        if let Some(on) = unplugged {
            // A cut keeps front ends out.
            if lasting.iter().all(|other| other.cable() != Some(on)) {
                self.pair(on).plug(&self.host.netns);
            }
        }
    }

    /// Waits until no frame is on its way. Returns the counters of all cables then.
    fn settle(&self) -> BTreeMap<String, Lanes> {
        for index in 0..self.pairs.len() {
            self.pair(index).unplug_processes();
        }
        let mut last = BTreeMap::new();
        until("frames to arrive", SOON, || {
            let mut arrived = false;
            for index in 0..self.pairs.len() {
                let mut pair = self.pair(index);
                arrived |= pair.drain() && !pair.talks_by_itself();
            }
            let lanes = ledger::all_lanes(self.host);
            let held: u64 = lanes
                .iter()
                .flat_map(|(_, _, lanes)| lanes)
                .map(|lane| lane.held)
                .sum();
            let now: BTreeMap<_, _> = lanes
                .into_iter()
                .map(|(name, _, lanes)| (name, lanes))
                .collect();
            let busy = self.busy(&last, &now);
            last.clone_from(&now);
            let still = !arrived && held == 0 && busy.is_empty();
            ensure(still, || format!("{held} are held, {busy:?}")).map(|()| now)
        })
    }

    /// The cables that counted something, but for those that talk by themselves.
    fn busy(&self, before: &BTreeMap<String, Lanes>, now: &BTreeMap<String, Lanes>) -> Vec<String> {
        let busy = |index: &usize| {
            let pair = self.pair(*index);
            !pair.talks_by_itself() && before.get(&pair.cable) != now.get(&pair.cable)
        };
        let busy = (0..self.pairs.len()).filter(busy);
        busy.map(|index| format!("{:?}", now.get(&self.targets[index].cable)))
            .collect()
    }

    fn open_books(&mut self, now: BTreeMap<String, Lanes>) {
        self.before = now;
        for index in 0..self.pairs.len() {
            self.pair(index).settle();
        }
    }

    /// Compares the counters with the accounts of the ends, and the program with its former self.
    fn check(&mut self, now: &BTreeMap<String, Lanes>) {
        for index in 0..self.pairs.len() {
            let mut pair = self.pair(index);
            let noisy = pair.talks_by_itself();
            let (lanes, before) = (now[&pair.cable], self.before[&pair.cable]);
            let accounts = pair.settle();
            let name = pair.cable.clone();
            drop(pair);
            for (side, account) in accounts.into_iter().enumerate() {
                let lane = format!("{name} from {}", self.targets[index].ends[side]);
                self.frames += ledger::compare(&lane, lanes[side], before[side], account, noisy);
            }
        }
        self.settlements += 1;
        let (memory, open) = (own_kib(self.pid), open_descriptors(self.pid));
        println!("{memory} KiB, {open} descriptors");
        match self.level {
            Some((level, descriptors)) => {
                assert!(
                    memory <= level + level / 5 + SPARE_KIB,
                    "resident memory grew from {level} to {memory} KiB"
                );
                // Those of clients that were killed are closed a moment later.
                until("descriptors to be closed", SOON, || {
                    let open = open_descriptors(self.pid);
                    ensure(open <= descriptors, || {
                        format!("they grew from {descriptors} to {open}")
                    })
                });
            }
            // Until then caches and pools fill.
            None if self.settlements == 3 => self.level = Some((memory, open)),
            None => {}
        }
    }
}

/// Twenty cables of the panel, spread over all of them, with every kind of port at their ends.
fn pairs(host: &PanelHost) -> Vec<Pair> {
    let all = ledger::all_lanes(host);
    let (host_link, others): (Vec<_>, Vec<_>) = all
        .iter()
        .partition(|(_, ends, _)| ends.iter().any(|end| end == "ikhn"));
    let step = others.len() / (CABLES - 1);
    let chosen = others.into_iter().step_by(step).take(CABLES - 1);
    let mut pairs: Vec<_> = chosen
        .enumerate()
        .map(|(index, (cable, ends, _))| pair(host, index, cable, ends))
        .collect();
    let (cable, ends, _) = host_link[0];
    let plug = |end: &String| match end.as_str() {
        "ikhn" => Plugged::Netdev(end.clone()),
        _ => Plugged::Tap(end.clone()),
    };
    pairs.push(Pair::new(
        cable,
        [&ends[0], &ends[1]],
        [plug(&ends[0]), plug(&ends[1])],
        WINDOWS[1],
        400,
    ));
    pairs
}

fn pair(host: &PanelHost, index: usize, cable: &str, ends: &[String; 2]) -> Pair {
    let folder = host.folder().join("run/vhost");
    let socket = |side: usize| folder.join(format!("{}.sock", ends[side]));
    let driver = |side: usize| {
        let options = drivers()[(index + 2 * side) % drivers().len()];
        Plugged::Driver(socket(side), options)
    };
    let tap = |side: usize| Plugged::Tap(ends[side].clone());
    let sizes = [60, 64, 594, 1514];
    let plugged = match index {
        0..FAST => [driver(0), driver(1)],
        4..8 => [driver(0), tap(1)],
        8..10 => [tap(0), driver(1)],
        10 => [Plugged::Process(socket(0), Ring::Split), tap(1)],
        11 => [tap(0), Plugged::Process(socket(1), Ring::Packed)],
        _ => [tap(0), tap(1)],
    };
    let window = WINDOWS[usize::from(index >= FAST)];
    let size = sizes[index % sizes.len()];
    Pair::new(cable, [&ends[0], &ends[1]], plugged, window, size)
}
