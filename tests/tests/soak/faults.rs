//! What a soak does to the fabric while frames flow: [`Fault`].

use std::process::Command;

use ikv_tests::Dice;
use ikv_tests::capturing::Capturing;
use ikv_tests::panel::PanelHost;
use rustix::process::Signal;
use tempfile::TempDir;

/// Impairments, each of which acts on a lane's frames in another way.
const IMPAIRMENTS: [&str; 9] = [
    "--delay 5ms",
    "--delay 20ms --jitter 10ms",
    "--loss 10%",
    "--loss 2% --delay 1ms",
    "--duplicate 5%",
    "--corrupt 3%",
    "--reorder 20% --delay 2ms",
    "--rate 20mbit",
    "--rate 100mbit --delay 3ms --limit 200p",
];

/// Something that happens to a cable or to the fabric, and is undone later.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Carrier is taken away.
    Cut(usize),
    /// Frames vanish, carrier stays.
    Blackhole(usize),
    /// The cable, or one lane of it, gets an impairment.
    Impair(usize, &'static str, Option<usize>),
    /// A capture of the cable starts. It is interrupted, or killed.
    Capture(usize, Option<Capturing>, Signal),
    /// Both ends are unplugged.
    Unplug(usize),
    /// A guest's process is killed.
    KillGuest(usize),
    /// A rack is added, and removed again.
    Apply,
}

/// What a fault may be about.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) cable: String,
    pub(crate) ends: [String; 2],
    pub(crate) has_process: bool,
}

impl Fault {
    /// The next fault.
    pub(crate) fn roll(dice: &mut Dice, targets: &[Target]) -> Fault {
        let on = dice.below(targets.len());
        match dice.below(12) {
            0 | 1 => Fault::Cut(on),
            2 => Fault::Blackhole(on),
            3..=6 => {
                let lane = dice.below(3);
                Fault::Impair(on, dice.one_of(&IMPAIRMENTS), (lane < 2).then_some(lane))
            }
            7 | 8 => Fault::Capture(on, None, dice.one_of(&[Signal::INT, Signal::KILL])),
            9 => Fault::Unplug(on),
            10 => {
                let guests: Vec<_> = (0..targets.len())
                    .filter(|on| targets[*on].has_process)
                    .collect();
                Fault::KillGuest(dice.one_of(&guests))
            }
            _ => Fault::Apply,
        }
    }

    /// The cable that it is about.
    pub(crate) fn cable(&self) -> Option<usize> {
        match self {
            Fault::Cut(on)
            | Fault::Blackhole(on)
            | Fault::Impair(on, ..)
            | Fault::Capture(on, ..)
            | Fault::Unplug(on)
            | Fault::KillGuest(on) => Some(*on),
            Fault::Apply => None,
        }
    }

    /// Whether the two cannot last at the same time: both are about the same cable, or the same
    /// configuration.
    pub(crate) fn conflicts(&self, other: &Fault) -> bool {
        self.cable() == other.cable()
    }

    /// The cable whose ends must be unplugged while the fault lasts.
    pub(crate) fn unplugs(&self, has_front_end: impl Fn(usize) -> bool) -> Option<usize> {
        match self {
            Fault::Unplug(on) | Fault::KillGuest(on) => Some(*on),
            Fault::Cut(on) if has_front_end(*on) => Some(*on),
            _ => None,
        }
    }

    /// Lets it happen.
    pub(crate) fn begin(&mut self, host: &PanelHost, targets: &[Target], files: &TempDir) {
        match self {
            Fault::Cut(on) => done(host, &["cable", &targets[*on].cable, "down"]),
            Fault::Blackhole(on) => done(host, &["cable", &targets[*on].cable, "blackhole"]),
            Fault::Impair(on, keys, lane) => {
                let target = &targets[*on];
                let mut words = vec!["impair", target.cable.as_str()];
                if let Some(lane) = lane {
                    words.extend(["--from", target.ends[*lane].as_str()]);
                }
                words.extend(keys.split(' '));
                done(host, &words);
            }
            Fault::Capture(on, capturing, _) => {
                let file = files.path().join(format!("{on}.pcapng"));
                let mut command: Command = host.command(&["capture", &targets[*on].cable, "-w"]);
                *capturing = Some(Capturing::start(command.arg(file)));
            }
            Fault::Apply => done(host, &["apply", "--set", "topology.racks=4"]),
            Fault::Unplug(_) | Fault::KillGuest(_) => {}
        }
    }

    /// Takes it back.
    pub(crate) fn end(self, host: &PanelHost, targets: &[Target]) {
        match self {
            Fault::Cut(on) | Fault::Blackhole(on) => {
                done(host, &["cable", &targets[on].cable, "up"]);
            }
            Fault::Impair(on, ..) => done(host, &["impair", &targets[on].cable, "--clear"]),
            Fault::Capture(_, capturing, signal) => {
                let mut capturing = capturing.expect("it has begun");
                capturing.signal(signal);
                let status = capturing.wait();
                assert!(
                    signal == Signal::KILL || status.success(),
                    "{status}: {}",
                    capturing.said()
                );
            }
            Fault::Apply => done(host, &["apply", "--set", "topology.racks=3"]),
            Fault::Unplug(_) | Fault::KillGuest(_) => {}
        }
    }
}

fn done(host: &PanelHost, words: &[&str]) {
    let answer = host.ask(words);
    assert_eq!(answer.code, Some(0), "{words:?}: {answer:?}");
}
