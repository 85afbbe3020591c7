//! Doc comments as readers of the description get them.

use serde_json::Value;

/// Stands where nobody has written what something is; a test finds it.
pub(super) const UNDESCRIBED: &str = "(not described)";

/// The lines of a doc comment as one text.
pub(super) fn joined(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    lines.join(" ")
}

/// A text's first sentence without its full stop, and the rest.
pub(super) fn first_sentence(text: &str) -> (&str, &str) {
    let (first, rest) = text.split_once(". ").unwrap_or((text, ""));
    (first.trim_end_matches('.'), rest)
}

/// `CABLE_STATE` as `cableState`.
pub(super) fn camel(name: &str) -> String {
    let mut camel = String::new();
    for word in name.split('_') {
        let (first, rest) = word.split_at(word.len().min(1));
        if camel.is_empty() {
            camel += &first.to_lowercase();
        } else {
            camel += first;
        }
        camel += &rest.to_lowercase();
    }
    camel
}

/// Takes what only Rust's documentation understands out of every description.
pub(super) fn for_readers(value: &mut Value) {
    match value {
        Value::Object(keys) => {
            for (key, value) in keys {
                match value {
                    Value::String(text) if key == "description" || key == "summary" => {
                        *text = without_links(text).replace("`None`", "`null` or left out");
                    }
                    value => for_readers(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(for_readers),
        _ => {}
    }
}

/// Writes links to code, ``[`a::B`](target)`` and ``[`a::B`]``, as the code alone.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once("[`") {
        plain += before;
        plain.push('`');
        let Some((code, behind)) = link.split_once("`]") else {
            rest = link;
            continue;
        };
        plain += code;
        plain.push('`');
        let target = behind
            .strip_prefix('(')
            .and_then(|target| target.split_once(')'));
        rest = target.map_or(behind, |(_, behind)| behind);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_become_the_code_that_they_name() {
        assert_eq!(
            without_links("see [`Config::over`] and [`B`](crate::B), not [this] or `that`."),
            "see `Config::over` and `B`, not [this] or `that`."
        );
        assert_eq!(without_links("it ends [`here"), "it ends `here");
    }

    #[test]
    fn names_and_sentences() {
        assert_eq!(camel("CABLE_STATE"), "cableState");
        assert_eq!(camel("STATUS"), "status");
        assert_eq!(joined(&[" One.", " Two", " three."]), "One. Two three.");
        assert_eq!(first_sentence("One. Two three."), ("One", "Two three."));
        assert_eq!(first_sentence("One."), ("One", ""));
    }
}
