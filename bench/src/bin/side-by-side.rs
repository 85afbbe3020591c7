//! `make bench`: this build against others. bench/peers start its subcommands.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bench::machine::{self, Machine};
use bench::side_by_side::{self, Options, Tools, Versions, charts, groups, markdown};

const USAGE: &str = "usage: side-by-side FABRIC [RUNS [SECONDS [GROUP…]]]
       side-by-side load-taps TAP TAP BYTES SECONDS
       side-by-side many-idle CABLES SECONDS";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["load-taps", a, b, size, seconds] => load_taps([a, b], size, seconds),
        ["many-idle", cables, seconds] => many_idle(cables, seconds),
        [fabric, rest @ ..] if Path::new(fabric).is_file() => compare(fabric, rest),
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

fn load_taps(taps: [&str; 2], size: &str, seconds: &str) -> Done {
    let time = Duration::from_secs(seconds.parse()?);
    let (mpps, counts) = side_by_side::load_taps(taps, size.parse()?, time)?;
    println!("mpps={mpps:.4}");
    eprintln!("{counts:?}");
    Ok(())
}

fn many_idle(cables: &str, seconds: &str) -> Done {
    let time = Duration::from_secs(seconds.parse()?);
    let (mpps, percent) = side_by_side::measure_many_idle(cables.parse()?, time)?;
    println!("mpps={mpps:.4}\nidle_percent={percent:.4}");
    Ok(())
}

fn compare(fabric: &str, rest: &[&str]) -> Done {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tools = Tools {
        fabric: std::fs::canonicalize(fabric)?,
        side_by_side: std::env::current_exe()?,
        peers: here.join("peers"),
    };
    let number = |index: usize, default| rest.get(index).map_or(Ok(default), |text| text.parse());
    let (runs, seconds) = (number(0, 5)?, number(1, 4)?);
    let only = rest.iter().skip(2).map(ToString::to_string).collect();
    let options = Options {
        runs: runs as usize,
        only,
    };
    let groups = groups(&tools, seconds);
    let stop = Arc::new(AtomicBool::new(false));
    end_on_signals(&stop)?;
    let busy = machine::busy_share(Duration::from_secs(2))?;
    if busy > 0.05 {
        eprintln!(
            "other work takes {:.0} % of the CPUs: figures will be low and vary widely",
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
        let charts = charts(&groups, &outcomes);
        let subheading = format!("medians of {runs} runs, lowest and highest · {machine}");
        for name in ["results.svg", "results.png"] {
            bench::plot::comparison(
                &charts,
                "ikv-fabric side by side",
                &subheading,
                &here.join(name),
            )?;
        }
    }
    Ok(())
}

/// Versions of the contestants' programs that are installed.
fn versions() -> Versions {
    let version = |program: &str, arguments: &[&str]| {
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
    .filter_map(|(name, program, arguments)| Some((name.into(), version(program, arguments)?)))
    .collect()
}

/// On SIGINT and SIGTERM the present run cleans up and no other follows.
fn end_on_signals(stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(())
}
