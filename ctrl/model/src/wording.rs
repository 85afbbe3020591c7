//! Sentences that libraries write for programmers, for everybody.

/// A sentence without the numbers of system errors: ` (os error 2)`.
pub fn without_numbers(text: &str) -> String {
    const MARK: &str = " (os error ";
    let mut parts = text.split(MARK);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                plain += rest;
            }
            _ => {
                plain += MARK;
                plain += part;
            }
        }
    }
    plain
}

/// A sentence of serde's or axum's about a value of the wrong form, without the names of Rust types.
pub fn without_types(text: &str) -> String {
    let mut plain = text.to_owned();
    for (theirs, ours) in [
        (
            "Failed to deserialize the JSON body into the target type: ",
            "the body does not fit: ",
        ),
        (
            "Failed to parse the request body as JSON: ",
            "the body is not JSON: ",
        ),
        (
            "Failed to deserialize query string: ",
            "the query does not fit: ",
        ),
        ("expected internally tagged enum ", "expected enum "),
        ("expected tuple struct ", "expected struct "),
    ] {
        plain = plain.replace(theirs, ours);
    }
    for (theirs, ours) in [
        ("expected struct ", "expected an object with its keys"),
        ("expected enum ", "expected one of its forms"),
    ] {
        while let Some(at) = plain.find(theirs) {
            let name = &plain[at + theirs.len()..];
            let end = name
                .find(|c: char| !c.is_alphanumeric())
                .unwrap_or(name.len());
            let end = at + theirs.len() + end;
            plain.replace_range(at..end, ours);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_lose_their_numbers() {
        let not_found = std::io::Error::from_raw_os_error(2);
        let text = format!("cannot read x: {not_found}; name another file");
        assert_eq!(
            without_numbers(&text),
            "cannot read x: No such file or directory; name another file"
        );
        assert_eq!(without_numbers("a (os error 1), b (os error 22)"), "a, b");
        assert_eq!(
            without_numbers("(os error x) (os error"),
            "(os error x) (os error"
        );
    }

    #[test]
    fn types_lose_their_names() {
        assert_eq!(
            without_types(
                "Failed to deserialize the JSON body into the target type: invalid type: string \
                 \"x\", expected struct SetCable at line 1 column 3"
            ),
            "the body does not fit: invalid type: string \"x\", expected an object with its keys at \
             line 1 column 3"
        );
        assert_eq!(
            without_types("expected internally tagged enum Trigger"),
            "expected one of its forms"
        );
    }
}
