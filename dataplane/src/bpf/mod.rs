//! Filters: classic BPF programs as libpcap compiles them from a tcpdump expression
//! ([`Program`]), checked once and then run on frames in any memory.
//!
//! The machine is that of McCanne and Jacobson's paper (1993): an accumulator, an index
//! register, sixteen words of scratch memory, loads from the frame in network byte order. A load
//! past the frame's end and a division by a register that is zero end the program without a match.
//! VLAN tags are in the frame as on the wire. What the kernel notes beside a frame (its direction, its
//! interface) is not here: a program that loads it (`inbound`, `outbound`, `ifindex`) is refused, as it
//! could match no frame.

#[cfg(any(test, fuzzing))]
pub(crate) mod arbitrary;
mod op;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::frame::FrameBytes;
use op::{Arithmetic, Op, Operand, Size, Test};

/// Most instructions of a program, the same limit as in Linux (BPF_MAXINSNS).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Words of scratch memory (BPF_MEMWORDS).
const SCRATCH: usize = 16;

/// Bytes of a frame that are copied before a program runs: enough for two addresses, two tags, IPv6
/// and the transport's ports, and so for nearly every load.
const HEAD: usize = 128;

/// One instruction, as in `struct bpf_insn` of libpcap and as `tcpdump -ddd` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instruction {
    /// The operation code.
    pub code: u16,
    /// Instructions that a jump skips when its test holds.
    pub jt: u8,
    /// Instructions that a jump skips when it does not.
    pub jf: u8,
    /// A constant, an offset in the frame or the index of a scratch word, depending on the code.
    pub k: u32,
}

/// Why a program is refused. Instructions are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BpfError {
    /// The program has no instruction.
    #[error("a filter of no instructions: leave it out to match every frame")]
    Empty,
    /// More instructions than [`MAX_INSTRUCTIONS`].
    #[error(
        "a filter of {0} instructions, more than {MAX_INSTRUCTIONS}: write a shorter expression"
    )]
    TooLong(usize),
    /// Classic BPF does not have this code.
    #[error(
        "instruction {at}: {code:#06x} is not a code of classic BPF: send what libpcap compiles for \
         Ethernet (`tcpdump -y EN10MB -ddd …`)"
    )]
    UnknownCode {
        /// The index of the instruction.
        at: usize,
        /// The code of that instruction.
        code: u16,
    },
    /// A load from beyond every frame, where Linux has what the kernel notes beside a frame.
    #[error(
        "instruction {at} asks for the direction or the interface that a kernel notes beside a frame: \
         on a cable, `--from PORT` chooses the direction, in place of inbound, outbound and ifindex"
    )]
    BesideFrame {
        /// The index of the instruction.
        at: usize,
    },
    /// A jump backwards, as libpcap compiles `protochain`.
    #[error(
        "instruction {at} jumps back, and a filter has no loops: in place of protochain write proto, \
         which looks at the first header alone (`ip6 proto 6`)"
    )]
    JumpBack {
        /// The index of the instruction.
        at: usize,
    },
    /// A jump past the last instruction.
    #[error("instruction {at} jumps to {to}, past the end: send the whole program")]
    JumpOutside {
        /// The index of the instruction.
        at: usize,
        /// The index that it jumps to.
        to: u64,
    },
    /// The index of a scratch word is out of range.
    #[error("instruction {at}: scratch memory has words 0 to 15, not {index}")]
    NoSuchScratchWord {
        /// The index of the instruction.
        at: usize,
        /// The index of the word.
        index: u32,
    },
    /// A division by the constant 0.
    #[error("instruction {at} divides by zero: take that division out of the expression")]
    DivisionByZero {
        /// The index of the instruction.
        at: usize,
    },
    /// The last instruction does not end the program.
    #[error("the last instruction does not return: send the whole program")]
    NoReturn,
}

/// A filter that is known to terminate: every jump goes forward and stays inside the program, and the
/// last instruction returns. A clone shares its instructions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    instructions: Arc<[Instruction]>,
    /// The same instructions, decoded.
    ops: Arc<[Op]>,
}

impl Program {
    /// Checks a program from an untrusted source.
    ///
    /// # Errors
    /// The first fault; see [`BpfError`].
    pub fn new(instructions: Vec<Instruction>) -> Result<Self, BpfError> {
        if instructions.len() > MAX_INSTRUCTIONS {
            return Err(BpfError::TooLong(instructions.len()));
        }
        let ops = instructions
            .iter()
            .enumerate()
            .map(|(at, instruction)| Op::parse(*instruction, at, instructions.len()))
            .collect::<Result<Arc<[Op]>, _>>()?;
        match ops.last() {
            None => Err(BpfError::Empty),
            Some(Op::Return(_) | Op::ReturnA) => Ok(Program {
                instructions: instructions.into(),
                ops,
            }),
            Some(_) => Err(BpfError::NoReturn),
        }
    }

    /// The instructions as they were given to [`Program::new`].
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// Whether the frame, from the destination address on, matches.
    pub fn matches(&self, frame: &[u8]) -> bool {
        self.run(frame) != 0
    }

