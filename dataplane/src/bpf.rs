//! Classic BPF: [`Program`].

/// A filter over the bytes of a frame.
#[derive(Clone, PartialEq, Debug)]
pub struct Program(());
