//! The report bench/RESULTS.md, and the charts of its plot. Pure.

use super::groups::{Figure, Group, Target};
use super::{OURS, Outcomes};
use crate::machine::Machine;
use crate::plot::{Bar, FigureChart, figure as digits};

/// Names of programs and their versions.
pub type Versions = Vec<(String, String)>;

/// The report of `runs` runs of each contestant. `busy` is the share of the CPUs, 0..=1, that other
/// work took before.
pub fn markdown(
    groups: &[Group],
    outcomes: &Outcomes,
    machine: &Machine,
    versions: &Versions,
    runs: usize,
    busy: f64,
) -> String {
    let mut text = format!(
        "# Side by side\n\nWritten by `make bench`. Each contestant ran {runs} times, alternating with the others; \
         figures are medians, with the lowest and the highest run. Ratios are of medians, more than 1 in favour of \
         ikv-fabric. On another machine all figures differ.\n\n{machine}"
    );
    for (program, version) in versions {
        text += &format!("; {program} {version}");
    }
    text += &format!(
        ". Other work took {:.0} % of the CPUs before the first run.",
        busy * 100.0
    );
    text += "\n\n![medians and ranges](results.svg)\n\n";
    text += "| case | contestant | median | lowest – highest | ikv-fabric is | wanted | aim |\n";
    text += "|---|---|---:|---:|---:|---:|---:|\n";
    for (group, figure) in figures(groups) {
        text += &rows(group, figure, outcomes);
    }
    if let Some(row) = against_ikvswitch(outcomes) {
        text += &row;
    }
    let remarks = remarks(groups, outcomes);
    if !remarks.is_empty() {
        text += &format!("\n## Not measured\n\n{remarks}");
    }
    text
}

fn figures(groups: &[Group]) -> impl Iterator<Item = (&Group, &Figure)> {
    groups
        .iter()
        .flat_map(|group| group.figures.iter().map(move |figure| (group, figure)))
}

fn rows(group: &Group, figure: &Figure, outcomes: &Outcomes) -> String {
    let of = |contestant| outcomes.get(&(group.name, contestant))?.summary(figure.key);
    let ours = of(OURS);
    let mut text = String::new();
    // Only the group's first row names the figure.
    let mut title = format!("{} ({})", figure.title, figure.unit);
    for job in &group.jobs {
        let Some(summary) = of(job.contestant) else {
            continue;
        };
        let mut cells = [String::new(), String::new(), String::new()];
        if job.contestant == OURS {
            if let Some((limit, aim)) = figure.targets.iter().find_map(median_target) {
                let (sign, missed) = if figure.less_is_better {
                    ("≤", summary.median > limit)
                } else {
                    ("≥", summary.median < limit)
                };
                cells[1] = format!("{sign} {limit}{}", mark(missed));
                cells[2] = format!("{aim}");
            }
        } else if let Some(ours) = ours {
            let ratio = if figure.less_is_better {
                summary.median / ours.median
            } else {
                ours.median / summary.median
            };
            let mut targets = figure.targets.iter();
            let target = targets.find_map(|target| ratio_target(target, job.contestant));
            if ratio.is_finite() {
                cells[0] = format!("{ratio:.2} ×");
            }
            if let Some((least, aim)) = target {
                cells[1] = format!("{least}{}", mark(ratio < least));
                cells[2] = format!("{aim}");
            }
        }
        text += &format!(
            "| {title} | {} | {} | {} – {} | {} | {} | {} |\n",
            job.contestant,
            digits(summary.median),
            digits(summary.min),
            digits(summary.max),
            cells[0],
            cells[1],
            cells[2]
        );
        title.clear();
    }
    text
}

/// The row that compares a guest's frames through a cable of this build with frames through two taps
/// and a bridge, as in ikvswitch.
fn against_ikvswitch(outcomes: &Outcomes) -> Option<String> {
    let ours = outcomes.get(&("vhost-64-split", OURS))?.summary("mpps")?;
    let bridge = outcomes
        .get(&("taps-60", "Linux bridge"))?
        .summary("mpps")?;
    let ratio = ours.median / bridge.median;
    let missed = mark(ratio < 8.0);
    Some(format!(
        "| vhost – vhost, 64 B, against tap – bridge – tap | Linux bridge | {} | {} – {} | {ratio:.2} × | 8{missed} | 12 |\n",
        digits(bridge.median),
        digits(bridge.min),
        digits(bridge.max)
    ))
}

