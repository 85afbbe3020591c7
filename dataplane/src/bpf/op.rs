//! Decoded instructions: [`Op`]. An instruction that cannot be run cannot be represented.

use super::{BpfError, Instruction, SCRATCH};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Load(Size, u32),
    /// From the offset that is the sum of index register and constant.
    LoadIndexed(Size, u32),
    /// Loads the length of an IPv4 header, in bytes, from its first byte to the index register.
    LoadHeaderLength(u32),
    Set(u32),
    SetX(u32),
    Length,
    LengthX,
    Recall(ScratchIndex),
    RecallX(ScratchIndex),
    Store(ScratchIndex),
    StoreX(ScratchIndex),
    Compute(Arithmetic, Operand),
    Negate,
    Jump(u32),
    /// The test, its operand, and how many instructions are skipped when it holds or does not hold.
    Branch(Test, Operand, u8, u8),
    Return(u32),
    ReturnA,
    CopyToX,
    CopyFromX,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Word,
    Half,
    Byte,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operand {
    K(u32),
    X,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Or,
    And,
    Lsh,
    Rsh,
    Mod,
    Xor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBit,
}

/// The index of a word in scratch memory, below [`SCRATCH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScratchIndex(u8);

impl ScratchIndex {
    #[inline]
    pub(super) fn get(self) -> usize {
        usize::from(self.0) % SCRATCH
    }
}

/// Classes (the code's lowest three bits).
const LD: u16 = 0x00;
const LDX: u16 = 0x01;
const ST: u16 = 0x02;
const STX: u16 = 0x03;
const ALU: u16 = 0x04;
const JMP: u16 = 0x05;
const RET: u16 = 0x06;
const MISC: u16 = 0x07;

/// Sizes and modes of loads.
const W: u16 = 0x00;
const H: u16 = 0x08;
const B: u16 = 0x10;
const IMM: u16 = 0x00;
const ABS: u16 = 0x20;
const IND: u16 = 0x40;
const MEM: u16 = 0x60;
const LEN: u16 = 0x80;
const MSH: u16 = 0xa0;

/// Where the second operand of arithmetic and tests comes from.
const X: u16 = 0x08;

impl Op {
    /// Decodes the instruction at `at` of a program of `count`.
    pub(super) fn parse(
        instruction: Instruction,
        at: usize,
        count: usize,
    ) -> Result<Self, BpfError> {
        let Instruction { code, jt, jf, k } = instruction;
        let unknown = BpfError::UnknownCode { at, code };
        match code & 7 {
            LD => load(code, k, at)?.ok_or(unknown),
            LDX => load_x(code, k, at)?.ok_or(unknown),
            ST if code == ST => Ok(Op::Store(scratch_index(k, at)?)),
            STX if code == STX => Ok(Op::StoreX(scratch_index(k, at)?)),
            ALU => alu(code, k, at)?.ok_or(unknown),
            JMP => match jump(code, jt, jf, k).ok_or(unknown)? {
                Op::Jump(skip) if skip.cast_signed() < 0 => Err(BpfError::JumpBack { at }),
                op => inside(op, at, count),
            },
            RET => match code - RET {
                0x00 => Ok(Op::Return(k)),
                0x10 => Ok(Op::ReturnA),
                _ => Err(unknown),
            },
            MISC => match code - MISC {
                0x00 => Ok(Op::CopyToX),
                0x80 => Ok(Op::CopyFromX),
                _ => Err(unknown),
            },
            _ => Err(unknown),
        }
    }
}

fn load(code: u16, k: u32, at: usize) -> Result<Option<Op>, BpfError> {
    const WORD: u16 = LD | W;
    const IMMEDIATE: u16 = WORD | IMM;
    const LENGTH: u16 = WORD | LEN;
    const MEMORY: u16 = WORD | MEM;
    Ok(Some(match code {
        IMMEDIATE => Op::Set(k),
        LENGTH => Op::Length,
        MEMORY => Op::Recall(scratch_index(k, at)?),
        _ => {
            let size = match code & 0x18 {
                W => Size::Word,
                H => Size::Half,
                B => Size::Byte,
                _ => return Ok(None),
            };
            match code & !0x18 {
                // Offsets that are negative to the kernel (SKF_AD_OFF, SKF_NET_OFF, SKF_LL_OFF).
                ABS if k.cast_signed() < 0 => return Err(BpfError::BesideFrame { at }),
                ABS => Op::Load(size, k),
                IND => Op::LoadIndexed(size, k),
                _ => return Ok(None),
            }
        }
    }))
}

fn load_x(code: u16, k: u32, at: usize) -> Result<Option<Op>, BpfError> {
    const IMMEDIATE: u16 = LDX | W | IMM;
    const LENGTH: u16 = LDX | W | LEN;
    const MEMORY: u16 = LDX | W | MEM;
    const HEADER: u16 = LDX | B | MSH;
    Ok(Some(match code {
        IMMEDIATE => Op::SetX(k),
        LENGTH => Op::LengthX,
        MEMORY => Op::RecallX(scratch_index(k, at)?),
        HEADER => Op::LoadHeaderLength(k),
        _ => return Ok(None),
    }))
}

fn alu(code: u16, k: u32, at: usize) -> Result<Option<Op>, BpfError> {
    let how = match code & !(7 | X) {
        0x00 => Arithmetic::Add,
        0x10 => Arithmetic::Sub,
        0x20 => Arithmetic::Mul,
        0x30 => Arithmetic::Div,
        0x40 => Arithmetic::Or,
        0x50 => Arithmetic::And,
        0x60 => Arithmetic::Lsh,
        0x70 => Arithmetic::Rsh,
        0x80 if code & X == 0 => return Ok(Some(Op::Negate)),
        0x90 => Arithmetic::Mod,
        0xa0 => Arithmetic::Xor,
        _ => return Ok(None),
    };
    let by = operand(code, k);
    if matches!(how, Arithmetic::Div | Arithmetic::Mod) && by == Operand::K(0) {
        return Err(BpfError::DivisionByZero { at });
    }
    Ok(Some(Op::Compute(how, by)))
}

fn jump(code: u16, jt: u8, jf: u8, k: u32) -> Option<Op> {
    let test = match code & !(7 | X) {
        0x00 if code & X == 0 => return Some(Op::Jump(k)),
        0x10 => Test::Equal,
        0x20 => Test::Greater,
        0x30 => Test::GreaterOrEqual,
        0x40 => Test::AnyBit,
        _ => return None,
    };
    Some(Op::Branch(test, operand(code, k), jt, jf))
}

/// The jump, if it does not leave the program of `count` instructions.
fn inside(op: Op, at: usize, count: usize) -> Result<Op, BpfError> {
    let longest = match op {
        Op::Jump(skip) => skip,
        Op::Branch(_, _, yes, no) => yes.max(no).into(),
        _ => 0,
    };
    let to = at as u64 + 1 + u64::from(longest);
    if to < count as u64 {
        Ok(op)
    } else {
        Err(BpfError::JumpOutside { at, to })
    }
}

fn operand(code: u16, k: u32) -> Operand {
    if code & X == 0 {
        Operand::K(k)
    } else {
        Operand::X
    }
}

fn scratch_index(k: u32, at: usize) -> Result<ScratchIndex, BpfError> {
    if (k as usize) < SCRATCH {
        Ok(ScratchIndex(k as u8))
    } else {
        Err(BpfError::NoSuchScratchWord { at, index: k })
    }
}
