//! The results of a measurement, as JSON and as a table.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::generator::PacedResult;
use crate::machine::Machine;

pub use crate::sequence::FrameCounts;

/// The result of a whole measurement: what `ikv-fabric bench --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadReport {
    /// The cable's name.
    pub cable: String,
    /// What was plugged into the cable's ends.
    pub ends: [String; 2],
    /// The options of the measurement, in words.
    pub settings: String,
    /// The machine that the measurement ran on.
    pub machine: Machine,
    /// Results for each frame size.
    pub sizes: Vec<SizeReport>,
}

/// Results for one frame size.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct SizeReport {
    /// Frame size in bytes without FCS.
    pub size: usize,
    /// Why there are no figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_carried: Option<String>,
    /// Result of the flood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throughput: Option<Throughput>,
    /// The highest rate without loss, if the plan includes the search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_drop: Option<NoDrop>,
    /// Latency at each load.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub latency: Vec<Latency>,
}

/// The rate of a flood, of both lanes together if both were loaded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Throughput {
    /// Frames that arrived per second.
    pub frames_per_second: f64,
    /// The bits of those frames per second, without FCS, preamble and gap.
    pub bits_per_second: f64,
    /// CPU time of the forwarding process or threads; null if unknown.
    pub cpu_seconds_per_million_frames: Option<f64>,
    /// All frames of the run.
    pub counts: FrameCounts,
}

/// The highest rate without loss (RFC 2544, 26.1).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct NoDrop {
    /// That rate; 0 if every rate lost frames.
    pub frames_per_second: f64,
    /// Number of runs (trials in RFC 2544) that the search took.
    pub trials: u32,
    /// Whether the next higher rate failed because the generator was too slow for it.
    pub generator_late: bool,
    /// All frames of the runs that passed.
    pub counts: FrameCounts,
}

/// The time from when a frame was due to when the generator received it, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// The load as the user wrote it, a rate or a share.
    pub load: String,
    /// That load as a rate.
    pub frames_per_second: f64,
    /// 50 % of the frames were at least this fast.
    pub p50: u64,
    /// 99 % of the frames were at least this fast.
    pub p99: u64,
    /// 99.9 % of the frames were at least this fast.
    pub p99_9: u64,
    /// Latency of the slowest frame.
    pub max: u64,
    /// All frames of the run.
    pub counts: FrameCounts,
}

impl Latency {
    pub(crate) fn new(load: OfferedLoad, rate: f64, paced: &PacedResult) -> Latency {
        let at = |share| paced.latencies.value_at_quantile(share);
        Latency {
            load: load.to_string(),
            frames_per_second: rate,
            p50: at(0.5),
            p99: at(0.99),
            p99_9: at(0.999),
            max: paced.latencies.max(),
            counts: paced.counts,
        }
    }
}

/// The load of a latency run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OfferedLoad {
    /// Frames per second, up to 1e9.
    Rate(f64),
    /// A share, 0..=2, of the highest rate without loss, or of the throughput without a search.
    Share(f64),
}

impl OfferedLoad {
    /// The load in frames per second, of which `full` are 100 %.
    pub(crate) fn rate(self, full: f64) -> f64 {
        match self {
            OfferedLoad::Rate(rate) => rate,
            OfferedLoad::Share(share) => full * share,
        }
    }
}

impl fmt::Display for OfferedLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OfferedLoad::Rate(rate) => write!(f, "{}/s", count(*rate)),
            OfferedLoad::Share(share) => write!(f, "{} %", share * 100.0),
        }
    }
}

impl FromStr for OfferedLoad {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("\"{text}\" is not a load: write frames per second (1000) or a share (50%)");
        let (number, share) = match text.strip_suffix('%') {
            Some(number) => (number, true),
            None => (text, false),
        };
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        match share {
            true if number > 0.0 && number <= 200.0 => Ok(OfferedLoad::Share(number / 100.0)),
            false if number > 0.0 && number <= 1e9 => Ok(OfferedLoad::Rate(number)),
            _ => Err(wrong()),
        }
    }
}

/// Formats a number of frames: `950`, `12.3 k`, `14.88 M`.
pub fn count(number: f64) -> String {
    match number {
        1e7.. => format!("{:.1} M", number / 1e6),
        1e6.. => format!("{:.2} M", number / 1e6),
        1e5.. => format!("{:.0} k", number / 1e3),
        1e4.. => format!("{:.1} k", number / 1e3),
        _ => format!("{number:.0}"),
    }
}

/// Formats bits per second: `950.0 kbit/s`, `12.3 Mbit/s`, `14.88 Gbit/s`.
pub fn bits(number: f64) -> String {
    match number {
        1e9.. => format!("{:.2} Gbit/s", number / 1e9),
        1e6.. => format!("{:.1} Mbit/s", number / 1e6),
        _ => format!("{:.1} kbit/s", number / 1e3),
    }
}

/// Formats a time in nanoseconds: `950 ns`, `12.3 µs`, `14.88 ms`.
pub(crate) fn time(nanoseconds: u64) -> String {
    let number = nanoseconds as f64;
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..100_000 => format!("{:.1} µs", number / 1e3),
        100_000..1_000_000 => format!("{:.0} µs", number / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", number / 1e6),
        _ => format!("{:.2} s", number / 1e9),
    }
}

