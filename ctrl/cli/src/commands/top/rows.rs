//! The rows of each view: their columns, their cells, and by what they are sorted and found.

use std::time::Duration;

use super::columns::{Wanted, clipped, length};
use super::list::Value;
use super::rates::{CableRates, short};
use crate::commands::{cables, places};
use api::{CableReport, NodeStatus, Position};
use model::{printable, utc};

/// Which rows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Switches,
    Cables,
    Places,
}

impl View {
    pub(super) const ALL: [View; 3] = [View::Switches, View::Cables, View::Places];

    pub(super) fn title(self) -> &'static str {
        match self {
            View::Switches => "Switches",
            View::Cables => "Cables",
            View::Places => "Places",
        }
    }

    /// In the order of the screen, from the left.
    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            View::Switches => &[
                Column::Switch,
                Column::Role,
                Column::SwitchState,
                Column::Sessions,
                Column::Since,
                Column::Note,
            ],
            View::Cables => &[
                Column::Cable,
                Column::Ends,
                Column::CableState,
                Column::Frames(0),
                Column::Bits(0),
                Column::Frames(1),
                Column::Bits(1),
                Column::Drops,
                Column::Impairment,
            ],
            View::Places => &[
                Column::Position,
                Column::End,
                Column::By,
                Column::Mac,
                Column::Since,
                Column::Name,
                Column::Addresses,
            ],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Switch,
    Role,
    SwitchState,
    Sessions,
    Note,
    Cable,
    Ends,
    CableState,
    /// What enters the lane of this number, from the first end to the second or back.
    Frames(usize),
    Bits(usize),
    Drops,
    Impairment,
    Position,
    End,
    By,
    Mac,
    Name,
    Addresses,
    /// When the state of the row began.
    Since,
}

impl Column {
    /// Where there is room, and otherwise.
    pub(super) fn titles(self) -> [&'static str; 2] {
        match self {
            Column::Switch => ["SWITCH"; 2],
            Column::Role => ["ROLE"; 2],
            Column::SwitchState | Column::CableState => ["STATE"; 2],
            Column::Sessions => ["SESSIONS", "BGP"],
            Column::Note => ["NOTE"; 2],
            Column::Cable => ["CABLE"; 2],
            Column::Ends => ["ENDS"; 2],
            Column::Frames(0) => ["→ FRAMES/s", "→ fr/s"],
            Column::Frames(_) => ["← FRAMES/s", "← fr/s"],
            Column::Bits(0) => ["→ BITS/s", "→bit/s"],
            Column::Bits(_) => ["← BITS/s", "←bit/s"],
            Column::Drops => ["DROPS/s", "drop/s"],
            Column::Impairment => ["IMPAIRMENT", "IMP."],
            Column::Position => ["POSITION"; 2],
            Column::End => ["END"; 2],
            Column::By => ["BY"; 2],
            Column::Mac => ["MAC"; 2],
            Column::Name => ["NAME"; 2],
            Column::Addresses => ["ADDRESSES"; 2],
            Column::Since => ["SINCE"; 2],
        }
    }

    /// The column as the table of `rows` would like to have it. It looks at names alone, which needs no
    /// formatting: rows that are not on the screen are never formatted.
    pub(super) fn wanted<'r>(self, rows: &[Row<'r>]) -> Wanted<Column> {
        let widest = |of: fn(&Row<'r>) -> usize| rows.iter().map(of).max().unwrap_or(0);
        let (width, grows, expendable) = match self {
            Column::Switch | Column::Cable | Column::End => {
                (widest(|row| length(row.name())), false, 0)
            }
            Column::Role => (widest(|row| row.role_width()), false, 0),
            Column::SwitchState | Column::CableState => {
                (widest(|row| length(row.state())), false, 0)
            }
            Column::Sessions => (7, false, 0),
            Column::Note => (4, true, 0),
            Column::Ends => (widest(|row| row.ends_width()), false, 4),
            Column::Frames(_) | Column::Bits(_) | Column::Drops => (5, false, 0),
            Column::Impairment => (4, true, 3),
            Column::Position => (8, false, 0),
            Column::By => (10, false, 0),
            Column::Mac => (17, false, 0),
            Column::Name => (8, false, 2),
            Column::Addresses => (15, true, 0),
            Column::Since => (10, false, 3),
        };
        let right = matches!(self, Column::Frames(_) | Column::Bits(_) | Column::Drops);
        Wanted {
            column: self,
            titles: self.titles(),
            width,
            right,
            grows,
            expendable,
        }
    }
}

