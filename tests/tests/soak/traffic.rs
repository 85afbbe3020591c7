//! Frames on a cable, both ways, and what became of them: [`Pair`].

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bench::pattern::{FrameBytes, Pattern, Stamp};
use bench::{BenchError, CableEnd, Endpoint, FrameSink, SequenceTracker};
use guest::{GuestOptions, Ring, Shape};
use ikv_tests::Netns;
use ikv_tests::patience::{SOON, until};

/// Frames that an end sends or receives at a time.
const BURST: usize = 32;

/// After this time without a frame, those on their way count as lost.
const SILENCE: Duration = Duration::from_millis(100);

/// What is plugged into an end of a cable.
#[derive(Debug, Clone)]
pub(crate) enum Plugged {
    /// A virtio-net driver in this process, at the end's vhost-user socket.
    Driver(PathBuf, GuestOptions),
    /// A driver in a process of its own, which a fault kills.
    Process(PathBuf, Ring),
    /// The end's tap, opened as a VM opens it.
    Tap(String),
    /// A network device of the host, by a packet socket.
    Netdev(String),
}

/// The properties of the drivers, so that every kind of ring is under load.
pub(crate) fn drivers() -> [GuestOptions; 4] {
    let plain = GuestOptions::default();
    [
        GuestOptions {
            mergeable: true,
            event_idx: true,
            ..plain
        },
        GuestOptions {
            ring: Ring::Packed,
            in_order: true,
            ..plain
        },
        GuestOptions {
            ring: Ring::Packed,
            mergeable: true,
            event_idx: true,
            send_shape: Shape::Indirect(3),
            ..plain
        },
        GuestOptions {
            queue_size: 512,
            send_shape: Shape::Chained(2),
            receive_shape: Shape::Chained(2),
            ..plain
        },
    ]
}

/// An end of a cable, with what is plugged into it now.
struct End {
    plugged: Plugged,
    /// `None` while a fault keeps it unplugged.
    open: Option<Endpoint>,
    process: Option<Child>,
}

/// One direction: what was sent, and what arrived of it.
struct Direction {
    pattern: Pattern,
    tracker: SequenceTracker,
    sent: u64,
    given_up: u64,
    last_arrival: Instant,
    /// The sender, or the receiver, was unplugged meanwhile, so its own count is not the whole one.
    sender_left: bool,
    receiver_left: bool,
}

/// What the two ends know about a direction since the last settlement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    /// Frames that the end accepted from the sender, unless the sender was unplugged meanwhile.
    pub(crate) sent: Option<u64>,
    /// Frames that arrived, in any state, unless the receiver was unplugged meanwhile.
    pub(crate) arrived: Option<u64>,
    /// Frames that arrived with other bytes than they were sent with.
    pub(crate) corrupted: u64,
    /// Length of the frames.
    pub(crate) bytes: u64,
}

/// The load on one cable.
pub(crate) struct Pair {
    /// The cable's name.
    pub(crate) cable: String,
    /// Names of its ends.
    pub(crate) ends: [String; 2],
    /// Frames on their way in one direction at a time.
    window: u64,
    sides: [End; 2],
    directions: [Direction; 2],
    /// Distinguishes the frames of one settlement from those of another.
    run: u16,
}

impl Pair {
    pub(crate) fn new(
        cable: &str,
        ends: [&str; 2],
        plugged: [Plugged; 2],
        window: u64,
        size: usize,
    ) -> Self {
        Pair {
            cable: cable.to_owned(),
            ends: ends.map(str::to_owned),
            window,
            sides: plugged.map(|plugged| End {
                plugged,
                open: None,
                process: None,
            }),
            directions: [0, 1].map(|from| Direction::new(size, from, 0)),
            run: 0,
        }
    }

    /// Whether an end is a vhost-user front end, which a cut disconnects.
    pub(crate) fn has_front_end(&self) -> bool {
        let front_end =
            |end: &End| matches!(end.plugged, Plugged::Driver(..) | Plugged::Process(..));
        self.sides.iter().any(front_end)
    }

    /// Whether an end is a process that can be killed.
    pub(crate) fn has_process(&self) -> bool {
        self.sides.iter().any(End::is_process)
    }

