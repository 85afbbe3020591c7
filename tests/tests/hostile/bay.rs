//! A panel with one worker and one cable whose frames are watched: [`Bay`]; and cables for
//! whoever means harm: [`Line`].

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

/// The longest that a frame of the watched cable may take, on a machine that does other things.
const LATEST: Duration = Duration::from_secs(1);

/// Frames sent before they are waited for.
const TRAIN: usize = 8;

/// One test at a time: they watch what the process uses.
static ALONE: Mutex<()> = Mutex::new(());

/// See the module's text.
pub(crate) struct Bay {
    panel: Panel,
    sockets: VhostUserSockets,
    folder: tempfile::TempDir,
    lines: Cell<usize>,
    events: RefCell<Vec<SocketEvent>>,
    /// Its drops before both ends were plugged in, and what was seen since.
    watched: Option<(Line, u64, JoinHandle<Seen>)>,
    stop: Arc<AtomicBool>,
    before: Usage,
    _alone: MutexGuard<'static, ()>,
}

/// What the watched cable carried.
struct Seen {
    frames: u64,
    slowest: Duration,
}

/// What the process uses.
#[derive(Debug, Clone, Copy)]
struct Usage {
    descriptors: usize,
    kilobytes: usize,
}

impl Bay {
    pub(crate) fn new() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let options = PanelOptions {
            workers: 1,
            ..PanelOptions::default()
        };
        let panel = Panel::start(&options, || {}).unwrap();
        let sockets = VhostUserSockets::start(panel.clone(), || {}).unwrap();
        let mut bay = Bay {
            panel,
            sockets,
            folder: tempfile::tempdir().unwrap(),
            lines: Cell::new(0),
            events: RefCell::default(),
            watched: None,
            stop: Arc::default(),
            before: Usage::now(),
            _alone: alone,
        };
        let line = bay.line();
        let ends = line.guests(&GuestOptions::default());
        let dropped = line.all_dropped();
        let stop = bay.stop.clone();
        let watch = std::thread::spawn(move || watch(ends, &stop));
        bay.watched = Some((line, dropped, watch));
        bay.before = Usage::now();
        bay
    }

    /// One more cable, with a socket at either end.
    pub(crate) fn line(&self) -> Line {
        let number = self.lines.replace(self.lines.get() + 1);
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
        Line { handle, sockets }
    }

    /// Waits until a front end of the line has been disconnected for a fault, and checks that
    /// the reason names it.
    pub(crate) fn expect_fault(&self, line: &Line, reason: &str) {
        let told = until(&format!("a fault: {reason}"), SOON, || {
            self.collect();
            let events = self.events.borrow();
            let mut faults = events.iter().filter_map(|event| match event {
                SocketEvent::Fault { cable, reason, .. } if *cable == line.handle.id => {
                    Some(reason)
                }
                _ => None,
            });
            faults.next().cloned().ok_or_else(|| format!("{events:?}"))
        });
        assert!(
            told.contains(reason),
            "\"{told}\" does not say \"{reason}\""
        );
        self.events.borrow_mut().clear();
    }

    /// Reasons for which front ends of the line were disconnected since this was asked last.
    pub(crate) fn faults(&self, line: &Line) -> Vec<String> {
        self.collect();
        let events = std::mem::take(&mut *self.events.borrow_mut());
        let faults = events.into_iter().filter_map(|event| match event {
            SocketEvent::Fault { cable, reason, .. } if cable == line.handle.id => Some(reason),
            _ => None,
        });
        faults.collect()
    }

    fn collect(&self) {
        let mut events = self.events.borrow_mut();
        events.extend(std::iter::from_fn(|| self.sockets.event()));
    }

    /// Ends the watching: no frame was lost, none was late, and nothing has piled up.
    pub(crate) fn end(mut self) {
        let used = until("descriptors and memory to be given back", SOON, || {
            let (before, now) = (self.before, Usage::now());
            let bounded = now.descriptors <= before.descriptors + 16 * self.lines.get()
                && now.kilobytes <= before.kilobytes + (96 << 10);
            ensure(bounded, || format!("{before:?}, now {now:?}")).map(|()| now)
        });
        self.stop.store(true, Ordering::Relaxed);
        let (line, dropped, watch) = self.watched.take().unwrap();
        let seen = watch.join().unwrap();
        assert_eq!(
            line.all_dropped(),
            dropped,
            "nothing of the watched cable was lost"
        );
        assert!(seen.frames > 0);
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let Seen { frames, slowest } = seen;
        figure(
            &format!("{test}, the cable beside it"),
            &format!("{frames} frames, the slowest train took {slowest:?}; {used:?}"),
        );
    }
}

impl Drop for Bay {
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

/// Sends trains of frames both ways; each must arrive, whole, in order and in time.
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
            assert!(took < LATEST, "a train of frames took {took:?}");
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
    assert_eq!(sent.unwrap(), TRAIN, "there is room for a train");
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

/// A cable for whoever means harm.
pub(crate) struct Line {
    pub(crate) handle: CableHandle,
    sockets: [PathBuf; 2],
}

impl Line {
    pub(crate) fn socket(&self, side: Side) -> &Path {
        &self.sockets[side as usize]
    }

    /// Plugs a guest in.
    pub(crate) fn guest(&self, side: Side, options: &GuestOptions) -> Guest {
        self.plug_again(side, options)
    }

    /// A guest whose rings run and have nothing in them: everything there is for the test to
    /// write.
    pub(crate) fn empty_guest(&self, side: Side, options: &GuestOptions) -> Guest {
        let socket = UnixStream::connect(self.socket(side)).unwrap();
        let mut guest = Guest::unstarted(socket, options).unwrap();
        for index in 0..guest.queues() {
            guest.start(index, guest.first_base()).unwrap();
        }
        guest
    }

    /// Whoever comes next finds the cable whole: frames pass both ways.
    pub(crate) fn check_heals(&self, options: &GuestOptions) {
        let mut ends = self.guests(options);
        carry(&mut ends, 0, 1);
        carry(&mut ends, 1, 2);
    }

    /// A guest at either end, both plugged in: their session is answered before their rings are
    /// the cable's port, and what is sent to no port is dropped.
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
            // Those that were sent after the first one: all are given back once all are there.
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

    /// The front end before may not be gone yet: then one is turned away.
    fn plug_again(&self, side: Side, options: &GuestOptions) -> Guest {
        until("a place at the socket", SOON, || {
            Guest::connect(self.socket(side), options).map_err(|error| error.to_string())
        })
    }

    /// Frames that were dropped in either direction; every frame is accounted for.
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
