//! Text from a guest, made safe to print: a terminal acts on control characters, we must not
//! hand it a guest's.

/// `bytes` as one printable line: newlines and every other control character become Rust escapes
/// (`\n`, `\u{1b}`), bytes that are not UTF-8 become U+FFFD. At most `limit` characters are kept, the
/// last ones.
pub fn tail(bytes: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let skip = text.chars().count().saturating_sub(limit);
    text.chars().skip(skip).flat_map(printable).collect()
}

/// Like [`tail`], but keeps the first `limit` characters.
pub fn head(bytes: &[u8], limit: usize) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .take(limit)
        .flat_map(printable)
        .collect()
}

/// Like [`tail`], but line feeds stay, and carriage returns before them go.
pub fn tail_lines(bytes: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let skip = text.chars().count().saturating_sub(limit);
    let mut out = String::new();
    for c in text.chars().skip(skip) {
        if c == '\n' {
            out.push(c);
        } else {
            out.extend(printable(c));
        }
    }
    out
}

fn printable(c: char) -> Vec<char> {
    // Bidirectional overrides and invisible marks reorder what a reader sees (CVE-2021-42574).
    let deceptive = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    if c.is_control() || deceptive {
        c.escape_default().collect()
    } else {
        vec![c]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shows_control_characters_instead_of_sending_them() {
        assert_eq!(tail(b"a\x1b[2Jb\r\n\xff", 99), "a\\u{1b}[2Jb\\r\\n\u{fffd}");
        assert_eq!(tail(b"0123456789", 4), "6789");
        assert_eq!(head(b"0123456789", 4), "0123");
        assert_eq!(tail_lines(b"one\r\ntwo\x07", 99), "one\ntwo\\u{7}");
        assert_eq!(head("a\u{202e}b".as_bytes(), 9), "a\\u{202e}b");
    }

    proptest! {
        #[test]
        fn never_leaves_a_control_character(bytes: Vec<u8>, limit in 0usize..64) {
            prop_assert!(!tail(&bytes, limit).chars().any(char::is_control));
            prop_assert!(!tail_lines(&bytes, limit).chars().any(|c| c.is_control() && c != '\n'));
        }
    }
}
