//! Why a BGP session ends (RFC 4271 section 4.5, and the IANA registry of BGP error codes).

use std::fmt;

use crate::bytes::Cursor;
use model::printable;

/// A shutdown message (RFC 9003) is truncated to this many characters.
const LONGEST_REASON: usize = 128;

/// A NOTIFICATION: its sender closes the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The error code of RFC 4271 section 4.5.
    pub code: u8,
    /// What more is known of the error, by its code; 0: nothing.
    pub subcode: u8,
    /// The administrator's message (RFC 9003), escaped; empty if there is none.
    pub reason: String,
}

impl Notification {
    /// The code for a peer that sent nothing for longer than the hold time.
    pub(crate) const HOLD_TIMER_EXPIRED: u8 = 4;

    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let mut left = Cursor(body);
        let code = left.u8()?;
        let subcode = left.u8()?;
        let mut reason = String::new();
        // Of all errors only administrative shutdown and reset carry a text.
        if code == 6 && matches!(subcode, 2 | 4) {
            let length = left.u8().unwrap_or(0);
            reason = printable::head(left.up_to(length.into()), LONGEST_REASON);
        }
        Some(Notification {
            code,
            subcode,
            reason,
        })
    }

    /// The name of the code in the IANA registry.
    pub(crate) fn code_name(&self) -> &'static str {
        match self.code {
            1 => "Message Header Error",
            2 => "OPEN Message Error",
            3 => "UPDATE Message Error",
            Self::HOLD_TIMER_EXPIRED => "Hold Timer Expired",
            5 => "Finite State Machine Error",
            6 => "Cease",
            7 => "ROUTE-REFRESH Message Error",
            8 => "Send Hold Timer Expired",
            _ => "unknown error",
        }
    }

    /// The name of the subcode in the IANA registry, if it has one.
    pub(crate) fn subcode_name(&self) -> Option<&'static str> {
        Some(match (self.code, self.subcode) {
            (1, 1) => "Connection Not Synchronized",
            (1, 2) => "Bad Message Length",
            (1, 3) => "Bad Message Type",
            (2, 1) => "Unsupported Version Number",
            (2, 2) => "Bad Peer AS",
            (2, 3) => "Bad BGP Identifier",
            (2, 4) => "Unsupported Optional Parameter",
            (2, 6) => "Unacceptable Hold Time",
            (2, 7) => "Unsupported Capability",
            (2, 11) => "Role Mismatch",
            (3, 1) => "Malformed Attribute List",
            (3, 2) => "Unrecognized Well-known Attribute",
            (3, 3) => "Missing Well-known Attribute",
            (3, 4) => "Attribute Flags Error",
            (3, 5) => "Attribute Length Error",
            (3, 6) => "Invalid ORIGIN Attribute",
            (3, 8) => "Invalid NEXT_HOP Attribute",
            (3, 9) => "Optional Attribute Error",
            (3, 10) => "Invalid Network Field",
            (3, 11) => "Malformed AS_PATH",
            (5, 1) => "Unexpected Message in OpenSent",
            (5, 2) => "Unexpected Message in OpenConfirm",
            (5, 3) => "Unexpected Message in Established",
            (6, 1) => "Maximum Number of Prefixes Reached",
            (6, 2) => "Administrative Shutdown",
            (6, 3) => "Peer De-configured",
            (6, 4) => "Administrative Reset",
            (6, 5) => "Connection Rejected",
            (6, 6) => "Other Configuration Change",
            (6, 7) => "Connection Collision Resolution",
            (6, 8) => "Out of Resources",
            (6, 9) => "Hard Reset",
            (6, 10) => "BFD Down",
            (7, 1) => "Invalid Message Length",
            _ => return None,
        })
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.code, self.subcode, self.code_name())?;
        if let Some(name) = self.subcode_name() {
            write!(f, ", {name}")?;
        }
        if !self.reason.is_empty() {
            write!(f, ": {}", self.reason)?;
        }
        Ok(())
    }
}
