//! The secret in the link of the page: [`Token`].

use std::fmt;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// Random bytes of a token: 128 bits.
const BYTES: usize = 16;

/// A secret of 32 hexadecimal digits. Its `Debug` does not show it.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// A token that nobody can guess.
    ///
    /// # Errors
    /// When the kernel has no random numbers.
    pub(crate) fn random() -> io::Result<Self> {
        let mut bytes = [0; BYTES];
        // Up to 256 bytes come in one piece, getrandom(2).
        let read = getrandom(&mut bytes, GetRandomFlags::empty())?;
        if read != BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut digits = String::with_capacity(2 * BYTES);
        for byte in bytes {
            let _ = write!(digits, "{byte:02x}");
        }
        Ok(Token(digits))
    }

    /// The digits.
    pub(crate) fn digits(&self) -> &str {
        &self.0
    }

    /// Whether `said` is this token. It takes the same time for every `said` of the right length.
    pub(crate) fn is(&self, said: &[u8]) -> bool {
        let own = self.0.as_bytes();
        if own.len() != said.len() {
            return false;
        }
        let pairs = own.iter().zip(said);
        let differing = pairs.fold(0, |differing, (a, b)| black_box(differing | (a ^ b)));
        black_box(differing) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_itself_and_nothing_near_it() {
        let token = Token::random().unwrap();
        let digits = token.digits().to_owned();
        assert_eq!(digits.len(), 32);
        assert!(token.is(digits.as_bytes()));
        assert!(!token.is(b""));
        assert!(!token.is(&digits.as_bytes()[..31]));
        assert!(!token.is(format!("{digits}0").as_bytes()));
        for at in 0..digits.len() {
            let mut near = digits.clone().into_bytes();
            near[at] ^= 1;
            assert!(!token.is(&near), "digit {at}");
        }
    }

    #[test]
    fn two_tokens_differ_and_no_log_shows_them() {
        let [one, other] = [Token::random().unwrap(), Token::random().unwrap()];
        assert!(!one.is(other.digits().as_bytes()));
        assert!(!format!("{one:?}").contains(one.digits()));
    }
}
