//! What the keys do: a line of the most useful ones, and all of them.

use super::app::{App, Mode};
use super::columns::length;
use super::rows::View;

/// All keys.
pub(super) const LINES: [&str; 19] = [
    "Tab, 1 2 3      another view: switches, cables, places",
    "arrows          select a row; PgUp, PgDn, Home and End, too",
    "s               sort by the next column, after the last in the fabric's order",
    "r               the other way round",
    "/               only rows with this text (impaired: cables with an impairment)",
    "Esc             no filter",
    "Enter           details: counters of both lanes, drops by reason, impairment",
    "",
    "c  u            cut the cable, mend it",
    "i               impair it, in the words of `ikv-fabric impair`: delay 5ms loss 1%",
    "x               remove its impairments",
    "p               capture it into a new file in this folder; p again ends that",
    "",
    "q, Ctrl-C       leave; the fabric goes on",
    "",
    "→ ←             what enters at the first end, and at the second one",
    "drops           without frames to an end where nobody is plugged in",
    "",
    "MAC, addresses and names of places are what a server says: true or not.",
];

/// The keys that help now, as many as fit; the last ones always.
pub(super) fn keys(app: &App, width: usize) -> String {
    let (some, always): (&[&str], &str) = match app.mode {
        Mode::Filter => (&["type a text"], "Enter keeps it  Esc takes it away"),
        Mode::Details(_) => (&["arrows scroll"], "Esc back  q leave"),
        Mode::Help => (&[], "any key goes back"),
        Mode::Browse | Mode::Impair { .. } => {
            let some: &[&str] = match app.view {
                View::Switches => &[
                    "Tab view",
                    "s sort",
                    "r reverse",
                    "/ filter",
                    "Enter details",
                ],
                View::Cables | View::Places => &[
                    "c cut",
                    "u up",
                    "i impair",
                    "x clear",
                    "p capture",
                    "Enter more",
                    "/ find",
                    "s sort",
                    "r reverse",
                    "Tab view",
                ],
            };
            (some, "? help  q quit")
        }
    };
    let mut line = String::new();
    for part in some {
        if length(&line) + length(part) + 2 + length(always) > width {
            break;
        }
        line += part;
        line += "  ";
    }
    line + always
}
