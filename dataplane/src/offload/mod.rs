//! What a sender may leave to others: unfinished checksums, and super-frames that are to be
//! cut into wire frames ([`Offloads`]); and doing it for a receiver that does not (`cut.rs`), or
//! for copies of frames ([`Segmenter`]).

#[cfg(any(test, fuzzing))]
pub(crate) mod arbitrary;
mod checksum;
mod copies;
mod cut;
mod headers;
#[cfg(test)]
mod tests;

pub use copies::{Segmenter, finish_checksum, pieces};
pub(crate) use cut::Cut;
