//! A VNC viewer, as much of one as a test needs (RFC 6143).

use std::io::{self, Read, Write};
use std::time::Duration;

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};

use crate::patience::{SOON, wait_until};

/// Between two looks at a screen.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Pixels of a cursor, which blinks.
const CURSOR: usize = 8 * 16;

/// Security types (section 7.1.2).
const NONE: u8 = 1;
const VNC: u8 = 2;

/// X11's keysym of the enter key; those of ASCII letters are the letters (section 7.5.4).
const RETURN: u32 = 0xff0d;

/// A viewer that has been let in.
#[derive(Debug)]
pub struct VncViewer<S> {
    stream: S,
    width: u16,
    height: u16,
}

impl<S: Read + Write> VncViewer<S> {
    /// Shakes hands. With a password it has to be asked for, without one it must not be.
    ///
    /// # Errors
    /// When the connection ends or the password is refused; `PermissionDenied` for the latter.
    ///
    /// # Panics
    /// When the server speaks no RFB 3.8, or wants another kind of proof.
    pub fn connect(mut stream: S, password: Option<&str>) -> io::Result<Self> {
        let mut version = [0; 12];
        stream.read_exact(&mut version)?;
        assert_eq!(&version, b"RFB 003.008\n");
        stream.write_all(&version)?;
        let mut kinds = vec![0; usize::from(byte(&mut stream)?)];
        stream.read_exact(&mut kinds)?;
        let kind = if password.is_some() { VNC } else { NONE };
        assert_eq!(kinds, [kind], "how to prove who one is");
        stream.write_all(&kinds)?;
        if let Some(password) = password {
            let mut challenge = [0; 16];
            stream.read_exact(&mut challenge)?;
            stream.write_all(&response(password, &challenge))?;
        }
        if number::<4>(&mut stream)? != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        stream.write_all(&[1])?; // Others may stay.
        let (width, height) = (number::<2>(&mut stream)?, number::<2>(&mut stream)?);
        let mut rest = [0; 16];
        stream.read_exact(&mut rest)?;
        let mut name = vec![0; number::<4>(&mut stream)? as usize];
        stream.read_exact(&mut name)?;
        Ok(VncViewer {
            stream,
            width: width as u16,
            height: height as u16,
        })
    }

    /// Types a text, line feeds as the enter key.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn type_text(&mut self, text: &str) -> io::Result<()> {
        for letter in text.chars() {
            let key = if letter == '\n' {
                RETURN
            } else {
                u32::from(letter)
            };
            for down in [1, 0] {
                let mut event = vec![4, down, 0, 0];
                event.extend(key.to_be_bytes());
                self.stream.write_all(&event)?;
            }
        }
        Ok(())
    }

    /// Types a line once the screen has come to rest: the question for it then stands there.
    ///
    /// # Panics
    /// When the connection ends.
    pub fn answer(&mut self, line: &str) {
        wait_until("the screen to rest", SOON, || {
            let mut look = || self.lit_pixels().expect("the viewer is connected");
            let first = look();
            (0..10).all(|_| {
                std::thread::sleep(LOOK_AGAIN);
                look().abs_diff(first) <= CURSOR
            })
        });
        self.type_text(line).expect("the viewer is connected");
    }

    /// How many pixels of the screen are not black.
    ///
    /// # Errors
    /// When the connection ends.
    ///
    /// # Panics
    /// When the server sends what was not asked for.
    pub fn lit_pixels(&mut self) -> io::Result<usize> {
        let (width, height) = (self.width, self.height);
        // All of it, now.
        let mut request = vec![3, 0, 0, 0, 0, 0];
        request.extend(width.to_be_bytes());
        request.extend(height.to_be_bytes());
        self.stream.write_all(&request)?;
        assert_eq!(number::<2>(&mut self.stream)?, 0, "a framebuffer update");
        let mut lit = 0;
        for _ in 0..number::<2>(&mut self.stream)? {
            let [_, _, width, height] = [(); 4].map(|()| number::<2>(&mut self.stream));
            assert_eq!(number::<4>(&mut self.stream)?, 0, "the raw encoding");
            let mut pixels = vec![0; (width? * height? * 4) as usize];
            self.stream.read_exact(&mut pixels)?;
            lit += pixels
                .chunks(4)
                .filter(|pixel| pixel[..3] != [0; 3])
                .count();
        }
        Ok(lit)
    }
}

fn byte(stream: &mut impl Read) -> io::Result<u8> {
    number::<1>(stream).map(|number| number as u8)
}

fn number<const BYTES: usize>(stream: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; BYTES];
    stream.read_exact(&mut bytes)?;
    Ok(bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// The challenge under DES; the key's bytes have their bits mirrored (section 7.2.2).
fn response(password: &str, challenge: &[u8; 16]) -> Vec<u8> {
    let mut key = [0; 8];
    for (byte, letter) in key.iter_mut().zip(password.bytes()) {
        *byte = letter.reverse_bits();
    }
    let cipher = Des::new(&key.into());
    let mut response = challenge.to_vec();
    for block in response.chunks_exact_mut(8) {
        cipher.encrypt_block(block.try_into().expect("a block has 8 bytes"));
    }
    response
}