    /// What the program returns: 0 for a frame that does not match. In programs for capturing
    /// anything else is the number of bytes wanted.
    pub(crate) fn run(&self, frame: &(impl FrameBytes + ?Sized)) -> u32 {
        let mut head = [0; HEAD];
        let filled = frame.copy_out(0, &mut head);
        let packet = Packet {
            head: &head[..filled],
            frame,
            len: frame.len() as u32,
        };
        // `None`: a division by zero, or a load past the frame's end.
        Machine::default().run(&self.ops, &packet).unwrap_or(0)
    }
}

/// A frame with a copy of its beginning. A guest may change its memory at any time: so nothing here
/// borrows from it, and each load copies.
struct Packet<'a, F: ?Sized> {
    head: &'a [u8],
    frame: &'a F,
    len: u32,
}

impl<F: FrameBytes + ?Sized> Packet<'_, F> {
    /// The big-endian number at `at`. `None` when it is not entirely inside the frame.
    #[inline]
    fn load(&self, at: u64, size: Size) -> Option<u32> {
        match size {
            Size::Word => self.bytes(at).map(u32::from_be_bytes),
            Size::Half => self.bytes(at).map(|it| u16::from_be_bytes(it).into()),
            Size::Byte => self.bytes(at).map(|[it]| it.into()),
        }
    }

    #[inline]
    fn bytes<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let at = usize::try_from(at).ok()?;
        match self.head.get(at..).and_then(<[u8]>::first_chunk) {
            Some(bytes) => Some(*bytes),
            None => self.far_bytes(at),
        }
    }

    #[cold]
    fn far_bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let inside = at.checked_add(N)? <= self.frame.len();
        (inside && self.frame.copy_out(at, &mut bytes) == N).then_some(bytes)
    }
}

#[derive(Default)]
struct Machine {
    a: u32,
    x: u32,
    scratch: [u32; SCRATCH],
}

impl Machine {
    /// Terminates, because each turn continues at a later instruction. `None` when a program ends
    /// without returning.
    fn run(&mut self, ops: &[Op], packet: &Packet<'_, impl FrameBytes + ?Sized>) -> Option<u32> {
        let mut next = 0;
        loop {
            let op = *ops.get(next)?;
            next += 1;
            match op {
                Op::Load(size, at) => self.a = packet.load(at.into(), size)?,
                Op::LoadIndexed(size, at) => {
                    self.a = packet.load(u64::from(at) + u64::from(self.x), size)?;
                }
                Op::LoadHeaderLength(at) => {
                    self.x = (packet.load(at.into(), Size::Byte)? & 0xf) * 4;
                }
                Op::Set(k) => self.a = k,
                Op::SetX(k) => self.x = k,
                Op::Length => self.a = packet.len,
                Op::LengthX => self.x = packet.len,
                Op::Recall(word) => self.a = self.scratch[word.get()],
                Op::RecallX(word) => self.x = self.scratch[word.get()],
                Op::Store(word) => self.scratch[word.get()] = self.a,
                Op::StoreX(word) => self.scratch[word.get()] = self.x,
                Op::Compute(how, by) => self.a = compute(how, self.a, self.value(by))?,
                Op::Negate => self.a = self.a.wrapping_neg(),
                Op::Jump(skip) => next += skip as usize,
                Op::Branch(test, with, yes, no) => {
                    let holds = holds(test, self.a, self.value(with));
                    next += usize::from(if holds { yes } else { no });
                }
                Op::Return(k) => return Some(k),
                Op::ReturnA => return Some(self.a),
                Op::CopyToX => self.x = self.a,
                Op::CopyFromX => self.a = self.x,
            }
        }
    }

    #[inline]
    fn value(&self, operand: Operand) -> u32 {
        match operand {
            Operand::K(k) => k,
            Operand::X => self.x,
        }
    }
}

/// `None` for a division by zero.
#[inline]
fn compute(how: Arithmetic, a: u32, b: u32) -> Option<u32> {
    Some(match how {
        Arithmetic::Add => a.wrapping_add(b),
        Arithmetic::Sub => a.wrapping_sub(b),
        Arithmetic::Mul => a.wrapping_mul(b),
        Arithmetic::Div => a.checked_div(b)?,
        Arithmetic::Mod => a.checked_rem(b)?,
        Arithmetic::Or => a | b,
        Arithmetic::And => a & b,
        Arithmetic::Xor => a ^ b,
        // A shift by 32 or more leaves 0, also on CPUs that would shift by the remainder.
        Arithmetic::Lsh => a.checked_shl(b).unwrap_or(0),
        Arithmetic::Rsh => a.checked_shr(b).unwrap_or(0),
    })
}

#[inline]
fn holds(test: Test, a: u32, b: u32) -> bool {
    match test {
        Test::Equal => a == b,
        Test::Greater => a > b,
        Test::GreaterOrEqual => a >= b,
        Test::AnyBit => a & b != 0,
    }
}
