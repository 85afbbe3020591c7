//! Stub of classic BPF until the real one is here.

/// One instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A checked program.
#[derive(Debug, Clone, PartialEq)]
pub struct Program(std::sync::Arc<[Instruction]>);

/// Why it is none.
#[derive(Debug, thiserror::Error)]
#[error("no program")]
pub struct BpfError;

impl Program {
    /// # Errors
    /// When it is empty.
    pub fn new(instructions: Vec<Instruction>) -> Result<Self, BpfError> {
        if instructions.is_empty() {
            return Err(BpfError);
        }
        Ok(Program(instructions.into()))
    }

    /// The instructions.
    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }
}
