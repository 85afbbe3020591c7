//! The report as a table: a column for each host, a row for each check. Red cells also end with `!`,
//! so that they stand out without colours.

use std::fmt::Write;

use bench::report::bits;

use super::report::{HostReport, PingReport, Refused, Report, TransferReport};

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// The blanks between two columns.
const GAP: usize = 2;

/// The text of a check and whether it is green; `None` if it was not made.
type Cell = Option<(String, bool)>;

/// Reads the result of a check from a transfer.
type Check = fn(&TransferReport) -> (String, bool);

struct Row {
    name: String,
    cells: Vec<Cell>,
}

/// The report as text, with `colours` for a terminal.
pub(super) fn table(report: &Report, colours: bool) -> String {
    let mut text = String::new();
    if !report.hosts.is_empty() {
        grid(&mut text, report, colours);
    }
    for found in &report.skipped {
        let _ = writeln!(text, "{} is skipped: {}", found.position, found.why);
    }
    let hosts = report.hosts.iter();
    let troubled = hosts.filter_map(|host| Some((&host.position, host.trouble.as_ref()?)));
    for (position, why) in troubled {
        coloured(&mut text, &format!("{position}: {why}"), false, colours);
        text.push('\n');
    }
    for trouble in &report.troubles {
        coloured(&mut text, trouble, false, colours);
        text.push('\n');
    }
    for found in &report.refused {
        text.push_str(&refusal(found));
    }
    coloured(&mut text, &verdict(report), report.green, colours);
    text.push('\n');
    text
}

/// The most prefixes in a line.
const SHOWN: usize = 4;

fn refusal(found: &Refused) -> String {
    let Refused {
        leaf, from, why, ..
    } = found;
    if found.prefixes.is_empty() {
        return format!("{leaf} ended a BGP session with {from}: {why}\n");
    }
    let more = found.prefixes.len().saturating_sub(SHOWN);
    let mut prefixes = found.prefixes[more..].join(", ");
    if more > 0 {
        let _ = write!(prefixes, " and {more} more");
    }
    format!("{leaf} refused {prefixes} from {from} over BGP: {why}\n")
}

fn verdict(report: &Report) -> String {
    let (failed, checks, seconds) = (report.failed(), report.checks(), report.seconds);
    if report.green {
        format!("green: all of {checks} checks, in {seconds:.1} s")
    } else {
        format!("red: {failed} of {checks} checks failed, in {seconds:.1} s")
    }
}

fn grid(text: &mut String, report: &Report, colours: bool) {
    let rows = rows(report);
    let names: Vec<_> = report.hosts.iter().map(|host| &*host.position).collect();
    let first = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let widths: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(column, name)| {
            let cells = rows.iter().map(|row| shown(&row.cells[column]).len());
            cells.max().unwrap_or(0).max(name.len()) + GAP
        })
        .collect();
    let _ = write!(text, "{:<first$}", "");
    for (name, width) in names.iter().zip(&widths) {
        let _ = write!(text, "{name:>width$}");
    }
    text.push('\n');
    for row in &rows {
        let _ = write!(text, "{:<first$}", row.name);
        for (cell, width) in row.cells.iter().zip(&widths) {
            let word = shown(cell);
            let _ = write!(text, "{:1$}", "", width - word.chars().count());
            match cell {
                Some((_, green)) => coloured(text, &word, *green, colours),
                None => text.push_str(&word),
            }
        }
        text.push('\n');
    }
}

fn shown(cell: &Cell) -> String {
    match cell {
        Some((word, true)) => word.clone(),
        Some((word, false)) => format!("{word}!"),
        None => "-".into(),
    }
}

fn coloured(text: &mut String, word: &str, green: bool, colours: bool) {
    if colours {
        let colour = if green { GREEN } else { RED };
        let _ = write!(text, "{colour}{word}{PLAIN}");
    } else {
        text.push_str(word);
    }
}

fn rows(report: &Report) -> Vec<Row> {
    let hosts = &report.hosts;
    let row = |name: &str, cell: &dyn Fn(&HostReport) -> Cell| Row {
        name: name.to_owned(),
        cells: hosts.iter().map(cell).collect(),
    };
    let mut rows = vec![
        row("DHCP lease", &|host| {
            let address = host.address.clone().unwrap_or_else(|| "none".into());
            Some((address, host.green))
        }),
        row("  after", &|host| {
            Some((milliseconds(host.lease_ms?), host.green))
        }),
    ];
    for name in pinged(report) {
        rows.push(row(&format!("ping {name}"), &|from| {
            let mut pings = report.pings.iter();
            pings
                .find(|ping| ping.from == from.position && ping.to == name)
                .map(ping)
        }));
    }
    if report.transfers.is_empty() {
        return rows;
    }
    let results: [(&str, Check); 2] = [("TCP", tcp), ("UDP", udp)];
    for (protocol, result) in results {
        for HostReport { position: to, .. } in hosts {
            rows.push(row(&format!("{protocol} to {to}"), &|from| {
                let mut transfers = report.transfers.iter();
                transfers
                    .find(|found| found.from == from.position && found.to == *to)
                    .map(result)
            }));
        }
    }
    rows
}

