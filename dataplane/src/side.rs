//! The two ends of a cable: [`Side`].

/// Which end of a cable. A lane is named by the side where its frames enter.
///
/// `side as usize` is 0 or 1: the place of an end or of a lane in an array of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The first end.
    A,
    /// The second end.
    B,
}

impl Side {
    /// Both sides, in the order of their numbers.
    pub const BOTH: [Side; 2] = [Side::A, Side::B];

    /// The end that is not this one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }

    /// `a` or `b`, as in the names of a patch's ports (`wire:a`).
    pub fn name(self) -> &'static str {
        match self {
            Side::A => "a",
            Side::B => "b",
        }
    }
}
