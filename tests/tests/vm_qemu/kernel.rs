//! A guest of 56 bytes. It writes `R` to the serial line and then echoes what is typed; `p` powers
//! the machine off, `r` resets it.

/// The address where it is loaded and runs: 1 MiB, the first free one of a PC.
const BASE: u32 = 0x10_0000;
/// Bytes of the multiboot header before the code.
const HEADER: u32 = 32;

const CODE: &[u8] = &[
    0xba, 0xf8, 0x03, 0x00, 0x00, //  0 mov edx, 0x3f8     the first serial port
    0xb0, b'R', //                    5 mov al, 'R'
    0xee, //                          7 out dx, al
    0xf3, 0x90, //                    8 pause
    0xba, 0xfd, 0x03, 0x00, 0x00, // 10 mov edx, 0x3fd     its line status
    0xec, //                         15 in al, dx
    0xa8, 0x01, //                   16 test al, 1         anything received?
    0x74, 0xf4, //                   18 jz 8
    0xba, 0xf8, 0x03, 0x00, 0x00, // 20 mov edx, 0x3f8
    0xec, //                         25 in al, dx
    0x3c, b'p', //                   26 cmp al, 'p'
    0x74, 0x07, //                   28 je 37
    0x3c, b'r', //                   30 cmp al, 'r'
    0x74, 0x10, //                   32 je 50
    0xee, //                         34 out dx, al
    0xeb, 0xe3, //                   35 jmp 8
    0xba, 0x04, 0x06, 0x00, 0x00, // 37 mov edx, 0x604     PIIX4's PM1a control
    0x66, 0xb8, 0x00, 0x20, //       42 mov ax, 0x2000     sleep enable, S5
    0x66, 0xef, //                   46 out dx, ax
    0xeb, 0xd6, //                   48 jmp 8
    0xb0, 0xfe, //                   50 mov al, 0xfe       keyboard controller: pulse reset
    0xe6, 0x64, //                   52 out 0x64, al
    0xeb, 0xd0, //                   54 jmp 8
];

/// The file for `-kernel`: Multiboot 0.6.96, addresses in the header (flag 16).
pub(crate) fn image() -> Vec<u8> {
    let (magic, flags) = (0x1bad_b002_u32, 0x1_0000_u32);
    let checksum = 0u32.wrapping_sub(magic).wrapping_sub(flags);
    let end = BASE + HEADER + CODE.len() as u32;
    let header = [magic, flags, checksum, BASE, BASE, end, end, BASE + HEADER];
    let mut image: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    image.extend_from_slice(CODE);
    image.resize(8192, 0);
    image
}