/// The names of the targets: hosts first, unless there is only one, then the others in the order in
/// which they were pinged.
fn pinged(report: &Report) -> Vec<&str> {
    let alone = usize::from(report.hosts.len() == 1);
    let hosts = report.hosts.iter().skip(alone);
    let hosts = hosts.map(|host| &*host.position);
    let rest = report.pings.iter().map(|ping| &*ping.to);
    let mut names = Vec::new();
    for name in hosts.chain(rest) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn ping(ping: &PingReport) -> (String, bool) {
    let word = match (ping.green, ping.rtt_ms) {
        (true, Some(rtt)) => milliseconds(rtt),
        (_, None) => "no answer".into(),
        (false, Some(_)) => format!("{} of {} lost", ping.sent - ping.answered, ping.sent),
    };
    (word, ping.green)
}

fn tcp(transfer: &TransferReport) -> (String, bool) {
    let rate = transfer.tcp_bits_per_second;
    let word = rate.map_or_else(|| "no connection".into(), bits);
    (word, transfer.tcp_green)
}

fn udp(transfer: &TransferReport) -> (String, bool) {
    let word = match (transfer.udp_green, transfer.udp_sent) {
        (true, _) => bits(transfer.udp_bits_per_second),
        (false, 0) => "not sent".into(),
        (false, sent) => {
            let lost = sent.saturating_sub(transfer.udp_received);
            format!("{:.1} % lost", lost as f64 / sent as f64 * 100.0)
        }
    };
    (word, transfer.udp_green)
}

fn milliseconds(ms: f64) -> String {
    format!("{ms:.1} ms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::probe::report::Skipped;

    fn host(rack: u16) -> HostReport {
        HostReport {
            green: true,
            position: format!("rack{rack}:u23"),
            mac: format!("02:69:6b:0{rack}:17:01"),
            address: Some(format!("192.168.11{rack}.77/24")),
            gateway: Some(format!("192.168.11{rack}.1")),
            lease_ms: Some(183.4),
            trouble: None,
        }
    }

    fn pinged(from: &str, to: &str, answered: usize) -> PingReport {
        PingReport {
            green: answered == 5,
            from: from.into(),
            to: to.into(),
            address: "192.168.98.1".into(),
            sent: 5,
            answered,
            rtt_ms: (answered > 0).then_some(1.234),
        }
    }

    fn transfer(from: &str, to: &str, good: bool) -> TransferReport {
        TransferReport {
            from: from.into(),
            to: to.into(),
            tcp_green: good,
            tcp_bits_per_second: good.then_some(94.3e6),
            udp_green: good,
            udp_bits_per_second: 47.1e6,
            udp_sent: 1000,
            udp_received: if good { 1000 } else { 487 },
        }
    }

    fn healthy() -> Report {
        let (a, b) = ("rack1:u23", "rack2:u23");
        let targets = ["gateway", "host", "internet", "spine1"];
        let all = |from: &str, to: &str| {
            let mut pings = vec![pinged(from, to, 5)];
            pings.extend(targets.map(|to| pinged(from, to, 5)));
            pings
        };
        Report {
            seconds: 6.84,
            hosts: vec![host(1), host(2)],
            pings: [all(a, b), all(b, a)].concat(),
            transfers: vec![transfer(a, b, true), transfer(b, a, true)],
            ..Report::default()
        }
    }

    #[test]
    fn a_healthy_fabric_is_green() {
        insta::assert_snapshot!(table(&healthy().judged(), false));
    }

    #[test]
    fn what_is_broken_is_marked() {
        let mut report = healthy();
        report.skipped.push(Skipped {
            position: "rack2:u22".into(),
            why: "a VM is plugged in by its tap".into(),
        });
        report.troubles.push("no position of rack4 is free".into());
        report.pings[0] = pinged("rack1:u23", "rack2:u23", 3);
        report.pings[5] = pinged("rack2:u23", "rack1:u23", 0);
        report.transfers[0] = transfer("rack1:u23", "rack2:u23", false);
        let mut out = host(3);
        (out.green, out.address, out.lease_ms) = (false, None, None);
        out.trouble = Some("no DHCP lease from leaf5".into());
        report.hosts.push(out);
        insta::assert_snapshot!(table(&report.judged(), false));
    }

    #[test]
    fn colours_are_for_terminals() {
        let report = healthy().judged();
        assert!(!table(&report, false).contains('\x1b'));
        let coloured = table(&report, true);
        assert!(coloured.contains(GREEN) && !coloured.contains(RED));
        let plain = coloured.replace(GREEN, "").replace(PLAIN, "");
        assert_eq!(plain, table(&report, false));
    }

    #[test]
    fn what_leaves_refused_stands_in_lines() {
        let refused = |prefixes: &[&str], why: &str| Refused {
            leaf: "leaf1".into(),
            from: "leaf1:u6".into(),
            why: why.into(),
            prefixes: prefixes.iter().map(ToString::to_string).collect(),
        };
        let report = Report {
            refused: vec![
                refused(&["a", "b", "c", "d", "e"], "shorter than /8"),
                refused(&[], "more than 256 prefixes"),
            ],
            ..healthy()
        };
        let report = report.judged();
        assert!(report.green, "the fabric is healthy");
        let text = table(&report, false);
        let expected = "leaf1 refused b, c, d, e and 1 more from leaf1:u6 over BGP: shorter than \
                        /8\nleaf1 ended a BGP session with leaf1:u6: more than 256 prefixes\n";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn nothing_tried_is_not_green() {
        let nothing = Report::default().judged();
        assert!(!nothing.green);
        assert_eq!(
            table(&nothing, false),
            "red: 0 of 0 checks failed, in 0.0 s\n"
        );
    }
}