    /// Whether somebody else talks on it, too, who does not pause: the host's network stack.
    pub(crate) fn talks_by_itself(&self) -> bool {
        let device = |end: &End| matches!(end.plugged, Plugged::Netdev(_));
        self.sides.iter().any(device)
    }

    /// Plugs in what is not plugged in. Waits until the fabric accepts it.
    pub(crate) fn plug(&mut self, netns: &Netns) {
        for side in [0, 1] {
            if self.sides[side].open.is_some() || self.sides[side].process.is_some() {
                continue;
            }
            let what = format!(
                "{} to accept {:?}",
                self.ends[side], self.sides[side].plugged
            );
            let pattern = &self.directions[side].pattern;
            let end = &mut self.sides[side];
            until(&what, SOON, || {
                end.open(netns, pattern).map_err(|error| error.to_string())
            });
        }
    }

    /// Unplugs both ends, the processes by SIGKILL.
    pub(crate) fn unplug(&mut self) {
        for side in [0, 1] {
            self.leave(side);
        }
    }

    /// Unplugs an end: what it has counted is not the whole.
    fn leave(&mut self, side: usize) {
        self.sides[side].close();
        self.directions[side].sender_left = true;
        self.directions[1 - side].receiver_left = true;
    }

    /// Kills the guests in processes of their own, which would talk on while the others pause.
    pub(crate) fn unplug_processes(&mut self) {
        for side in [0, 1] {
            if self.sides[side].is_process() {
                self.sides[side].close();
            }
        }
    }

    /// Receives and sends a burst at each end. An end that has failed, as it does while its cable
    /// is cut, is unplugged. Returns whether frames arrived.
    pub(crate) fn round(&mut self) -> bool {
        let mut arrived = false;
        for from in [0, 1] {
            arrived |= self.receive(from);
            self.send(from);
        }
        arrived
    }

    /// Receives what is still on its way. Returns whether frames arrived.
    pub(crate) fn drain(&mut self) -> bool {
        let arrived = [0, 1].map(|from| self.receive(from));
        arrived.contains(&true)
    }

    fn send(&mut self, from: usize) {
        let direction = &mut self.directions[from];
        if direction.in_flight() > 0 && direction.last_arrival.elapsed() > SILENCE {
            direction.given_up = direction.sent;
            direction.last_arrival = Instant::now();
        }
        // A receiver in another process keeps no account, so nothing says when the window is full.
        let counted = self.sides[1 - from].process.is_none();
        let room = if counted {
            self.window.saturating_sub(direction.in_flight())
        } else {
            1
        };
        let Some(end) = &mut self.sides[from].open else {
            return;
        };
        let mut number = direction.sent;
        let next = || {
            number += 1;
            Stamp {
                number: number - 1,
                time: 0,
            }
        };
        let limit = BURST.min(room as usize);
        match end.send(limit, &direction.pattern, next) {
            Ok(sent) => direction.sent += sent as u64,
            Err(error) => self.failed(from, &error),
        }
    }

    fn receive(&mut self, from: usize) -> bool {
        let Some(end) = &mut self.sides[1 - from].open else {
            return false;
        };
        let direction = &mut self.directions[from];
        match end.receive(2 * BURST, Sink(&mut direction.tracker)) {
            Ok(0) => false,
            Ok(_) => {
                direction.last_arrival = Instant::now();
                true
            }
            Err(error) => {
                self.failed(1 - from, &error);
                false
            }
        }
    }

    fn failed(&mut self, side: usize, error: &BenchError) {
        // A tap that is down refuses frames, and is not the worse for it.
        if matches!(self.sides[side].plugged, Plugged::Tap(_)) {
            return;
        }
        assert!(
            !matches!(error, BenchError::Driver(guest::GuestError::BackEnd(_))),
            "{}: {error}",
            self.ends[side]
        );
        self.leave(side);
    }

    /// What the ends know, and a new account from here on.
    pub(crate) fn settle(&mut self) -> [Account; 2] {
        self.run = self.run.wrapping_add(1);
        let (run, size) = (self.run, self.directions[0].pattern.frame.len());
        let fresh = [0, 1].map(|from| Direction::new(size, from, run));
        let before = std::mem::replace(&mut self.directions, fresh);
        for (side, direction) in self.directions.iter_mut().enumerate() {
            // What a process sends and receives is known to nobody but the fabric.
            direction.sender_left = self.sides[side].is_process();
            direction.receiver_left = self.sides[1 - side].is_process();
            if let Some(end) = &mut self.sides[side].open {
                end.load(&direction.pattern);
            }
        }
        before.map(Direction::account)
    }

