//! How a fabric comes up.
