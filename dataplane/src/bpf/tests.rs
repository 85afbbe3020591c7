use super::*;

fn op(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// A program in the form that `tcpdump -ddd` prints, without the count in front.
fn program(lines: &str) -> Program {
    let number = |text: &str| text.parse::<u32>().expect("a number");
    let instructions = lines.lines().map(|line| {
        let words: Vec<u32> = line.split_whitespace().map(number).collect();
        let [code, jt, jf, k] = words[..] else {
            panic!("four numbers: {line}");
        };
        op(code as u16, jt as u8, jf as u8, k)
    });
    Program::new(instructions.collect()).expect("a good program")
}

/// What a program returns, made of these and `ret a`.
fn value(instructions: &[Instruction], frame: &[u8]) -> u32 {
    let mut all = instructions.to_vec();
    all.push(op(0x16, 0, 0, 0));
    Program::new(all).expect("a good program").run(frame)
}

const LDW_ABS: u16 = 0x20;
const LDH_ABS: u16 = 0x28;
const LDB_ABS: u16 = 0x30;
const LDW_IND: u16 = 0x40;
const LDW_IMM: u16 = 0x00;
const LDX_IMM: u16 = 0x01;
const RET_K: u16 = 0x06;
const RET_A: u16 = 0x16;
const JEQ_K: u16 = 0x15;
const JA: u16 = 0x05;

/// `tcp port 179`.
const BGP: &str = "40 0 0 12
21 0 6 34525
48 0 0 20
21 0 15 6
40 0 0 54
21 12 0 179
40 0 0 56
21 10 11 179
21 0 10 2048
48 0 0 23
21 0 8 6
40 0 0 20
69 6 0 8191
177 0 0 14
72 0 0 14
21 2 0 179
72 0 0 16
21 0 1 179
6 0 0 262144
6 0 0 0";

fn tcp4(source: u16, destination: u16, options: u8) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45 + options, 0xc0, 0, 60, 0, 1, 0x40, 0, 1, 6, 0, 0]);
    frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(vec![0; usize::from(options) * 4]);
    frame.extend(source.to_be_bytes());
    frame.extend(destination.to_be_bytes());
    frame.extend([0; 40]);
    frame
}

#[test]
fn only_bgp_matches() {
    let bgp = program(BGP);
    assert!(bgp.matches(&tcp4(179, 40_000, 0)));
    assert!(bgp.matches(&tcp4(40_000, 179, 10)));
    assert!(!bgp.matches(&tcp4(40_000, 180, 0)));
    assert!(!bgp.matches(&[]));
    let mut fragment = tcp4(179, 179, 0);
    fragment[21] = 1;
    assert!(!bgp.matches(&fragment));
    let mut six = vec![2; 12];
    six.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 1]);
    six.extend([0xfe; 32]);
    six.extend([0x99, 0x99, 0, 179]);
    assert!(bgp.matches(&six));
    assert!(!bgp.matches(&six[..57]));
}

#[test]
fn loads_are_big_endian_and_inside() {
    let mut frame: Vec<u8> = (0..200).collect();
    for (code, at, wanted) in [
        (LDW_ABS, 0, 0x0001_0203),
        (LDW_ABS, 124, 0x7c7d_7e7f),
        (LDW_ABS, 126, 0x7e7f_8081),
        (LDW_ABS, 196, 0xc4c5_c6c7),
        (LDW_ABS, 197, 0),
        (LDH_ABS, 127, 0x7f80),
        (LDH_ABS, 198, 0xc6c7),
        (LDH_ABS, 199, 0),
        (LDB_ABS, 199, 0xc7),
        (LDB_ABS, 200, 0),
        (LDW_ABS, i32::MAX.cast_unsigned(), 0),
    ] {
        assert_eq!(
            value(&[op(code, 0, 0, at)], &frame),
            wanted,
            "{code:#x} {at}"
        );
    }
    let indexed = |x, k| value(&[op(LDX_IMM, 0, 0, x), op(LDW_IND, 0, 0, k)], &frame);
    assert_eq!(indexed(100, 96), 0xc4c5_c6c7);
    assert_eq!(indexed(100, 97), 0);
    assert_eq!(indexed(u32::MAX, 5), 0);
    // The length of an IP header; the index register to the accumulator.
    frame[14] = 0x4f;
    let header = [op(0xb1, 0, 0, 14), op(0x87, 0, 0, 0)];
    assert_eq!(value(&header, &frame), 60);
    assert_eq!(value(&[op(0x80, 0, 0, 0)], &frame), 200);
    assert_eq!(value(&[op(0x81, 0, 0, 0), op(0x87, 0, 0, 0)], &frame), 200);
}