/// The report as a table: one line for each size and load, then the faults.
pub fn table(report: &LoadReport) -> String {
    let mut text = format!(
        "{}  {} – {}\n{}\n{}\n\n{:>6} {:>22} {:>10} {:>9}  {:>8} {:>9} {:>9} {:>9} {:>9}\n",
        report.cable,
        report.ends[0],
        report.ends[1],
        report.settings,
        report.machine,
        "SIZE",
        "THROUGHPUT",
        "NO DROP",
        "CPU s/M",
        "LOAD",
        "p50",
        "p99",
        "p99.9",
        "MAX",
    );
    for size in &report.sizes {
        text += &rows(size);
    }
    for fault in faults(report) {
        text += &format!("! {fault}\n");
    }
    text
}

fn rows(report: &SizeReport) -> String {
    if let Some(why) = &report.not_carried {
        return format!("{:>6} {why}\n", report.size);
    }
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".into());
    let (rate, cpu) = report
        .throughput
        .as_ref()
        .map_or(("–".into(), "–".into()), |found| {
            let rate = format!(
                "{}/s {:>13}",
                count(found.frames_per_second),
                bits(found.bits_per_second)
            );
            (
                rate,
                or_dash(
                    found
                        .cpu_seconds_per_million_frames
                        .map(|cpu| format!("{cpu:.3}")),
                ),
            )
        });
    let no_drop = or_dash(report.no_drop.as_ref().map(|found| {
        let sign = if found.generator_late { "≥ " } else { "" };
        format!("{sign}{}", count(found.frames_per_second))
    }));
    let mut text = format!("{:>6} {rate:>22} {no_drop:>10} {cpu:>9}", report.size);
    for (index, latency) in report.latency.iter().enumerate() {
        if index > 0 {
            text += &format!("\n{:>50}", "");
        }
        let [p50, p99, p99_9, max] =
            [latency.p50, latency.p99, latency.p99_9, latency.max].map(time);
        text += &format!(
            "  {:>8} {p50:>9} {p99:>9} {p99_9:>9} {max:>9}",
            latency.load
        );
    }
    text + "\n"
}

/// The faults of each run that had any, one line per run.
fn faults(report: &LoadReport) -> Vec<String> {
    let mut lines = Vec::new();
    for size in &report.sizes {
        let throughput = size
            .throughput
            .iter()
            .map(|found| ("throughput".to_owned(), found.counts));
        let no_drop = size
            .no_drop
            .iter()
            .map(|found| ("no drop".to_owned(), found.counts));
        let latency = size
            .latency
            .iter()
            .map(|found| (format!("latency at {}", found.load), found.counts));
        for (run, counts) in throughput.chain(no_drop).chain(latency) {
            let faults = counts.faults();
            if !faults.is_empty() {
                lines.push(format!(
                    "{} bytes, {run}: {faults} of {}",
                    size.size, counts.offered
                ));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> LoadReport {
        let clean = FrameCounts {
            offered: 9_000,
            sent: 9_000,
            received: 9_000,
            ..FrameCounts::default()
        };
        let latency = |load: OfferedLoad, p50| Latency {
            load: load.to_string(),
            frames_per_second: load.rate(11.5e6),
            p50,
            p99: p50 * 3,
            p99_9: p50 * 10,
            max: p50 * 400,
            counts: clean,
        };
        let size = |size: usize, rate: f64| SizeReport {
            size,
            not_carried: None,
            throughput: Some(Throughput {
                frames_per_second: rate,
                bits_per_second: rate * size as f64 * 8.0,
                cpu_seconds_per_million_frames: Some(1.0 / rate * 1e6),
                counts: clean,
            }),
            no_drop: Some(NoDrop {
                frames_per_second: rate * 0.97,
                trials: 8,
                generator_late: size == 64,
                counts: clean,
            }),
            latency: vec![
                latency(OfferedLoad::Rate(1000.0), 9_400),
                latency(OfferedLoad::Share(0.5), 21_000),
            ],
        };
        let mut sizes = vec![size(64, 12.3e6), size(1518, 6.6e6), size(65_536, 163_000.0)];
        sizes[1].throughput.as_mut().unwrap().counts.lost = 12;
        sizes[1].latency[1].counts.reordered = 1;
        sizes.push(SizeReport {
            size: 9_000,
            not_carried: Some("no frame of 9000 bytes arrives".into()),
            ..SizeReport::default()
        });
        LoadReport {
            cable: "wire".into(),
            ends: ["vhost-user:a".into(), "vhost-user:b".into()],
            settings: "split ring of 256, one way, 2 s".into(),
            machine: Machine::example(),
            sizes,
        }
    }

    #[test]
    fn the_table_reads_well() {
        insta::assert_snapshot!(table(&example()));
    }

    #[test]
    fn json_has_every_figure() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&example()).unwrap());
    }

    #[test]
    fn a_report_can_be_drawn() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["report.svg", "report.png"] {
            crate::plot::report(&example(), &folder.path().join(name)).unwrap();
            if let Some(keep) = std::env::var_os("IKV_KEEP_PLOTS") {
                std::fs::copy(
                    folder.path().join(name),
                    std::path::Path::new(&keep).join(name),
                )
                .unwrap();
            }
        }
    }

    #[test]
    fn loads_are_rates_or_shares() {
        assert_eq!("1000".parse(), Ok(OfferedLoad::Rate(1000.0)));
        assert_eq!("50%".parse(), Ok(OfferedLoad::Share(0.5)));
        for bad in ["", "0", "-1", "x%", "300%", "NaN"] {
            assert!(bad.parse::<OfferedLoad>().is_err(), "{bad}");
        }
    }
}
