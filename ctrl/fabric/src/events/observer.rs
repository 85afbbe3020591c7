//! Sees what changes about switches, sessions and readiness by comparing two looks: [`follow`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::log::FABRIC;
use crate::fabric::Fabric;
use api::EventKind;
use vm::VmState;

/// How long a change can go unnoticed if its signal was missed.
const LOOK: Duration = Duration::from_secs(1);

/// What one look has seen.
#[derive(Debug, Default)]
struct Seen {
    /// `None` before the first look.
    ready: Option<bool>,
    switches: BTreeMap<String, Switch>,
    /// By the name of the cable that the session runs over.
    sessions: BTreeMap<String, Session>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Switch {
    state: VmState,
    /// How often its QEMU was started again after a death.
    restarts: u32,
    /// Why it died last.
    why: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    between: [String; 2],
    stands: bool,
}

/// Writes down what changes until dropped.
pub(crate) async fn follow(fabric: Arc<Fabric>) {
    let mut before = Seen::default();
    loop {
        let now = look(&fabric);
        for (kind, subject, text) in news(&before, &now) {
            fabric.live.events.add(kind, &subject, &text);
        }
        before = now;
        let _ = timeout(LOOK, fabric.changed()).await;
    }
}

fn look(fabric: &Fabric) -> Seen {
    let state = fabric.live.state();
    let switches = state.switches.values().map(|switch| {
        let status = switch.vm().status();
        let seen = Switch {
            state: status.state,
            restarts: status.restarts,
            why: status.last_error.unwrap_or_default(),
        };
        (switch.name().to_owned(), seen)
    });
    let sessions = state.sessions_by_cable().map(|(cable, between, stands)| {
        let between = between.map(str::to_owned);
        (cable.to_owned(), Session { between, stands })
    });
    Seen {
        ready: Some(fabric.is_ready()),
        switches: switches.collect(),
        sessions: sessions.collect(),
    }
}

type News = (EventKind, String, String);

/// What has changed between two looks. Switches and sessions that a change of the configuration took away
/// are no news: that is said as a whole.
fn news(before: &Seen, now: &Seen) -> Vec<News> {
    let mut news = Vec::new();
    for (name, switch) in &now.switches {
        news.extend(of_switch(name, before.switches.get(name), switch));
    }
    for (cable, session) in &now.sessions {
        let stood = before.sessions.get(cable).is_some_and(|it| it.stands);
        let (kind, what) = match (stood, session.stands) {
            (false, true) => (EventKind::SessionUp, "is established"),
            (true, false) => (EventKind::SessionDown, "is not known to stand any more"),
            _ => continue,
        };
        let [a, b] = &session.between;
        let text = format!("the BGP session of {a} and {b} over {cable} {what}");
        news.push((kind, cable.clone(), text));
    }
    let ready = match (before.ready.unwrap_or(false), now.ready.unwrap_or(false)) {
        (false, true) => Some((EventKind::Ready, "the fabric is ready")),
        (true, false) => Some((
            EventKind::NotReady,
            "the fabric is no longer ready: `ikv-fabric status` shows why",
        )),
        _ => None,
    };
    news.extend(ready.map(|(kind, text)| (kind, FABRIC.to_owned(), text.to_owned())));
    news
}

fn of_switch(name: &str, before: Option<&Switch>, now: &Switch) -> Vec<News> {
    let state_before = before.map(|it| it.state);
    let event = |kind, text| (kind, name.to_owned(), text);
    let mut news = Vec::new();
    let is_dead = |state| matches!(state, VmState::Restarting | VmState::Failed);
    let died_again = before.is_some_and(|it| it.restarts < now.restarts);
    let is_new = state_before != Some(now.state);
    let was_dead = state_before.is_some_and(is_dead);
    if !was_dead && (died_again || is_dead(now.state)) {
        let text = format!("the QEMU of {name} has died: {}", now.why);
        news.push(event(EventKind::SwitchDied, text));
    }
    if now.state == VmState::Failed && is_new {
        let text = format!("{name} is not started again: {}", now.why);
        news.push(event(EventKind::SwitchDied, text));
    }
    if now.state == VmState::Off && is_new {
        news.push(event(EventKind::SwitchOff, format!("{name} is off")));
    }
    if now.state == VmState::Running && (is_new || died_again) {
        news.push(event(EventKind::SwitchUp, format!("{name} runs")));
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ready: bool, state: VmState, restarts: u32, stands: bool) -> Seen {
        let switch = Switch {
            state,
            restarts,
            why: "killed".into(),
        };
        let session = Session {
            between: ["spine1".into(), "leaf1".into()],
            stands,
        };
        Seen {
            ready: Some(ready),
            switches: [("leaf1".to_owned(), switch)].into(),
            sessions: [("iksb12".to_owned(), session)].into(),
        }
    }

    /// The kinds of the news of a series of looks.
    fn kinds(looks: &[Seen]) -> Vec<String> {
        let mut before = &Seen::default();
        let mut kinds = Vec::new();
        for now in looks {
            let news = news(before, now);
            kinds.extend(
                (news.iter()).map(|(kind, ..)| format!("{} {}", kind.name(), kind.state())),
            );
            before = now;
        }
        kinds
    }

    #[test]
    fn a_switch_comes_up_dies_and_comes_back() {
        use VmState::{Booting, Restarting, Running};

        let looks = [
            seen(false, Booting, 0, false),
            seen(false, Running, 0, false),
            seen(true, Running, 0, true),
            seen(true, Running, 0, true),
            seen(false, Restarting, 0, false),
            seen(false, Booting, 1, false),
            seen(true, Running, 1, true),
        ];
        assert_eq!(
            kinds(&looks),
            [
                "switch up",
                "session up",
                "ready yes",
                "switch died",
                "session down",
                "ready no",
                "switch up",
                "session up",
                "ready yes"
            ]
        );
    }

    #[test]
    fn a_death_between_two_looks_is_seen() {
        use VmState::{Failed, Off, Running};

        let looks = [
            seen(true, Running, 0, true),
            seen(true, Running, 1, true),
            seen(true, Off, 1, true),
            seen(true, Off, 1, true),
            seen(true, Failed, 1, true),
        ];
        assert_eq!(
            kinds(&looks)[3..],
            [
                "switch died",
                "switch up",
                "switch off",
                "switch died",
                "switch died"
            ]
        );
    }

    #[test]
    fn what_is_taken_away_is_no_news() {
        let before = seen(true, VmState::Running, 0, true);
        let now = Seen {
            ready: Some(true),
            ..Seen::default()
        };
        assert_eq!(news(&before, &now), []);
    }
}
