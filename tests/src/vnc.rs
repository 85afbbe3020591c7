//! A minimal VNC viewer (RFC 6143).

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};

use crate::patience::{SOON, wait_until};

/// Interval between two looks at a screen.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A screen that has not changed for that long shows a prompt.
const SETTLED: Duration = Duration::from_millis(500);

/// Pixels of the blinking cursor.
const CURSOR: usize = 8 * 16;

/// Security types (section 7.1.2).
const NONE: u8 = 1;
const VNC: u8 = 2;

/// X11's keysym of the enter key; an ASCII letter is its own keysym (section 7.5.4).
const RETURN: u32 = 0xff0d;

/// A viewer with an open session.
#[derive(Debug)]
pub struct VncViewer<S> {
    stream: S,
    width: u16,
    height: u16,
}

impl<S: Read + Write> VncViewer<S> {
    /// Opens a session. The server must ask for a password exactly if one is given.
    ///
    /// # Errors
    /// When the connection ends or the password is refused; `PermissionDenied` for the latter.
    ///
    /// # Panics
    /// When the server does not speak RFB 3.8, or offers another security type.
    pub fn connect(mut stream: S, password: Option<&str>) -> io::Result<Self> {
        let mut version = [0; 12];
        stream.read_exact(&mut version)?;
        assert_eq!(&version, b"RFB 003.008\n");
        stream.write_all(&version)?;
        let mut kinds = vec![0; usize::from(byte(&mut stream)?)];
        stream.read_exact(&mut kinds)?;
        let kind = if password.is_some() { VNC } else { NONE };
        assert_eq!(kinds, [kind], "the security types offered");
        stream.write_all(&kinds)?;
        if let Some(password) = password {
            let mut challenge = [0; 16];
            stream.read_exact(&mut challenge)?;
            stream.write_all(&response(password, &challenge))?;
        }
        if number::<4>(&mut stream)? != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        stream.write_all(&[1])?; // Other viewers stay connected.
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

    /// Types a text; a line feed is the enter key.
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

    /// Types a line once the screen no longer changes, because it then shows the prompt.
    ///
    /// # Panics
    /// When the connection ends.
    pub fn answer(&mut self, line: &str) {
        self.answer_after(SETTLED, line);
    }

    /// As [`answer`](Self::answer), once the screen has not changed for that long.
    ///
    /// # Panics
    /// As [`answer`](Self::answer).
    pub fn answer_after(&mut self, unchanged: Duration, line: &str) {
        wait_until("the screen to settle", SOON, || {
            let mut look = || self.lit_pixels().expect("the viewer is connected");
            let (first, began) = (look(), Instant::now());
            while look().abs_diff(first) <= CURSOR {
                if began.elapsed() >= unchanged {
                    return true;
                }
                std::thread::sleep(LOOK_AGAIN);
            }
            false
        });
        self.type_text(line).expect("the viewer is connected");
    }

    /// The number of pixels of the screen that are not black.
    ///
    /// # Errors
    /// When the connection ends.
    ///
    /// # Panics
    /// When the server sends another message or encoding.
    pub fn lit_pixels(&mut self) -> io::Result<usize> {
        let (width, height) = (self.width, self.height);
        // A full update, not an incremental one.
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

/// Encrypts the challenge with DES, with the bits of each byte of the password mirrored (section
/// 7.2.2).
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