#[test]
fn arithmetic_wraps_and_divides() {
    let with = |code: u16, a: u32, b: u32| {
        let by_k = value(&[op(LDW_IMM, 0, 0, a), op(code, 0, 0, b)], &[]);
        let by_x = [
            op(LDX_IMM, 0, 0, b),
            op(LDW_IMM, 0, 0, a),
            op(code | 8, 0, 0, 0),
        ];
        assert_eq!(value(&by_x, &[]), by_k);
        by_k
    };
    assert_eq!(with(0x04, u32::MAX, 2), 1);
    assert_eq!(with(0x14, 1, 2), u32::MAX);
    assert_eq!(with(0x24, 1 << 31, 2), 0);
    assert_eq!(with(0x34, 7, 2), 3);
    assert_eq!(with(0x94, 7, 4), 3);
    assert_eq!(with(0x44, 5, 2), 7);
    assert_eq!(with(0x54, 7, 5), 5);
    assert_eq!(with(0xa4, 7, 5), 2);
    assert_eq!(with(0x64, 1, 31), 1 << 31);
    assert_eq!(with(0x64, 1, 32), 0);
    assert_eq!(with(0x74, 1 << 31, 31), 1);
    assert_eq!(with(0x74, 1 << 31, 255), 0);
    assert_eq!(
        value(&[op(LDW_IMM, 0, 0, 1), op(0x84, 0, 0, 0)], &[]),
        u32::MAX
    );
    for code in [0x3c, 0x9c] {
        let by_zero = [op(LDW_IMM, 0, 0, 7), op(code, 0, 0, 0), op(RET_K, 0, 0, 9)];
        assert_eq!(value(&by_zero, &[]), 0, "no match");
    }
}

#[test]
fn scratch_memory_keeps_what_it_is_given() {
    let kept = [
        op(LDW_IMM, 0, 0, 3),
        op(0x02, 0, 0, 15),
        op(LDX_IMM, 0, 0, 4),
        op(0x03, 0, 0, 0),
        op(0x61, 0, 0, 15), // x = 3
        op(0x60, 0, 0, 0),  // a = 4
        op(0x1c, 0, 0, 0),  // a -= x
    ];
    assert_eq!(value(&kept, &[]), 1);
    assert_eq!(value(&[op(0x60, 0, 0, 9)], &[]), 0);
    // To the index register and back.
    let there = [op(LDW_IMM, 0, 0, 6), op(0x07, 0, 0, 0), op(0x0c, 0, 0, 0)];
    assert_eq!(value(&there, &[]), 12);
}

#[test]
fn tests_compare_unsigned() {
    let taken = |code: u16, a: u32, k: u32| {
        let by_k = [
            op(LDX_IMM, 0, 0, k),
            op(LDW_IMM, 0, 0, a),
            op(code, 1, 0, k),
            op(RET_K, 0, 0, 0),
            op(LDW_IMM, 0, 0, 1),
        ];
        let mut by_x = by_k;
        by_x[2].code |= 8;
        assert_eq!(value(&by_k, &[]), value(&by_x, &[]));
        value(&by_k, &[]) == 1
    };
    assert!(taken(JEQ_K, 5, 5) && !taken(JEQ_K, 5, 6));
    assert!(taken(0x25, u32::MAX, 1) && !taken(0x25, 1, 1));
    assert!(taken(0x35, 1, 1) && !taken(0x35, 0, 1));
    assert!(taken(0x45, 6, 2) && !taken(0x45, 6, 9));
}

