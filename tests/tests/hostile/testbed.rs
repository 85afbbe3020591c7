//! A [`Testbed`] is a panel with one worker and a watched cable that must not notice what happens
//! on other cables: each [`TestCable`] has front ends that misbehave.

use std::cell::{Cell, RefCell};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dataplane::vhost_sockets::{Role, SocketEvent, SocketSpec, VhostUserSockets};
use dataplane::{Cable, CableHandle, Panel, PanelOptions, Port, Side};
use guest::{Guest, GuestOptions, HEADER};
use ikv_tests::figure;
use ikv_tests::patience::{SOON, ensure, until};

/// The longest that a train on the watched cable may take on a busy machine.
const SLOWEST: Duration = Duration::from_secs(1);

/// Frames of a train: sent together, then awaited.
const TRAIN: usize = 8;

/// Held by a running test: tests measure what the whole process uses, so they run one at a time.
static RUNNING: Mutex<()> = Mutex::new(());

/// A panel, and its watched cable with the flow over it.
pub(crate) struct Testbed {
    panel: Panel,
    sockets: VhostUserSockets,
    folder: tempfile::TempDir,
    cables: Cell<usize>,
    events: RefCell<Vec<SocketEvent>>,
    /// The watched cable, its drops before both ends were plugged in, and the thread that watches.
    watched: Option<(TestCable, u64, JoinHandle<Seen>)>,
    stop: Arc<AtomicBool>,
    before: Usage,
    _running: MutexGuard<'static, ()>,
}

/// Frames that the watched cable carried, and the longest time of a train.
struct Seen {
    frames: u64,
    slowest: Duration,
}

/// Descriptors and resident memory of this process.
#[derive(Debug, Clone, Copy)]
struct Usage {
    descriptors: usize,
    kilobytes: usize,
}

impl Testbed {
    pub(crate) fn new() -> Self {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let options = PanelOptions {
            workers: 1,
            ..PanelOptions::default()
        };
        let panel = Panel::start(&options, || {}).unwrap();
        let sockets = VhostUserSockets::start(panel.clone(), || {}).unwrap();
        let mut testbed = Testbed {
            panel,
            sockets,
            folder: tempfile::tempdir().unwrap(),
            cables: Cell::new(0),
            events: RefCell::default(),
            watched: None,
            stop: Arc::default(),
            before: Usage::now(),
            _running: running,
        };
        let cable = testbed.cable();
        let ends = cable.guests(&GuestOptions::default());
        let dropped = cable.all_dropped();
        let stop = testbed.stop.clone();
        let watch = std::thread::spawn(move || watch(ends, &stop));
        testbed.watched = Some((cable, dropped, watch));
        testbed.before = Usage::now();
        testbed
    }

    /// Adds a cable with a vhost-user socket at each end.
    pub(crate) fn cable(&self) -> TestCable {
        let number = self.cables.replace(self.cables.get() + 1);
        let handle = self
            .panel
            .add(Cable::new(None::<Port>, None::<Port>))
            .wait()
            .unwrap();
        let sockets = [Side::A, Side::B].map(|side| {
            let path = self.folder.path().join(format!("{number}{side:?}"));
            let role = Role::Server(UnixListener::bind(&path).unwrap());
            let spec = SocketSpec {
                name: format!("{number}{side:?}"),
                cable: handle.id,
                side,
                role,
                mtu: None,
            };
            self.sockets.add(spec).wait().unwrap();
            path
        });
        TestCable { handle, sockets }
    }

    /// Waits until a front end of the cable was disconnected for a fault, and asserts that the
    /// reported reason contains `reason`.
    pub(crate) fn expect_fault(&self, cable: &TestCable, reason: &str) {
        let reported = until(&format!("a fault: {reason}"), SOON, || {
            self.collect();
            let events = self.events.borrow();
            let mut faults = events.iter().filter_map(|event| match event {
                SocketEvent::Fault {
                    cable: id, reason, ..
                } if *id == cable.handle.id => Some(reason),
                _ => None,
            });
            faults.next().cloned().ok_or_else(|| format!("{events:?}"))
        });
        assert!(
            reported.contains(reason),
            "\"{reported}\" does not contain \"{reason}\""
        );
        self.events.borrow_mut().clear();
    }

    /// Reasons for which front ends of the cable were disconnected since the last call.
    pub(crate) fn faults(&self, cable: &TestCable) -> Vec<String> {
        self.collect();
        let events = std::mem::take(&mut *self.events.borrow_mut());
        let faults = events.into_iter().filter_map(|event| match event {
            SocketEvent::Fault {
                cable: id, reason, ..
            } if id == cable.handle.id => Some(reason),
            _ => None,
        });
        faults.collect()
    }

    fn collect(&self) {
        let mut events = self.events.borrow_mut();
        events.extend(std::iter::from_fn(|| self.sockets.event()));
    }

    /// Ends the test: asserts that the watched cable lost no frame, and that descriptors and memory
    /// were released.
    pub(crate) fn end(mut self) {
        let used = until("descriptors and memory to be released", SOON, || {
            let (before, now) = (self.before, Usage::now());
            let bounded = now.descriptors <= before.descriptors + 16 * self.cables.get()
                && now.kilobytes <= before.kilobytes + (96 << 10);
            ensure(bounded, || format!("{before:?}, now {now:?}")).map(|()| now)
        });
        self.stop.store(true, Ordering::Relaxed);
        let (cable, dropped, watch) = self.watched.take().unwrap();
        let seen = watch.join().unwrap();
        assert_eq!(
            cable.all_dropped(),
            dropped,
            "the watched cable lost frames"
        );
        assert!(seen.frames > 0);
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let Seen { frames, slowest } = seen;
        figure(
            &format!("{test}, the watched cable"),
            &format!("{frames} frames, the slowest train took {slowest:?}; {used:?}"),
        );
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.sockets.clone().stop();
        self.panel.stop();
    }
}

