//! The report as text.

use std::fmt::Write;

use super::flow::FlowReport;
use super::report::{Moment, Report};

/// The most ended sessions that are listed; the others are counted.
const ENDS: usize = 6;

/// The report of one cut, a line for each fact.
pub(super) fn table(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{what:<20} {value}");
    };
    let cables = report.cables.join(" ");
    line(
        "cut",
        format!(
            "{cables} ({}), set at all ends in {:.1} ms",
            report.state, report.set_ms
        ),
    );
    line("first update", moment(report.first_update.as_ref()));
    line("first withdraw", moment(report.first_withdraw.as_ref()));
    line("last update", moment(report.last_update.as_ref()));
    let Report {
        updates,
        withdrawn,
        announced,
        ..
    } = report;
    line(
        "updates",
        format!("{updates}: {withdrawn} prefixes withdrawn, {announced} announced"),
    );
    for ended in report.notifications.iter().take(ENDS) {
        let (ms, port, why) = (ended.after_ms, &ended.port, &ended.why);
        let received = if ended.lost { " (not received)" } else { "" };
        line(
            "session ended",
            format!("{ms:.1} ms, {port}: {why}{received}"),
        );
    }
    if report.notifications.len() > ENDS {
        let more = report.notifications.len() - ENDS;
        line("session ended", format!("{more} more"));
    }
    if report.bfd_down.is_some() {
        line("BFD down", moment(report.bfd_down.as_ref()));
    }
    if !report.settled {
        line("settled", "no: the limit was reached first".into());
    }
    if let Some(there) = &report.flow {
        flow("flow", there, &mut line);
    }
    if let Some(back) = &report.back {
        flow("flow back", back, &mut line);
    }
    if report.missed > 0 {
        let missed = report.missed;
        line(
            "not reliable",
            format!("the capture missed {missed} frames: the machine was too busy"),
        );
    }
    text
}

fn flow(name: &str, flow: &FlowReport, line: &mut impl FnMut(&str, String)) {
    let FlowReport {
        from,
        to,
        sent,
        lost,
        ..
    } = flow;
    line(
        name,
        format!("{from} > {to}: {lost} of {sent} packets lost"),
    );
    line("  path before", path(&flow.path_before));
    line("  path after", path(&flow.path_after));
    if flow.path_before != flow.path_after {
        line("  on the new path", flow.new_path_ms.map_or_else(never, ms));
    }
    if let Some(gap) = flow.gap_ms {
        line("  longest silence", ms(gap));
    }
}

fn path(ports: &[String]) -> String {
    if ports.is_empty() {
        return "nothing arrived".into();
    }
    ports.join(" > ")
}

fn moment(moment: Option<&Moment>) -> String {
    moment.map_or_else(never, |moment| {
        format!("{:.1} ms, {}", moment.after_ms, moment.port)
    })
}

fn ms(ms: f64) -> String {
    format!("{ms:.1} ms")
}

fn never() -> String {
    "never".into()
}

/// Reads a figure from a report; `None` if it has none.
type Figure = fn(&Report) -> Option<f64>;

/// Summarises several cuts: the minimum, median and maximum of each figure.
pub(super) fn spread(reports: &[Report]) -> String {
    let mut text = format!(
        "{:<20} {:>10} {:>10} {:>10}\n",
        "", "least", "median", "most"
    );
    let rows: [(&str, Figure); 5] = [
        ("first withdraw, ms", |report| {
            Some(report.first_withdraw.as_ref()?.after_ms)
        }),
        ("last update, ms", |report| {
            Some(report.last_update.as_ref()?.after_ms)
        }),
        ("new path, ms", |report| report.flow.as_ref()?.new_path_ms),
        ("longest silence, ms", |report| report.flow.as_ref()?.gap_ms),
        ("packets lost", |report| {
            Some(report.flow.as_ref()?.lost as f64)
        }),
    ];
    for (name, of) in rows {
        let mut values: Vec<_> = reports.iter().filter_map(of).collect();
        values.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (values.first(), values.last()) else {
            continue;
        };
        let median = values[values.len() / 2];
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<20} {least:>10.1} {median:>10.1} {most:>10.1}");
    }
    text
}
