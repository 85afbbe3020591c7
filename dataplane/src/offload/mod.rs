//! Does the work that a sender left to others: finishes checksums and cuts super-frames into wire
//! frames, for a receiver that takes neither (`cut.rs`) and for copies of frames ([`Segmenter`]).
//! Which work a frame still needs is its [`Offloads`](crate::Offloads).

#[cfg(any(test, fuzzing))]
pub(crate) mod arbitrary;
mod checksum;
mod copies;
mod cut;
mod headers;
mod layout;
#[cfg(test)]
mod tests;

pub use copies::{Segmenter, finish_checksum, pieces};
pub(crate) use cut::{Cut, is_nested};
pub(crate) use layout::{MAX_TAGS, TAGS};
