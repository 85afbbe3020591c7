//! Programs that are refused or end, whatever they are.

use super::{BpfError, Instruction, MAX_INSTRUCTIONS, Program};
use crate::arbitrary::Bytes;
use crate::frame::FrameBytes;

/// Codes that there are, so that random programs get somewhere.
const CODES: [u16; 48] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0c, 0x14, 0x15, 0x16, 0x1c, 0x1d, 0x20, 0x24,
    0x25, 0x28, 0x2c, 0x2d, 0x30, 0x34, 0x35, 0x3c, 0x3d, 0x40, 0x44, 0x45, 0x48, 0x4c, 0x4d, 0x50,
    0x54, 0x5c, 0x60, 0x61, 0x64, 0x6c, 0x74, 0x7c, 0x80, 0x81, 0x84, 0x87, 0x94, 0x9c, 0xa4, 0xb1,
];

/// Bytes: how many instructions, those, and a frame.
pub(crate) fn drive(mut bytes: Bytes<'_>) {
    let count = usize::from(bytes.u8() % 32);
    let mut instructions: Vec<_> = (0..count).map(|_| instruction(&mut bytes)).collect();
    if bytes.u8() & 3 != 0 {
        instructions.push(Instruction {
            code: 0x16,
            jt: 0,
            jf: 0,
            k: 0,
        });
    }
    let how = bytes.u8();
    let frame = bytes.take(1000);
    let program = match Program::new(instructions.clone()) {
        Ok(program) => program,
        Err(error) => return assert!(is_just(&error, &instructions), "{error}"),
    };
    assert_eq!(program.instructions(), instructions);
    let whole = program.run(frame);
    assert_eq!(program.matches(frame), whole != 0);
    // Where the bytes lie makes no difference.
    let pieces = Pieces(frame, usize::from(how % 64) + 1);
    assert_eq!(program.run(&pieces), whole);
}

fn instruction(bytes: &mut Bytes<'_>) -> Instruction {
    let how = bytes.u8();
    let code = match how & 7 {
        0 => bytes.u16(),
        _ => bytes.pick(&CODES),
    };
    let k = match how >> 6 {
        0 => bytes.u32(),
        1 => u32::MAX - u32::from(bytes.u8()),
        2 => u32::from(bytes.u8() % 18),
        _ => u32::from(bytes.u8()),
    };
    let skip = |byte: u8| if how & 8 == 0 { byte % 4 } else { byte };
    Instruction {
        code,
        jt: skip(bytes.u8()),
        jf: skip(bytes.u8()),
        k,
    }
}

/// Whether a program really has the fault that it was refused for.
fn is_just(error: &BpfError, program: &[Instruction]) -> bool {
    let has =
        |at: &usize, fault: &dyn Fn(&Instruction) -> bool| program.get(*at).is_some_and(fault);
    match error {
        BpfError::Empty => program.is_empty(),
        BpfError::TooLong(count) => *count == program.len() && *count > MAX_INSTRUCTIONS,
        BpfError::UnknownCode { at, code } => {
            has(at, &|it| it.code == *code) && !CODES.contains(code)
        }
        BpfError::JumpOutside { at, to } => {
            let skips = |it: &Instruction| match it.code {
                0x05 => [it.k, it.k],
                _ => [it.jt.into(), it.jf.into()],
            };
            let goes = |skip| *at as u64 + 1 + u64::from(skip) == *to;
            *to >= program.len() as u64
                && has(at, &|it| {
                    it.code & 7 == 5 && skips(it).into_iter().any(goes)
                })
        }
        BpfError::NoSuchScratchWord { at, index } => {
            let codes = [0x02, 0x03, 0x60, 0x61];
            *index > 15 && has(at, &|it| it.k == *index && codes.contains(&it.code))
        }
        BpfError::DivisionByZero { at } => {
            has(at, &|it| it.k == 0 && [0x34, 0x94].contains(&it.code))
        }
        BpfError::BesideFrame { at } => has(at, &|it| {
            it.k > i32::MAX as u32 && [0x20, 0x28, 0x30].contains(&it.code)
        }),
        BpfError::JumpBack { at } => has(at, &|it| it.k > i32::MAX as u32 && it.code == 0x05),
        BpfError::NoReturn => program.last().is_some_and(|it| it.code & 7 != 6),
    }
}

/// A frame in pieces of this many bytes.
struct Pieces<'a>(&'a [u8], usize);

impl FrameBytes for Pieces<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn copy_out(&self, at: usize, to: &mut [u8]) -> usize {
        let mut done = 0;
        while done < to.len() && at + done < self.0.len() {
            let end = to.len().min(done + self.1);
            done += self.0.copy_out(at + done, &mut to[done..end]);
        }
        done
    }
}
