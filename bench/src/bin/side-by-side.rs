//! `make bench`: this build against others, and the parts of it that bench/peers start.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bench::machine::{self, Machine};
use bench::side_by_side::{self, Options, Tools, Versions, groups, markdown, panels};

const USAGE: &str = "usage: side-by-side FABRIC [RUNS [SECONDS [GROUP…]]]
       side-by-side pump TAP TAP BYTES SECONDS
       side-by-side crowd IDLE-CABLES SECONDS";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["pump", a, b, size, seconds] => pump([a, b], size, seconds),
        ["crowd", idle, seconds] => crowd(idle, seconds),
        [fabric, rest @ ..] if Path::new(fabric).is_file() => all(fabric, rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("side-by-side: {why}");
            ExitCode::FAILURE
        }
    }
}

type Done = Result<(), Box<dyn std::error::Error>>;

fn pump(taps: [&str; 2], size: &str, seconds: &str) -> Done {
    let time = Duration::from_secs(seconds.parse()?);
    let (mpps, counts) = side_by_side::pump(taps, size.parse()?, time)?;
    println!("mpps={mpps:.4}");
    eprintln!("{counts:?}");
    Ok(())
}

fn crowd(idle: &str, seconds: &str) -> Done {
    let time = Duration::from_secs(seconds.parse()?);
    let (mpps, percent) = side_by_side::crowd(idle.parse()?, time)?;
    println!("mpps={mpps:.4}\nidle_percent={percent:.4}");
    Ok(())
}

fn all(fabric: &str, rest: &[&str]) -> Done {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tools = Tools {
        fabric: std::fs::canonicalize(fabric)?,
        side_by_side: std::env::current_exe()?,
        peers: here.join("peers"),
    };
    let number = |place: usize, default| rest.get(place).map_or(Ok(default), |text| text.parse());
    let (runs, seconds) = (number(0, 5)?, number(1, 4)?);
    let only = rest.iter().skip(2).map(ToString::to_string).collect();
    let options = Options {
        runs: runs as usize,
        only,
    };
    let groups = groups(&tools, seconds);
    let stop = Arc::new(AtomicBool::new(false));
    end_on_signals(&stop)?;
    let busy = machine::busy(Duration::from_secs(2))?;
    if busy > 0.05 {
        eprintln!(
            "other work takes {:.0} % of the CPUs: figures will be low and far apart",
            busy * 100.0
        );
    }
    let outcomes = side_by_side::run(&groups, &options, &stop, |line| eprintln!("{line}"))?;
    if stop.load(Ordering::Relaxed) {
        return Err("interrupted; nothing was written".into());
    }
    let machine = Machine::this();
    let text = markdown(
        &groups,
        &outcomes,
        &machine,
        &versions(),
        options.runs,
        busy,
    );
    print!("{text}");
    if options.only.is_empty() {
        std::fs::write(here.join("RESULTS.md"), text)?;
        let panels = panels(&groups, &outcomes);
        let below = format!("medians of {runs} turns, lowest and highest · {machine}");
        for name in ["results.svg", "results.png"] {
            bench::plot::comparison(&panels, "ikv-fabric side by side", &below, &here.join(name))?;
        }
    }
    Ok(())
}

/// Versions of what is measured, as far as they say.
fn versions() -> Versions {
    let first_line = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = text
            .split_whitespace()
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        Some(number.trim_end_matches([',', ')']).to_owned())
    };
    [
        ("DPDK", "dpkg-query", &["-W", "-f=${Version}", "dpdk"][..]),
        ("Open vSwitch", "ovs-vswitchd", &["--version"]),
        ("VDE", "dpkg-query", &["-W", "-f=${Version}", "vde2"]),
        ("iperf3", "iperf3", &["--version"]),
    ]
    .into_iter()
    .filter_map(|(name, program, arguments)| Some((name.into(), first_line(program, arguments)?)))
    .collect()
}

/// SIGINT and SIGTERM let the turn clean up; then nothing follows.
fn end_on_signals(stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(())
}
