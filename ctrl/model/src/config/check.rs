//! Every key and value of a file against the schema.

use toml::{Table, Value};

use super::forms::{self, form};
use super::schema::{self, keys, table, tables};
use super::{Problem, cable};

/// The table that repeats, see [`super::CableKeys`].
const CABLES: &str = "cable";

/// Everything that is wrong with the keys and values of `file`.
pub(crate) fn problems(file: &Table) -> Vec<Problem> {
    let mut found = Vec::new();
    for (key, value) in file {
        match (table(key), value) {
            (Some(table), value) if table.repeats => cable::problems(value, &mut found),
            (Some(_), Value::Table(inner)) => {
                for (name, value) in inner {
                    check(&format!("{key}.{name}"), value, &mut found);
                }
            }
            (Some(_), value) => found.push(Problem {
                key: key.clone(),
                what: format!("{value} is not a table; write its keys below [{key}]"),
            }),
            (None, value) => check(key, value, &mut found),
        }
    }
    found
}

fn check(key: &str, value: &Value, found: &mut Vec<Problem>) {
    let mut problem = |key: String, what: String| found.push(Problem { key, what });
    let Some(schema) = schema::of(key) else {
        return problem(key.to_owned(), unknown(key));
    };
    if let Err(what) = check_value(schema, value) {
        problem(key.to_owned(), what);
    } else if let Value::Array(list) = value {
        for (index, value) in list.iter().enumerate() {
            if let Err(what) = check_value(&schema["items"], value) {
                problem(format!("{key}[{index}]"), what);
            }
        }
    }
}

/// What is wrong with a value; a list's elements are checked by themselves.
pub(super) fn check_value(schema: &serde_json::Value, value: &Value) -> Result<(), String> {
    let choices = choices(schema);
    match value {
        _ if !choices.is_empty() => check_choice(&choices, value),
        Value::Integer(number) if takes(schema, "integer") => check_integer(schema, *number),
        Value::String(text) if takes(schema, "string") => match form_of(schema) {
            Some(form) => (form.check)(schema, text),
            None => forms::not_empty(text),
        },
        Value::Array(_) if takes(schema, "array") => Ok(()),
        Value::Boolean(_) if takes(schema, "boolean") => Ok(()),
        _ => Err(wrong_type(schema, value)),
    }
}

/// Whether values of this type are allowed.
fn takes(schema: &serde_json::Value, kind: &str) -> bool {
    match &schema["type"] {
        serde_json::Value::Array(kinds) => kinds.iter().any(|one| one == kind),
        one => one == kind,
    }
}

/// Whether only texts are allowed, so that what looks like a number is one.
pub(super) fn takes_text_alone(schema: &serde_json::Value) -> bool {
    schema["type"] == "string" || !choices(schema).is_empty()
}

fn form_of(schema: &serde_json::Value) -> Option<&'static forms::Form> {
    schema["format"].as_str().and_then(form)
}

/// The texts of which one is to be chosen, each with its meaning.
pub(super) fn choices(schema: &serde_json::Value) -> Vec<(&str, &str)> {
    let all = schema["oneOf"].as_array().into_iter().flatten();
    all.filter_map(|one| Some((one["const"].as_str()?, one["description"].as_str()?)))
        .collect()
}

fn check_choice(choices: &[(&str, &str)], value: &Value) -> Result<(), String> {
    if choices
        .iter()
        .any(|(choice, _)| value.as_str() == Some(choice))
    {
        return Ok(());
    }
    let all: Vec<_> = choices
        .iter()
        .map(|(choice, _)| format!("\"{choice}\""))
        .collect();
    Err(format!("{value} is not one of {}", all.join(", ")))
}

/// What a whole number takes: `1 to 255 racks`.
fn bounds(schema: &serde_json::Value) -> String {
    let bound = |keyword: &str| schema[keyword].to_string();
    let unit = schema["x-unit"].as_str().unwrap_or_default();
    format!(
        "it takes {} to {} {unit}",
        bound("minimum"),
        bound("maximum")
    )
}

fn check_integer(schema: &serde_json::Value, number: i64) -> Result<(), String> {
    let bound = |keyword: &str| schema[keyword].as_i64();
    let above = bound("minimum").is_none_or(|least| number >= least);
    if above && bound("maximum").is_none_or(|most| number <= most) {
        return Ok(());
    }
    Err(format!("{number} is out of bounds; {}", bounds(schema)))
}

fn wrong_type(schema: &serde_json::Value, value: &Value) -> String {
    match &schema["type"] {
        one if one == "integer" => format!("{value} is not a whole number; {}", bounds(schema)),
        one if one == "boolean" => {
            format!("{value} is neither true nor false; write one, without quotes")
        }
        one if one == "array" => {
            format!("{value} is not a list; write it in brackets: [{value}]")
        }
        _ if schema["format"] == "account" => {
            format!("{value} is neither a name nor a number, such as \"anna\" or 1000")
        }
        _ => match form_of(schema) {
            Some(form) => format!("{value} is not a text; write one such as {}", form.example),
            None => format!("{value} is not a text; write one in quotes"),
        },
    }
}

/// Says that a key is unknown, and which are known.
pub(super) fn unknown(key: &str) -> String {
    let first = key.split(['.', '[']).next().unwrap_or(key);
    if first == CABLES {
        return "cables are written in the file alone, below [[cable]]".into();
    }
    if let Some(table) = table(key) {
        return format!("this is a table; name one of its keys: {}", names_in(table));
    }
    let known: Vec<String> = keys().map(|(table, key)| table.dotted(key)).collect();
    if let Some(near) = nearest(key, known.iter().map(String::as_str)) {
        return format!("unknown key; did you mean {near}?");
    }
    let (head, name) = key.split_once('.').unwrap_or(("", key));
    if let Some(elsewhere) = known.iter().find(|known| last(known) == name) {
        return format!("unknown key; did you mean {elsewhere}?");
    }
    if let Some(table) = table(head) {
        return format!("unknown key; [{head}] has {}", names_in(table));
    }
    let once = tables().iter().filter(|table| !table.repeats);
    match nearest(key, once.map(|table| &*table.name)) {
        Some(near) => format!("unknown key; did you mean [{near}]?"),
        None => format!("unknown key; the file has {}", all_names()),
    }
}

/// The nearest of the known names, if one is near enough: at most two letters apart, and less than
/// half of the name.
pub(super) fn nearest<'k>(key: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let apart = |known: &str| strsim::levenshtein(key, known);
    let near = known
        .map(|known| (apart(known), known))
        .min_by_key(|(apart, _)| *apart);
    near.filter(|(apart, _)| *apart <= 2 && apart * 2 <= last(key).len())
        .map(|(_, known)| known)
}

fn last(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

fn names_in(table: &schema::Table) -> String {
    let names: Vec<_> = table.keys.iter().map(|key| &*key.name).collect();
    names.join(", ")
}

/// What stands at the top of a file: `owner, [topology], …, [[cable]]`.
fn all_names() -> String {
    let name = |table: &schema::Table| match &*table.name {
        "" => names_in(table),
        name if table.repeats => format!("[[{name}]]"),
        name => format!("[{name}]"),
    };
    let names: Vec<_> = tables().iter().map(name).collect();
    names.join(", ")
}