impl Usage {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        Usage {
            descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            kilobytes: line.split_whitespace().nth(1).unwrap().parse().unwrap(),
        }
    }
}

/// Sends trains of frames in both directions; each must arrive complete, in order and in time.
fn watch(mut ends: [Guest; 2], stop: &AtomicBool) -> Seen {
    let mut seen = Seen {
        frames: 0,
        slowest: Duration::ZERO,
    };
    while !stop.load(Ordering::Relaxed) {
        for from in [0, 1] {
            let began = Instant::now();
            carry(&mut ends, from, seen.frames);
            let took = began.elapsed();
            assert!(took < SLOWEST, "a train of frames took {took:?}");
            seen.slowest = seen.slowest.max(took);
            seen.frames += TRAIN as u64;
        }
        std::thread::yield_now();
    }
    seen
}

fn carry(ends: &mut [Guest; 2], from: usize, number: u64) {
    let frame = |index: u64| -> Vec<u8> {
        let number = number + index;
        (0..60 + number % 1400)
            .map(|at| (at + number) as u8)
            .collect()
    };
    let (mut next, mut arrived) = (0, 0);
    let sent = ends[from].queue(1).send(TRAIN, |out| {
        out.header(&[0; HEADER]);
        out.frame(&frame(next));
        next += 1;
    });
    assert_eq!(sent.unwrap(), TRAIN, "the queue has no room for a train");
    let began = Instant::now();
    while arrived < TRAIN as u64 {
        let to = &mut ends[1 - from];
        match to.wait(0, Duration::from_millis(100)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => panic!("{error}"),
            _ => {}
        }
        let take = |incoming: &guest::Incoming<'_>| {
            assert_eq!(
                incoming.to_vec(),
                frame(arrived),
                "a frame of the watched cable"
            );
            arrived += 1;
        };
        to.queue(0).receive(TRAIN, take).unwrap();
        assert!(
            began.elapsed() < SOON,
            "{arrived} of {TRAIN} frames arrived"
        );
    }
}

/// A cable whose front ends misbehave.
pub(crate) struct TestCable {
    pub(crate) handle: CableHandle,
    sockets: [PathBuf; 2],
}

impl TestCable {
    pub(crate) fn socket(&self, side: Side) -> &Path {
        &self.sockets[side as usize]
    }

    /// Plugs a guest into one end.
    pub(crate) fn guest(&self, side: Side, options: &GuestOptions) -> Guest {
        self.plug_again(side, options)
    }

    /// Plugs in a guest whose rings run and are empty, so that the test writes all their content.
    pub(crate) fn empty_guest(&self, side: Side, options: &GuestOptions) -> Guest {
        let socket = UnixStream::connect(self.socket(side)).unwrap();
        let mut guest = Guest::unstarted(socket, options).unwrap();
        for index in 0..guest.queues() {
            guest.start(index, guest.first_base()).unwrap();
        }
        guest
    }

    /// Asserts that the cable works for the next front ends: frames pass in both directions.
    pub(crate) fn assert_works(&self, options: &GuestOptions) {
        let mut ends = self.guests(options);
        carry(&mut ends, 0, 1);
        carry(&mut ends, 1, 2);
    }

    /// Plugs a guest into each end, and waits until frames pass. A front end's session is answered
    /// before its rings become the cable's port, and until then its frames are dropped.
    pub(crate) fn guests(&self, options: &GuestOptions) -> [Guest; 2] {
        let mut ends = [Side::A, Side::B].map(|side| self.plug_again(side, options));
        for from in [0, 1] {
            until("a first frame", SOON, || {
                ends[from]
                    .queue(1)
                    .send(1, |out| out.frame(&[0x11; 60]))
                    .unwrap();
                let came = ends[1 - from].queue(0).receive(64, |_| ()).unwrap();
                ensure(came > 0, || format!("none from {from}"))
            });
        }
        for to in [0, 1] {
            // Later attempts may still be on their way: all have arrived once the sender has all
            // its slots back.
            until("the last of the first frames", SOON, || {
                let queue = ends[1 - to].queue(1);
                queue.reclaim().unwrap();
                let (free, all) = (queue.free(), queue.layout().slots as usize);
                ensure(free == all, || format!("{free} of {all} came back"))
            });
            ends[to].queue(0).receive(64, |_| ()).unwrap();
        }
        ends
    }

    /// Connects again until the socket is free: the front end before may not be gone yet, and a
    /// second one is refused.
    fn plug_again(&self, side: Side, options: &GuestOptions) -> Guest {
        until("the socket to be free", SOON, || {
            Guest::connect(self.socket(side), options).map_err(|error| error.to_string())
        })
    }

    /// Frames dropped in both directions, after checking that every frame is accounted for.
    pub(crate) fn all_dropped(&self) -> u64 {
        let lanes = self.handle.lanes.iter().map(|lane| lane.snapshot());
        lanes
            .inspect(|lane| {
                assert_eq!(lane.frames_in, lane.frames_out + lane.held + lane.dropped());
            })
            .map(|lane| lane.dropped())
            .sum()
    }
}
