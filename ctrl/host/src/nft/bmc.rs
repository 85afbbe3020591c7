//! What may reach a BMC: [`rules`].
//!
//! `ipmi_sim` (2.0.33) has no setting for it, and takes for authenticated what is not: the cipher
//! suites without authentication (0) or without integrity (1, 6), in which a session takes commands
//! before its password was checked, and messages of IPMI 1.5 whose header names another
//! authentication than their session. So these datagrams do not reach it, from the host's own users
//! either. What passes is in the hands of the password: HMAC for every message of IPMI 2.0, MD5 for
//! every one of IPMI 1.5.

use serde_json::{Value, json};

use super::filter;
use crate::plan::IpmiGuard;

/// The chain's name.
pub(super) const CHAIN: &str = "bmcs-only";

/// The set of addresses at which BMCs listen: the segment's and the host's own.
pub(super) fn to_bmcs(ipmi: &IpmiGuard) -> Value {
    let addresses = json!({"set": ["127.0.0.1", ipmi.address.to_string()]});
    filter::field("ip", "daddr", &addresses)
}

/// Sends a packet through the chain.
pub(super) fn check() -> Value {
    json!({"jump": {"target": CHAIN}})
}

// Bytes of the datagram, and their values (IPMI 2.0 specification, sections 13.1.3, 13.6, 13.17).
const CLASS: u32 = 3;
const CLASS_ASF: u32 = 6;
const AUTHENTICATION: u32 = 4;
const NONE: u32 = 0;
const MD5: u32 = 2;
const RMCP_PLUS: u32 = 6;
/// The payload's type in IPMI 2.0, in its low six bits.
const PAYLOAD: u32 = 5;
const OPEN_SESSION: u32 = 0x10;
/// The session, four bytes, in IPMI 1.5.
const SESSION: u32 = 9;
/// The lengths of the two proposals in an Open Session Request; the algorithm follows, in six bits.
const PROPOSAL: u32 = 8;
const PROPOSALS: [u32; 2] = [27, 35];

/// The rules of the chain. What it does not return is dropped.
pub(super) fn rules() -> Vec<Value> {
    let rule = |expr: Vec<Value>, verdict: &str| {
        let verdict = json!({verdict: null});
        filter::rule(CHAIN, expr.into_iter().chain([verdict]))
    };
    let mut session = vec![byte(AUTHENTICATION, "==", RMCP_PLUS)];
    for proposal in PROPOSALS {
        session.push(byte(proposal, "==", PROPOSAL));
        session.push(low_bits(proposal + 1, "!=", NONE));
    }
    vec![
        // An ASF ping asks whether a BMC is there, and can do nothing else.
        rule(vec![byte(CLASS, "==", CLASS_ASF)], "return"),
        rule(
            vec![
                byte(AUTHENTICATION, "==", RMCP_PLUS),
                low_bits(PAYLOAD, "!=", OPEN_SESSION),
            ],
            "return",
        ),
        rule(session, "return"),
        // Without a session, ipmi_sim answers only what is needed to begin one.
        rule(
            vec![
                byte(AUTHENTICATION, "==", NONE),
                compared(field(SESSION, 32), "==", NONE),
            ],
            "return",
        ),
        rule(vec![byte(AUTHENTICATION, "==", MD5)], "return"),
        rule(Vec::new(), "drop"),
    ]
}

fn compared(left: Value, op: &str, right: u32) -> Value {
    filter::matches(op, &left, &json!(right))
}

/// `bits` of the datagram from this byte on. The UDP header has eight bytes.
fn field(at: u32, bits: u32) -> Value {
    json!({"payload": {"base": "th", "offset": (8 + at) * 8, "len": bits}})
}

fn byte(at: u32, op: &str, value: u32) -> Value {
    compared(field(at, 8), op, value)
}

fn low_bits(at: u32, op: &str, value: u32) -> Value {
    compared(json!({"&": [field(at, 8), 0x3f]}), op, value)
}
