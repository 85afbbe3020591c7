//! What happens in a fabric, written down: [`log::EventLog`].
//!
//! Most events are added where they happen: plugging (`links`, `cable_events`), changes to cables
//! (`cable_requests`), captures, and every sentence that `run` shows ([`Notices`](crate::notices::Notices)).
//! What nobody reports, because it is a state that many things make up, is seen by comparing: [`observer`]
//! looks at switches, sessions and readiness.

pub(crate) mod cables;
pub(crate) mod log;
pub(crate) mod observer;
mod ring;
