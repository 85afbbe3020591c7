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

/// A command's whole output for a terminal: like [`tail_lines`], and tabs stay, too.
pub fn output(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\n' | '\t') {
            out.push(c);
        } else {
            out.extend(printable(c));
        }
    }
    out
}

/// Bidirectional overrides, invisible marks, tags and other line ends: they change what a reader sees
/// (CVE-2021-42574).
fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn printable(c: char) -> Vec<char> {
    if c.is_control() || is_deceptive(c) {
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
        assert_eq!(output(b"a\tb\r\n\x1b[2J"), "a\tb\n\\u{1b}[2J");
    }

    #[test]
    fn shows_what_a_reader_would_not_see() {
        for c in [
            '\u{61c}',
            '\u{2028}',
            '\u{2029}',
            '\u{ad}',
            '\u{e0041}',
            '\u{180e}',
            '\u{fffa}',
        ] {
            let shown = head(c.to_string().as_bytes(), 9);
            assert_eq!(shown, c.escape_default().to_string());
        }
    }

    proptest! {
        #[test]
        fn never_leaves_a_control_character(bytes: Vec<u8>, limit in 0usize..64) {
            prop_assert!(!tail(&bytes, limit).chars().any(char::is_control));
            prop_assert!(!tail_lines(&bytes, limit).chars().any(|c| c.is_control() && c != '\n'));
        }
    }
}
