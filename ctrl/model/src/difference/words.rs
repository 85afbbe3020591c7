//! A [`Difference`] as sentences, printed by `apply --dry-run`.

use std::fmt;

use super::{Difference, SwitchChange};
use crate::cable_change::CableChange;

/// How many names of a longer list are shown.
const SHOWN: usize = 8;

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference {
            keys,
            cables,
            taps,
            switches,
            changes,
            settings,
            reach,
        } = self;
        // Cables are said one by one below.
        for change in keys.iter().filter(|change| change.key != "cable") {
            writeln!(out, "~ {change}")?;
        }
        if self.is_empty() && !keys.is_empty() {
            return writeln!(out, "= no part of the running fabric changes");
        }
        if self.is_empty() {
            return writeln!(out, "nothing to change: the fabric is already like this");
        }
        line(out, '-', "", &switches.removed, "stopped")?;
        line(out, '+', "", &switches.added, "started")?;
        for group in groups(changes) {
            let names: Vec<_> = group.iter().map(|change| change.name.clone()).collect();
            line(out, '~', "", &names, &group[0].to_string())?;
        }
        line(out, '-', "cable", &cables.removed, "unplugged")?;
        line(out, '~', "cable", &cables.changed, "plugged in again")?;
        line(out, '+', "cable", &cables.added, "plugged in")?;
        line(out, '-', "tap", &taps.removed, "removed from the host")?;
        line(out, '+', "tap", &taps.added, "made on the host")?;
        for setting in settings {
            writeln!(out, "~ {}: {}", setting.cable, setting_in_words(setting))?;
        }
        if let Some(reach) = reach {
            writeln!(out, "~ host: {reach}")?;
        }
        if !cables.kept.is_empty() {
            let some = counted(cables.kept.len(), "cable");
            let restarted = changes.iter().any(|change| change.restarts == Some(true));
            let but = if restarted {
                ", but at a switch that is restarted"
            } else {
                ""
            };
            writeln!(out, "= {some} not touched: no frame of theirs is lost{but}")?;
        }
        Ok(())
    }
}

fn line(
    out: &mut fmt::Formatter<'_>,
    sign: char,
    kind: &str,
    names: &[String],
    what: &str,
) -> fmt::Result {
    match names {
        [] => Ok(()),
        names if kind.is_empty() => writeln!(out, "{sign} {}: {what}", listed(names)),
        names => {
            let some = counted(names.len(), kind);
            writeln!(out, "{sign} {some} {what}: {}", listed(names))
        }
    }
}

/// Such as `1 cable`, `46 cables`.
fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// All names if there are at most [`SHOWN`], otherwise the first ones and the last.
fn listed(names: &[String]) -> String {
    match names {
        [first @ .., last] if names.len() > SHOWN => {
            format!("{} … {last}", first[..SHOWN - 1].join(", "))
        }
        all => all.join(", "),
    }
}

/// Groups of changes that are equal except for the switch.
fn groups(changes: &[SwitchChange]) -> Vec<Vec<&SwitchChange>> {
    let mut groups: Vec<Vec<&SwitchChange>> = Vec::new();
    for change in changes {
        let alike = |group: &&mut Vec<&SwitchChange>| {
            let other = SwitchChange {
                name: change.name.clone(),
                ..group[0].clone()
            };
            other == *change
        };
        match groups.iter_mut().find(alike) {
            Some(group) => group.push(change),
            None => groups.push(vec![change]),
        }
    }
    groups
}

impl fmt::Display for SwitchChange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports =
            |count: usize, how| (count > 0).then(|| format!("{} {how}", counted(count, "port")));
        let said = |is: bool, what: &str| is.then(|| what.to_owned());
        let parts = [
            ports(self.ports_added, "added"),
            ports(self.ports_removed, "removed"),
            said(self.services, "serves or peers differently"),
            said(self.names, "names other switches"),
            said(self.machine, "other memory or CPUs"),
            said(self.restarts == Some(true), "restarted for it"),
            said(self.restarts == Some(false), "without a restart"),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        out.write_str(&parts.join(", "))
    }
}

fn setting_in_words(setting: &CableChange) -> String {
    let state = setting.state.map(|state| state.name().to_owned());
    let impair = setting.impair.as_ref().map(|impair| {
        let from = impair.from.as_ref();
        let from = from.map_or(String::new(), |from| format!("from {from} "));
        if impair.set.is_empty() {
            format!("{from}no impairment")
        } else {
            format!("{from}{}", impair.set.words())
        }
    });
    let parts: Vec<_> = [state, impair].into_iter().flatten().collect();
    parts.join(", ")
}