/// The contestants that were skipped, and the runs that failed.
fn remarks(groups: &[Group], outcomes: &Outcomes) -> String {
    let mut text = String::new();
    for group in groups {
        for job in &group.jobs {
            let Some(outcome) = outcomes.get(&(group.name, job.contestant)) else {
                continue;
            };
            if let Some(why) = &outcome.skipped {
                text += &format!("- {}, {}: skipped, {why}\n", group.name, job.contestant);
            }
            for why in &outcome.failures {
                text += &format!(
                    "- {}, {}: a run failed, {why}\n",
                    group.name, job.contestant
                );
            }
        }
    }
    text
}

fn mark(missed: bool) -> &'static str {
    if missed { " **missed**" } else { "" }
}

fn median_target(target: &Target) -> Option<(f64, f64)> {
    match target {
        Target::Median(limit, aim) => Some((*limit, *aim)),
        Target::Ratio(..) => None,
    }
}

fn ratio_target(target: &Target, contestant: &str) -> Option<(f64, f64)> {
    match target {
        Target::Ratio(name, least, aim) if *name == contestant => Some((*least, *aim)),
        _ => None,
    }
}

/// A chart for each figure that has been measured.
pub fn charts(groups: &[Group], outcomes: &Outcomes) -> Vec<FigureChart> {
    figures(groups)
        .filter_map(|(group, figure)| {
            let bars: Vec<_> = group
                .jobs
                .iter()
                .filter_map(|job| {
                    let outcome = outcomes.get(&(group.name, job.contestant))?;
                    Some(Bar {
                        name: job.contestant.into(),
                        summary: outcome.summary(figure.key)?,
                        ours: job.contestant == OURS,
                    })
                })
                .collect();
            let (title, unit) = (figure.title.clone(), figure.unit.to_owned());
            (!bars.is_empty()).then_some(FigureChart { title, unit, bars })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side_by_side::{Outcome, Tools, groups};

    #[test]
    fn the_report_reads_well() {
        let tools = Tools {
            fabric: "f".into(),
            side_by_side: "s".into(),
            peers: "p".into(),
        };
        let groups = groups(&tools, 4);
        let mut outcomes = Outcomes::new();
        let mut put = |group, contestant, figures: &[(&str, [f64; 3])]| {
            let figures = figures
                .iter()
                .map(|(key, runs)| ((*key).to_owned(), runs.to_vec()));
            let outcome = Outcome {
                figures: figures.collect(),
                ..Outcome::default()
            };
            outcomes.insert((group, contestant), outcome);
        };
        put("vhost-64-split", OURS, &[("mpps", [14.0, 13.5, 14.5])]);
        put("vhost-64-split", "testpmd", &[("mpps", [11.0, 12.0, 11.5])]);
        put("taps-60", OURS, &[("mpps", [0.4, 0.41, 0.42])]);
        put("taps-60", "Linux bridge", &[("mpps", [1.2, 1.1, 1.25])]);
        put(
            "tcp",
            OURS,
            &[
                ("gbits", [30.0, 31.0, 29.0]),
                ("rtt_us", [35.0, 36.0, 37.0]),
            ],
        );
        put(
            "tcp",
            "Linux bridge",
            &[("gbits", [40.0, 41.0, 39.0]), ("rtt_us", [9.0, 8.0, 10.0])],
        );
        outcomes.insert(
            ("vhost-64-split", "OVS-DPDK"),
            Outcome {
                skipped: Some("ovs is not installed".into()),
                ..Outcome::default()
            },
        );
        let failures = vec!["it ended with exit status: 1".to_owned()];
        outcomes.insert(
            ("tcp", "VDE"),
            Outcome {
                failures,
                ..Outcome::default()
            },
        );
        let machine = Machine::example();
        let versions = vec![("DPDK".to_owned(), "22.11".to_owned())];
        insta::assert_snapshot!(markdown(&groups, &outcomes, &machine, &versions, 3, 0.02));
        assert_eq!(charts(&groups, &outcomes).len(), 4);
    }
}