/// What a row is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Row<'d> {
    Switch(&'d NodeStatus),
    Cable(&'d CableReport, Option<&'d CableRates>),
    Place(&'d Position),
}

impl<'d> Row<'d> {
    /// Its name, which no other row of the view has; for cables and places, one of the cable's.
    pub(super) fn name(&self) -> &'d str {
        match self {
            Row::Switch(node) => &node.name,
            Row::Cable(cable, _) => &cable.name,
            Row::Place(place) => &place.name,
        }
    }

    pub(super) fn state(&self) -> &'d str {
        match self {
            Row::Switch(node) => node.state.name(),
            Row::Cable(cable, _) => cables::state(cable),
            Row::Place(place) => place.cable.name(),
        }
    }

    /// Whether its cable has an impairment.
    pub(super) fn is_impaired(&self) -> bool {
        matches!(self, Row::Cable(cable, _) if cable.lanes.iter().any(|lane| lane.impairment.is_some()))
    }

    fn role_width(&self) -> usize {
        match self {
            Row::Switch(node) => length(&node.role),
            _ => 0,
        }
    }

    fn ends_width(&self) -> usize {
        match self {
            Row::Cable(cable, _) => length(&cable.lanes[0].from) + 3 + length(&cable.lanes[0].to),
            _ => 0,
        }
    }

    /// Whether it contains a text in lower case, as names, state or note.
    pub(super) fn contains(&self, text: &str) -> bool {
        let has = |field: &str| field.to_lowercase().contains(text);
        has(self.name())
            || has(self.state())
            || match self {
                Row::Switch(node) => has(&node.role) || has(&node.note),
                Row::Cable(cable, _) => {
                    has(&cable.lanes[0].from)
                        || has(&cable.lanes[0].to)
                        || (text == "impaired" && self.is_impaired())
                }
                Row::Place(place) => {
                    has(&place.rack_and_u())
                        || has(places::by(place))
                        || has(&places::name(place))
                        || places::macs(place).iter().any(|mac| has(mac))
                        || places::addresses(place).iter().any(|it| has(it))
                }
            }
    }

    /// By what a column sorts this row.
    pub(super) fn value(&self, column: Column) -> Value<'d> {
        let rates = match self {
            Row::Cable(_, rates) => rates.copied().unwrap_or_default(),
            _ => CableRates::default(),
        };
        match (column, self) {
            (Column::Role, Row::Switch(node)) => Value::Text(&node.role),
            (Column::SwitchState | Column::CableState, _) => Value::Text(self.state()),
            // Those that lack most come first.
            (Column::Sessions, Row::Switch(NodeStatus { bgp, .. })) => {
                Value::Number(bgp.expected as f64 - bgp.established as f64)
            }
            (Column::Note, Row::Switch(node)) => Value::Text(&node.note),
            (Column::Ends, Row::Cable(cable, _)) => Value::Text(&cable.lanes[0].from),
            (Column::Frames(lane), _) => Value::Number(rates.lanes[lane].frames),
            (Column::Bits(lane), _) => Value::Number(rates.lanes[lane].bits),
            (Column::Drops, _) => Value::Number(rates.drops),
            (Column::Impairment, _) => Value::Number(f64::from(self.is_impaired())),
            (Column::By, Row::Place(place)) => Value::Text(places::by(place)),
            (Column::Since, _) => Value::Number(self.since_ns().unwrap_or(0) as f64),
            (Column::Mac, Row::Place(place)) => Value::Text(match &place.guest {
                Some(guest) => guest.macs.first().map_or("", String::as_str),
                None => "",
            }),
            (Column::Name, Row::Place(place)) => {
                let guest = place.guest.as_ref();
                Value::Text(guest.and_then(|guest| guest.name.as_deref()).unwrap_or(""))
            }
            _ => Value::Text(self.name()),
        }
    }

    fn since_ns(&self) -> Option<u64> {
        match self {
            Row::Switch(node) => node.since_ns,
            Row::Cable(..) => None,
            Row::Place(place) => place.since_ns,
        }
    }

    /// The text of a cell of `width` characters, at the time `now` in ns since 1970.
    pub(super) fn cell(&self, column: Column, width: usize, now: u64) -> String {
        let text = match (column, self) {
            (Column::Role, Row::Switch(node)) => node.role.clone(),
            (Column::SwitchState | Column::CableState, _) => self.state().to_owned(),
            (Column::Sessions, Row::Switch(NodeStatus { bgp, .. })) => {
                format!("{}/{}", bgp.established, bgp.expected)
            }
            // It may quote a guest, and is escaped where it was made.
            (Column::Note, Row::Switch(node)) => printable::head(node.note.as_bytes(), 300),
            (Column::Ends, Row::Cable(cable, _)) => {
                format!("{} > {}", cable.lanes[0].from, cable.lanes[0].to)
            }
            (Column::Frames(lane), Row::Cable(_, rates)) => {
                rate(*rates, |rates| rates.lanes[lane].frames)
            }
            (Column::Bits(lane), Row::Cable(_, rates)) => rate(*rates, |it| it.lanes[lane].bits),
            (Column::Drops, Row::Cable(_, rates)) => rate(*rates, |rates| rates.drops),
            (Column::Impairment, Row::Cable(cable, _)) => impairment(cable, width),
            (Column::Position, Row::Place(place)) => place.rack_and_u(),
            (Column::By, Row::Place(place)) => places::by(place).to_owned(),
            (Column::Mac, Row::Place(place)) => {
                places::macs(place).into_iter().next().unwrap_or_default()
            }
            (Column::Name, Row::Place(place)) => places::name(place),
            (Column::Addresses, Row::Place(place)) => places::addresses(place).join(" "),
            (Column::Since, _) => since(self.since_ns(), now),
            _ => self.name().to_owned(),
        };
        clipped(&text, width)
    }
}

