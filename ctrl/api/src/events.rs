//! What happened in a fabric: [`Event`], and what a stream of them carries.
//!
//! [`routes::EVENTS`](crate::routes::EVENTS) answers with server-sent events (WHATWG HTML, section 9.2). Each
//! has the event's `id`, its kind as the `event`, and the whole [`Event`] as JSON in one line of
//! `data`. Fifteen seconds without an event bring a comment, so that both sides notice when the other
//! has gone.
//!
//! The fabric keeps the last events in a ring and no queue for any client. A client that reads so slowly
//! that the ring has gone round is told how many it missed, by a last event `lagged` with a [`Lagged`]
//! as its data; then the stream ends. Its `id` lets an `EventSource`, which connects again by itself, go
//! on with what is still there.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Rises by one from event to event, from 1 on; it begins anew with each fabric.
    pub id: u64,
    /// When, in UTC with milliseconds, as RFC 3339 writes it: `2026-11-30T20:35:07.042Z`.
    pub time: String,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
    /// To what: the name of a cable, a position or a switch; `host`, or `fabric` for all of it. Free of control
    /// characters.
    pub subject: String,
    /// The whole of it in one sentence of at most 400 characters. Free of control characters.
    pub text: String,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident $kind:literal $state:literal;)+) => {
        /// The kind of an [`Event`]. In JSON two words: `kind`, and where there are several of that kind,
        /// `state`, as in `"kind":"session","state":"down"`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "Words", into = "Words")]
        pub enum EventKind {
            $($(#[$doc])* $name,)+
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: &'static [EventKind] = &[$(EventKind::$name),+];

            /// The word `kind`, which also names the event in the stream.
            pub fn name(self) -> &'static str {
                match self {
                    $(EventKind::$name => $kind,)+
                }
            }

            /// The word `state`; empty where the kind says it all.
            pub fn state(self) -> &'static str {
                match self {
                    $(EventKind::$name => $state,)+
                }
            }
        }
    };
}

/// An [`EventKind`] in JSON.
#[derive(Serialize, Deserialize)]
struct Words {
    kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    state: String,
}

impl From<EventKind> for Words {
    fn from(kind: EventKind) -> Self {
        Words {
            kind: kind.name().to_owned(),
            state: kind.state().to_owned(),
        }
    }
}

impl TryFrom<Words> for EventKind {
    type Error = String;

    fn try_from(words: Words) -> Result<Self, String> {
        let mut all = EventKind::ALL.iter();
        all.find(|kind| kind.name() == words.kind && kind.state() == words.state)
            .copied()
            .ok_or_else(|| format!("unknown kind of event {} {}", words.kind, words.state))
    }
}

kinds! {
    /// A program or VM was plugged in at an end.
    Plugged "plugged" "";
    /// The last program or VM has left an end.
    Unplugged "unplugged" "";
    /// A cable was cut, restored, made a blackhole, or closed after a fault.
    Carrier "carrier" "";
    /// A lane has another impairment now.
    Impaired "impaired" "";
    /// A lane is not impaired any more.
    ImpairmentCleared "impaired" "clear";
    /// A capture began.
    Captured "capture" "";
    /// A BGP session between two switches is established.
    SessionUp "session" "up";
    /// A BGP session between two switches is not established any more.
    SessionDown "session" "down";
    /// A switch runs: its guest agent answers.
    SwitchUp "switch" "up";
    /// The QEMU of a switch has died.
    SwitchDied "switch" "died";
    /// A switch was switched off.
    SwitchOff "switch" "off";
    /// A worker or a task of the fabric has stopped, or goes on.
    Worker "worker" "";
    /// The host sends a part of the fabric's addresses elsewhere.
    RouteShadowed "route" "";
    /// Another program changed what the fabric made on the host.
    Host "host" "";
    /// The fabric is ready.
    Ready "ready" "yes";
    /// The fabric is no longer ready.
    NotReady "ready" "no";
    /// Anything else that `run` says.
    Notice "notice" "";
}

/// In the query of [`routes::EVENTS`](crate::routes::EVENTS): which events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventsRequest {
    /// Those after the one with this id; 0, or an id that the fabric has not reached: all that it has kept. `None`:
    /// those from now on. The header `Last-Event-ID` counts instead, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Whether the stream goes on with what happens later. Default: true.
    #[serde(default = "yes")]
    pub follow: bool,
}

impl Default for EventsRequest {
    fn default() -> Self {
        EventsRequest {
            since: None,
            follow: true,
        }
    }
}

fn yes() -> bool {
    true
}

/// Ends the stream of a client that was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lagged {
    /// Events that it has not got, and that the fabric does not have any more.
    pub missed: u64,
    /// Asking for the events after this id goes on with the oldest that is still there.
    pub since: u64,
}

/// What a stream of events carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Streamed {
    /// One event.
    Event(Arc<Event>),
    /// Comes last, if it comes.
    Lagged(Lagged),
}

impl Streamed {
    /// The name of the event that says that the reader was too slow.
    pub const LAGGED: &'static str = "lagged";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_words_of_each_kind_and_gives_it_back() {
        for kind in EventKind::ALL {
            let json = serde_json::to_value(kind).unwrap();
            assert_eq!(json["kind"], kind.name());
            assert_eq!(json.get("state").is_some(), !kind.state().is_empty());
            assert_eq!(serde_json::from_value::<EventKind>(json).unwrap(), *kind);
            assert_ne!(kind.name(), Streamed::LAGGED);
        }
        assert!(serde_json::from_str::<EventKind>(r#"{"kind":"session"}"#).is_err());
    }

    #[test]
    fn a_query_says_only_what_it_must() {
        let read = |query: &str| serde_urlencoded::from_str::<EventsRequest>(query);
        assert_eq!(read("").unwrap(), EventsRequest::default());
        let asked = EventsRequest {
            since: Some(7),
            follow: false,
        };
        assert_eq!(read("since=7&follow=false").unwrap(), asked);
        let written = serde_urlencoded::to_string(asked).unwrap();
        assert_eq!(read(&written).unwrap(), asked);
        assert!(read("since=-1").is_err());
    }
}