#[test]
fn bad_programs_are_refused_with_a_reason() {
    let ret = op(RET_K, 0, 0, 1);
    let refused = |instructions: &[Instruction]| {
        Program::new(instructions.to_vec()).expect_err("a bad program")
    };
    assert_eq!(refused(&[]), BpfError::Empty);
    let long = vec![ret; MAX_INSTRUCTIONS + 1];
    assert_eq!(refused(&long), BpfError::TooLong(MAX_INSTRUCTIONS + 1));
    assert!(Program::new(long[1..].to_vec()).is_ok());
    assert_eq!(refused(&[op(LDW_IMM, 0, 0, 1)]), BpfError::NoReturn);
    assert_eq!(
        refused(&[op(JEQ_K, 0, 1, 1), ret]),
        BpfError::JumpOutside { at: 0, to: 2 }
    );
    let far = i32::MAX.cast_unsigned();
    assert_eq!(
        refused(&[ret, op(JA, 0, 0, far), ret]),
        BpfError::JumpOutside {
            at: 1,
            to: u64::from(far) + 2
        }
    );
    for back in [u32::MAX, far + 1] {
        assert_eq!(
            refused(&[ret, op(JA, 0, 0, back), ret]),
            BpfError::JumpBack { at: 1 }
        );
    }
    // Linux's SKF_AD_OFF + SKF_AD_PKTTYPE, its SKF_LL_OFF, and the first and last such offset.
    for beside in [0xffff_f004, 0xffe0_0000, far + 1, u32::MAX] {
        for code in [LDW_ABS, LDH_ABS, LDB_ABS] {
            assert_eq!(
                refused(&[ret, op(code, 0, 0, beside), ret]),
                BpfError::BesideFrame { at: 1 }
            );
        }
    }
    // A jump as the last instruction has nowhere to go.
    assert_eq!(
        refused(&[op(JA, 0, 0, 0)]),
        BpfError::JumpOutside { at: 0, to: 1 }
    );
    for code in [0x02, 0x03, 0x60, 0x61] {
        assert_eq!(
            refused(&[op(code, 0, 0, 16), ret]),
            BpfError::NoSuchScratchWord { at: 0, index: 16 }
        );
    }
    for code in [0x34, 0x94] {
        assert_eq!(
            refused(&[ret, op(code, 0, 0, 0), ret]),
            BpfError::DivisionByZero { at: 1 }
        );
    }
}

/// Of all 65,536 codes, exactly those of the paper, and MOD and XOR, which Linux and libpcap added.
#[test]
fn every_other_code_is_unknown() {
    let mut known: Vec<u16> = vec![
        0x00, 0x80, 0x60, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, // ld
        0x01, 0x81, 0x61, 0xb1, // ldx
        0x02, 0x03, // st
        0x84, 0x05, // neg, ja
        0x06, 0x16, // ret
        0x07, 0x87, // tax, txa
    ];
    for how in [0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xa0] {
        known.extend([how | 0x04, how | 0x0c]);
    }
    for test in [0x10, 0x20, 0x30, 0x40] {
        known.extend([test | 0x05, test | 0x0d]);
    }
    known.sort_unstable();
    let ret = op(RET_A, 0, 0, 0);
    let taken: Vec<u16> = (0..=u16::MAX)
        .filter(|code| Program::new(vec![op(*code, 0, 0, 1), ret, ret]).is_ok())
        .collect();
    assert_eq!(taken, known);
    let refused = Program::new(vec![op(0x99, 0, 0, 0)]);
    assert_eq!(refused, Err(BpfError::UnknownCode { at: 0, code: 0x99 }));
}

/// A frame whose length exceeds the bytes that can be copied: such a copy neither matches nor panics.
#[test]
fn a_frame_that_shrinks_does_not_match() {
    struct Shrunk;
    impl FrameBytes for Shrunk {
        fn len(&self) -> usize {
            1500
        }
        fn copy_out(&self, at: usize, to: &mut [u8]) -> usize {
            [7; 60].copy_out(at, to)
        }
    }
    let load = |at| Program::new(vec![op(LDB_ABS, 0, 0, at), op(RET_A, 0, 0, 0)]).unwrap();
    assert_eq!(load(59).run(&Shrunk), 7);
    assert_eq!(load(60).run(&Shrunk), 0);
    assert_eq!(load(1400).run(&Shrunk), 0);
}
