//! Classic BPF. Stub until branch taps is merged.
#![allow(missing_docs)]

use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Program(Arc<[Instruction]>);

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct BpfError(String);

impl Program {
    pub fn new(instructions: Vec<Instruction>) -> Result<Self, BpfError> {
        if instructions.is_empty() {
            return Err(BpfError("the filter has no instructions".into()));
        }
        Ok(Program(instructions.into()))
    }

    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }
}
