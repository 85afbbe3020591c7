//! The report: bench/RESULTS.md, and the panels of its picture. Pure.

use super::{Figure, Group, OURS, Outcomes, Versus};
use crate::machine::Machine;
use crate::plot::{Bar, Panel, figure as digits};

/// A program and its version.
pub type Versions = Vec<(String, String)>;

/// Everything for people to read. `busy` is the share of the CPUs that other work took.
pub fn markdown(
    groups: &[Group],
    outcomes: &Outcomes,
    machine: &Machine,
    versions: &Versions,
    runs: usize,
    busy: f64,
) -> String {
    let mut text = format!(
        "# Side by side\n\nWritten by `make bench`. Contestants took turns {runs} times in one run; figures are \
         medians, with the lowest and the highest turn. Ratios are of medians, more than 1 in favour of \
         ikv-fabric. On another machine all of it differs.\n\n{machine}"
    );
    for (program, version) in versions {
        text += &format!("; {program} {version}");
    }
    text += &format!(
        ". Other work took {:.0} % of the CPUs before the first turn.",
        busy * 100.0
    );
    text += "\n\n![medians and spread](results.svg)\n\n";
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
    let of = |contestant| outcomes.get(&(group.name, contestant))?.spread(figure.key);
    let ours = of(OURS);
    let mut text = String::new();
    let mut case = format!("{} ({})", figure.title, figure.unit);
    for job in &group.jobs {
        let Some(spread) = of(job.contestant) else {
            continue;
        };
        let mut cells = [String::new(), String::new(), String::new()];
        if job.contestant == OURS {
            if let Some((least, aim)) = figure.wanted.iter().find_map(alone) {
                let sign = if figure.less_is_better { "≤" } else { "≥" };
                let missed = if figure.less_is_better {
                    spread.median > least
                } else {
                    spread.median < least
                };
                cells[1] = format!("{sign} {least}{}", if missed { " **missed**" } else { "" });
                cells[2] = format!("{aim}");
            }
        } else if let Some(ours) = ours {
            let ratio = ratio(ours.median, spread.median, figure.less_is_better);
            let wanted = figure
                .wanted
                .iter()
                .find_map(|versus| against(versus, job.contestant));
            if ratio.is_finite() {
                cells[0] = format!("{ratio:.2} ×");
            }
            if let Some((least, aim)) = wanted {
                let missed = if ratio < least { " **missed**" } else { "" };
                cells[1] = format!("{least}{missed}");
                cells[2] = format!("{aim}");
            }
        }
        text += &format!(
            "| {case} | {} | {} | {} – {} | {} | {} | {} |\n",
            job.contestant,
            digits(spread.median),
            digits(spread.min),
            digits(spread.max),
            cells[0],
            cells[1],
            cells[2]
        );
        case.clear();
    }
    text
}

/// What guests gain over the predecessor: their frames through a cable of ours against the same
/// through two taps and a bridge.
fn against_ikvswitch(outcomes: &Outcomes) -> Option<String> {
    let ours = outcomes.get(&("vhost-64-split", OURS))?.spread("mpps")?;
    let bridge = outcomes.get(&("taps-60", "Linux bridge"))?.spread("mpps")?;
    let ratio = ours.median / bridge.median;
    let missed = if ratio < 8.0 { " **missed**" } else { "" };
    Some(format!(
        "| vhost – vhost, 64 B, against tap – bridge – tap | Linux bridge | {} | {} – {} | {ratio:.2} × | 8{missed} | 12 |\n",
        digits(bridge.median),
        digits(bridge.min),
        digits(bridge.max)
    ))
}

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
                    "- {}, {}: a turn failed, {why}\n",
                    group.name, job.contestant
                );
            }
        }
    }
    text
}

/// More than 1 in our favour.
fn ratio(ours: f64, theirs: f64, less_is_better: bool) -> f64 {
    if less_is_better {
        theirs / ours
    } else {
        ours / theirs
    }
}

fn alone(versus: &Versus) -> Option<(f64, f64)> {
    match versus {
        Versus::Alone(least, aim) => Some((*least, *aim)),
        Versus::Contestant(..) => None,
    }
}

fn against(versus: &Versus, contestant: &str) -> Option<(f64, f64)> {
    match versus {
        Versus::Contestant(name, least, aim) if *name == contestant => Some((*least, *aim)),
        _ => None,
    }
}

/// What the picture shows.
pub fn panels(groups: &[Group], outcomes: &Outcomes) -> Vec<Panel> {
    figures(groups)
        .filter_map(|(group, figure)| {
            let bars: Vec<_> = group
                .jobs
                .iter()
                .filter_map(|job| {
                    let spread = outcomes
                        .get(&(group.name, job.contestant))?
                        .spread(figure.key)?;
                    let ours = job.contestant == OURS;
                    Some(Bar {
                        name: job.contestant.into(),
                        spread,
                        ours,
                    })
                })
                .collect();
            let (title, unit) = (figure.title.clone(), figure.unit.to_owned());
            (!bars.is_empty()).then_some(Panel { title, unit, bars })
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
        let machine = Machine {
            cpu: "Example 9000".into(),
            cores: 2,
            memory_gib: 8,
            kernel: "6.1.0".into(),
            version: "0.1.0".into(),
        };
        let versions = vec![("DPDK".to_owned(), "22.11".to_owned())];
        insta::assert_snapshot!(markdown(&groups, &outcomes, &machine, &versions, 3, 0.02));
        assert_eq!(panels(&groups, &outcomes).len(), 4);
    }
}
