//! An impairment in the words that `ikv-fabric impair` takes: [`change`].

use model::cable_change::ImpairmentChange;
use model::impairment::{ImpairKeys, KEYS, Key};

/// Reads `delay 5ms loss 1%`, with or without dashes before the keys; `from PORT` and `clear` as the
/// options of these names.
///
/// # Errors
/// What is wrong, as a sentence with the way out.
pub(super) fn change(text: &str) -> Result<ImpairmentChange, String> {
    let mut change = ImpairmentChange::default();
    let mut words = words(text)?.into_iter().peekable();
    while let Some(word) = words.next() {
        match &*word.text {
            "clear" | "--clear" => change.clear = true,
            "from" | "--from" => {
                let port = words.next().ok_or("from needs the name of a port")?;
                change.from = Some(port.text);
            }
            text => {
                let key = key(&word).ok_or_else(|| {
                    format!("\"{text}\" is not a key: write delay 5ms loss 1%, for example")
                })?;
                let mut value = Vec::new();
                while value.len() < key.words
                    && let Some(next) = words.next_if(|next| is_value(key, &value, next))
                {
                    value.push(next.text);
                }
                set(&mut change.set, key, &value.join(" "))?;
            }
        }
    }
    if !change.clear && change.set.is_empty() {
        return Err("nothing to change: write delay 5ms loss 1%, for example".into());
    }
    Ok(change)
}

fn set(keys: &mut ImpairKeys, key: &Key, value: &str) -> Result<(), String> {
    let value = match (key.name, value) {
        ("ecn", "") => "true",
        (name, "") => return Err(format!("{name} needs a value such as {}", key.example)),
        (_, value) => value,
    };
    keys.set(key.name, value)
        .map(drop)
        .map_err(|error| format!("{}: {}", key.name, error.what))
}

/// The key that a word names.
fn key(word: &Word) -> Option<&'static Key> {
    let name = word.text.strip_prefix("--").unwrap_or(&word.text);
    let mut keys = KEYS.iter();
    keys.find(|key| !word.quoted && (key.option() == name || key.name == name))
}

/// Whether a word goes on with the value of `key`.
fn is_value(key: &Key, before: &[String], word: &Word) -> bool {
    // One of the forms of a slot begins with the name of another key.
    let of_slot = key.name == "slot" && before.is_empty() && word.text == "distribution";
    let option = matches!(&*word.text, "clear" | "from" | "--clear" | "--from");
    of_slot || word.quoted || (!option && self::key(word).is_none())
}

struct Word {
    text: String,
    quoted: bool,
}

/// Words, of which those in quotes may have spaces.
fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = if matches!(first, '\'' | '"') {
            let (word, after) = rest[1..]
                .split_once(first)
                .ok_or_else(|| format!("a {first} is missing at the end"))?;
            rest = after;
            word
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            word
        };
        words.push(Word {
            text: word.to_owned(),
            quoted: matches!(first, '\'' | '"'),
        });
        rest = rest.trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match change(text) {
            Ok(ImpairmentChange { from, clear, set }) => {
                let from = from.map_or(String::new(), |port| format!("from {port} "));
                let clear = if clear { "clear " } else { "" };
                format!("{from}{clear}{}", set.words())
            }
            Err(error) => format!("! {error}"),
        }
    }

    #[test]
    fn the_words_of_the_command_are_taken() {
        let lines = [
            "delay 5ms loss 1%",
            "--delay 5ms  --loss 1%",
            "loss gemodel 1% 10% 70% 0.1% rate 1gbit",
            "loss 1% ecn delay 1ms",
            "clear",
            "clear delay 3ms from ikst12",
            "match 'tcp port 179' drop 3,7",
            "slot distribution normal 1ms 100us",
            "delay none",
            "rate 1gbit cell 48 cell-overhead 5",
        ];
        let read: Vec<_> = lines.map(read).to_vec();
        insta::assert_snapshot!(read.join("\n"));
    }

    #[test]
    fn mistakes_say_the_way_out() {
        let lines = [
            "",
            "5ms",
            "delay",
            "delay soon",
            "match 'tcp",
            "from",
            "from ikst12",
        ];
        let read: Vec<_> = lines.map(read).to_vec();
        insta::assert_snapshot!(read.join("\n"));
    }
}