    /// Whether frames have arrived in both directions since the last settlement; a direction whose
    /// receiver is a process does not count.
    pub(crate) fn has_talked(&self) -> bool {
        let arrived = |direction: &Direction| direction.tracker.received() > 0;
        self.has_process() || self.directions.iter().all(arrived)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for end in &mut self.sides {
            end.close();
        }
    }
}

impl Direction {
    fn new(size: usize, from: usize, run: u16) -> Self {
        let pattern = Pattern::new(size, from as u8, run);
        Direction {
            tracker: SequenceTracker::new(pattern.clone()),
            pattern,
            sent: 0,
            given_up: 0,
            last_arrival: Instant::now(),
            sender_left: false,
            receiver_left: false,
        }
    }

    fn in_flight(&self) -> u64 {
        self.sent
            .saturating_sub(self.tracker.next().max(self.given_up))
    }

    fn account(self) -> Account {
        let bytes = self.pattern.frame.len() as u64;
        let counts = self.tracker.finish(self.sent, self.sent);
        let arrived = counts.received + counts.duplicated + counts.corrupted + counts.foreign;
        Account {
            sent: (!self.sender_left).then_some(self.sent),
            arrived: (!self.receiver_left).then_some(arrived),
            corrupted: counts.corrupted,
            bytes,
        }
    }
}

impl End {
    fn is_process(&self) -> bool {
        matches!(self.plugged, Plugged::Process(..))
    }

    fn open(&mut self, netns: &Netns, pattern: &Pattern) -> Result<(), BenchError> {
        let size = pattern.frame.len();
        let mut open = match &self.plugged {
            Plugged::Driver(socket, options) => {
                Endpoint::open(&CableEnd::VhostUser(socket.clone()), size, options)?
            }
            Plugged::Process(socket, ring) => {
                self.process = Some(start_process(socket, *ring).map_err(BenchError::Device)?);
                return Ok(());
            }
            Plugged::Tap(name) => open_in(netns, &CableEnd::Tap(name.clone()), size)?,
            Plugged::Netdev(name) => open_in(netns, &CableEnd::Netdev(name.clone()), size)?,
        };
        open.load(pattern);
        self.open = Some(open);
        Ok(())
    }

    fn close(&mut self) {
        self.open = None;
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself, because its cable was cut.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn open_in(netns: &Netns, end: &CableEnd, size: usize) -> Result<Endpoint, BenchError> {
    netns.enter(|| Endpoint::open(end, size, &GuestOptions::default()))
}

/// The variable that turns this program into a guest: the socket that it plugs into.
pub(crate) const GUEST: &str = "IKV_SOAK_GUEST";

fn start_process(socket: &Path, ring: Ring) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .env(GUEST, socket)
        .arg(format!("{ring:?}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// Plays a guest that talks until it is killed or the fabric closes its socket.
pub(crate) fn play_guest(socket: &Path) -> Result<(), BenchError> {
    let packed = std::env::args().nth(1).is_some_and(|ring| ring == "Packed");
    let options = GuestOptions {
        ring: if packed { Ring::Packed } else { Ring::Split },
        ..GuestOptions::default()
    };
    let pattern = Pattern::new(300, 0, u16::MAX);
    let end = CableEnd::VhostUser(socket.to_owned());
    let mut end = Endpoint::open(&end, pattern.frame.len(), &options)?;
    end.load(&pattern);
    let mut tracker = SequenceTracker::new(pattern.clone());
    let mut number = 0;
    // Its parent kills it. If the parent dies first, it ends by itself.
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        end.receive(BURST, Sink(&mut tracker))?;
        end.send(4, &pattern, || {
            number += 1;
            Stamp { number, time: 0 }
        })?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

struct Sink<'t>(&'t mut SequenceTracker);

impl FrameSink for Sink<'_> {
    fn accept(&mut self, frame: &impl FrameBytes) {
        self.0.record(frame);
    }
}