fn rate(rates: Option<&CableRates>, of: impl Fn(&CableRates) -> f64) -> String {
    rates.map_or_else(|| "-".into(), |rates| short(of(rates)))
}

/// What a cable does to its frames: the keys if they fit, otherwise in which lanes it does something.
fn impairment(cable: &CableReport, width: usize) -> String {
    let words = |lane: usize| {
        let keys = cable.lanes[lane].impairment.as_ref();
        keys.map(|keys| printable::head(keys.words().as_bytes(), 200))
    };
    let (long, brief) = match (words(0), words(1)) {
        (None, None) => return String::new(),
        (Some(there), Some(back)) if there == back => (there, "both"),
        (Some(there), Some(back)) => (format!("→ {there} ← {back}"), "both"),
        (Some(there), None) => (format!("→ {there}"), "→"),
        (None, Some(back)) => (format!("← {back}"), "←"),
    };
    if length(&long) <= width {
        long
    } else {
        brief.to_owned()
    }
}

/// The time of the day for what has begun within a day, otherwise the date. UTC.
fn since(since_ns: Option<u64>, now: u64) -> String {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let Some(ns) = since_ns else {
        return "-".into();
    };
    let at = utc::at_ns(ns);
    if Duration::from_nanos(now.saturating_sub(ns)) < DAY {
        utc::time(at)
    } else {
        utc::date_and_time(at).chars().take(10).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::places::tests::talkative;
    use crate::commands::top::tests::cable;
    use model::impairment::ImpairKeys;

    #[test]
    fn an_impairment_is_shown_in_full_or_by_its_lanes() {
        let mut report = cable("iksb12");
        assert_eq!(impairment(&report, 40), "");
        let mut keys = ImpairKeys::default();
        keys.set("delay", "5ms").unwrap();
        report.lanes[1].impairment = Some(keys.clone());
        assert_eq!(impairment(&report, 40), "← delay 5ms");
        assert_eq!(impairment(&report, 6), "←");
        report.lanes[0].impairment = Some(keys.clone());
        assert_eq!(impairment(&report, 40), "delay 5ms");
        keys.set("loss", "1%").unwrap();
        report.lanes[0].impairment = Some(keys);
        assert_eq!(impairment(&report, 40), "→ delay 5ms loss 1% ← delay 5ms");
        assert_eq!(impairment(&report, 30), "both");
    }

    #[test]
    fn what_began_long_ago_has_a_date() {
        let began = 1_796_070_907_000_000_000;
        let hour = 3_600_000_000_000;
        assert_eq!(
            since(Some(began), began + hour),
            utc::time(utc::at_ns(began))
        );
        assert_eq!(length(&since(Some(began), began + 25 * hour)), 10);
        assert!(since(Some(began), began + 25 * hour).starts_with("2026-"));
        assert_eq!(since(None, began), "-");
    }

    #[test]
    fn a_hostile_name_never_reaches_the_screen() {
        let place = talkative();
        let row = Row::Place(&place);
        for column in View::Places.columns() {
            let cell = row.cell(*column, 200, 0);
            let safe = |c: char| !c.is_control() && c != '\u{202e}';
            assert!(cell.chars().all(safe), "{column:?}: {cell:?}");
        }
    }

    #[test]
    fn rows_are_found_by_what_they_show() {
        let place = talkative();
        let row = Row::Place(&place);
        for text in [
            "rack1:u3",
            "ikvm1-3-1",
            "08:00:27",
            "192.168.98.13",
            "web1",
            "vhost",
        ] {
            assert!(row.contains(text), "{text}");
        }
        assert!(!row.contains("leaf"));
        let report = cable("iksb12");
        assert!(Row::Cable(&report, None).contains("iksb"));
    }
}
