//! `ikv-fabric places`: who is plugged in where.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use tokio::time::{MissedTickBehavior, interval};

use super::{Context, print_to_reader, screen};
use api::{Position, Positions};
use fabric::progress::say;
use model::plugging::PlugKind;
use model::{printable, utc};

/// The time between two looks of `--watch`. Leaves are asked no more often.
const REFRESH: Duration = Duration::from_secs(2);

/// Characters of a name that a table has room for.
const LONGEST_NAME: usize = 40;

/// Shows who is plugged in where: by a tap or a vhost-user socket, since when, and what the leaf has
/// learned of them. MAC addresses, addresses and names are what the server says.
#[derive(Debug, Args)]
pub(crate) struct PlacesArgs {
    /// Show it again every 2 seconds, until interrupted.
    #[arg(long)]
    watch: bool,
}

/// # Errors
/// When no fabric answers, or it has no places, as with `patch`.
pub(crate) async fn run(context: &Context, args: &PlacesArgs) -> anyhow::Result<()> {
    if args.watch {
        return watch(context).await;
    }
    let places = taken(context.client.learned_positions().await?);
    context.report(&places, || table(&places.places))?;
    if !context.json {
        for note in &places.notes {
            say(&format!("note: {}", printable::head(note.as_bytes(), 300)));
        }
    }
    Ok(())
}

async fn watch(context: &Context) -> anyhow::Result<()> {
    let mut ticks = interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let places = taken(context.client.learned_positions().await?);
        let text = if context.json {
            format!("{}\n", serde_json::to_string(&places)?)
        } else {
            let table = table(&places.places);
            match screen::lines() {
                Some(lines) => screen::redrawn(&table, lines, "make the window taller"),
                None => table,
            }
        };
        if !print_to_reader(&text)? {
            return Ok(());
        }
    }
}

/// Only the places where somebody is.
pub(super) fn taken(mut positions: Positions) -> Positions {
    positions.places.retain(|place| place.held.is_some());
    positions
}

/// By what somebody is plugged in.
pub(super) fn by(place: &Position) -> &'static str {
    match place.held {
        Some(PlugKind::Tap) => "tap",
        Some(PlugKind::VhostUser) => "vhost-user",
        None => "",
    }
}

/// The name that a server gave, safe to print; empty if none is known.
pub(super) fn name(place: &Position) -> String {
    let name = place.guest.as_ref().and_then(|guest| guest.name.as_deref());
    // The fabric has escaped it, and this program needs not rely on that.
    printable::head(name.unwrap_or_default().as_bytes(), LONGEST_NAME)
}

/// MAC addresses that were seen, as text.
pub(super) fn macs(place: &Position) -> Vec<String> {
    let macs = place.guest.iter().flat_map(|guest| &guest.macs);
    macs.map(|mac| printable::head(mac.as_bytes(), 17))
        .collect()
}

/// Addresses that were learned, those of IPv4 first.
pub(super) fn addresses(place: &Position) -> Vec<String> {
    let guest = place.guest.as_ref();
    let mut addresses = guest.map_or(Vec::new(), |guest| guest.addresses.clone());
    addresses.sort();
    addresses.iter().map(ToString::to_string).collect()
}

/// The first few of these, and how many more there are; `-` for none.
fn few(all: &[String], most: usize) -> String {
    let shown = all[..all.len().min(most)].join(" ");
    match all.len().saturating_sub(most) {
        0 if shown.is_empty() => "-".into(),
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn table(places: &[Position]) -> String {
    if places.is_empty() {
        return "nobody is plugged in: `ikv-fabric vm-args rack1:u3` shows how\n".into();
    }
    let titles = ["POSITION", "END", "BY", "MAC", "SINCE", "NAME", "ADDRESSES"];
    let mut rows = vec![titles.map(String::from)];
    rows.extend(places.iter().map(|place| {
        let since = place.since_ns.map(utc::at_ns).map(utc::date_and_time);
        let name = name(place);
        [
            place.rack_and_u(),
            place.name.clone(),
            by(place).into(),
            few(&macs(place), 1),
            since.unwrap_or_default(),
            if name.is_empty() { "-".into() } else { name },
            few(&addresses(place), 3),
        ]
    }));
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use api::PluggedGuest;
    use model::cable_change::CableState;

    /// Somebody at a position.
    pub(in crate::commands) fn plugged(rack: u16, u: u16, held: PlugKind) -> Position {
        Position {
            name: format!("ikvm{rack}-{u}-1"),
            rack,
            u,
            nic: 1,
            leaf: format!("leaf{}", 2 * rack - 1),
            mac: "02:69:6b:01:03:01".into(),
            socket: "/run/x.sock".into(),
            cable: CableState::Up,
            held: Some(held),
            // 30 November 2026, 20:35:07 UTC.
            since_ns: Some(1_796_070_907_000_000_000),
            guest: None,
        }
    }

    /// One that says much.
    pub(in crate::commands) fn talkative() -> Position {
        Position {
            guest: Some(PluggedGuest {
                macs: vec!["08:00:27:06:00:31".into(), "08:00:27:06:00:32".into()],
                addresses: ["2001:db8::7", "192.168.98.13", "fe80::1", "10.0.0.7"]
                    .map(|address| address.parse().unwrap())
                    .to_vec(),
                name: Some("web1\u{1b}[2J\u{202e}".into()),
            }),
            ..plugged(1, 3, PlugKind::VhostUser)
        }
    }

    #[test]
    fn a_place_has_a_row_and_a_hostile_name_is_shown_as_text() {
        let text = table(&[talkative(), plugged(2, 14, PlugKind::Tap)]);
        insta::assert_snapshot!(text);
        let printable = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}');
        assert!(text.chars().all(printable), "{text:?}");
        assert!(table(&[]).contains("vm-args"));
    }

    #[test]
    fn free_places_are_left_out() {
        let free = Position {
            held: None,
            ..plugged(1, 4, PlugKind::Tap)
        };
        let all = Positions {
            host: "192.168.96.1".parse().unwrap(),
            places: vec![free, talkative()],
            notes: Vec::new(),
        };
        assert_eq!(taken(all).places, [talkative()]);
    }
}
