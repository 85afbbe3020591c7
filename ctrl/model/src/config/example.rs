//! The file with every key and its default, generated from the schema.

use std::fmt::Write as _;

use serde::Deserialize as _;
use serde_json::Value;

use super::check::choices;
use super::schema::{Key, Table, tables};

/// The longest line, in characters.
const WIDTH: usize = 100;

const HEAD: &str = "\
# ikv-fabric: every key with its default. Copy what you want to change; leave out the rest.
# `ikv-fabric run -c FILE`; single values also by `--set topology.racks=5`.
# Lines that begin with `#` and a key show keys that have no default value.
#
# Editors with a TOML plug-in (such as Even Better TOML) complete and check the keys of a file whose
# first line is
#     #:schema ./ikv-fabric.schema.json
# when `ikv-fabric config schema > ikv-fabric.schema.json` has written that file beside it.
";

/// A complete, commented file that says exactly what the defaults say.
pub fn example() -> String {
    let mut out = HEAD.to_owned();
    for table in tables() {
        out.push('\n');
        write_table(&mut out, table);
    }
    out
}

fn write_table(out: &mut String, table: &Table) {
    comment(out, &table.about);
    // A cable without keys would change nothing and is refused.
    match (&*table.name, table.repeats) {
        ("", _) => {}
        (name, true) => out.push_str(&format!("# [[{name}]]\n")),
        (name, false) => out.push_str(&format!("[{name}]\n")),
    }
    for key in &table.keys {
        write_key(out, key);
    }
}

fn write_key(out: &mut String, Key { name, schema }: &Key) {
    comment(out, &about(schema));
    for (choice, meaning) in choices(schema) {
        comment(out, &format!("- \"{choice}\": {meaning}"));
    }
    let value = |value: &Value| toml::Value::deserialize(value).ok();
    let default = schema.get("default").and_then(value);
    if let Some(default) = default {
        let _ = writeln!(out, "{}", toml_line(name, &default)); // Into a text nothing fails.
    } else if let Some(example) = schema["examples"].get(0).and_then(value) {
        let _ = writeln!(out, "# {name} = {example}");
    }
}

/// What users should know about a key, and its bounds.
fn about(schema: &Value) -> String {
    let description = schema["description"].as_str().unwrap_or_default();
    let first = description.split("\n\n").next().unwrap_or_default();
    let bounds = match (&schema["minimum"], &schema["maximum"], &schema["type"]) {
        (Value::Number(least), Value::Number(most), kind) if kind == "integer" => {
            format!(" {least} to {most}.")
        }
        _ => match (schema["x-minimum"].as_str(), schema["x-maximum"].as_str()) {
            (Some(least), Some(most)) => format!(" {least} to {most}."),
            _ => String::new(),
        },
    };
    format!("{first}{bounds}")
}

/// Comment lines that hold `text`.
fn comment(out: &mut String, text: &str) {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() >= WIDTH {
            out.push_str(&line);
            out.push('\n');
            line.clear();
        }
        line.push_str(if line.is_empty() { "# " } else { " " });
        line.push_str(word);
    }
    if !line.is_empty() {
        out.push_str(&line);
        out.push('\n');
    }
}

/// A key with its value; a long list has a line for each element.
pub(crate) fn toml_line(key: &str, value: &toml::Value) -> String {
    let line = format!("{key} = {value}");
    match value {
        toml::Value::Array(list) if line.len() > WIDTH => {
            let elements: Vec<_> = list.iter().map(|value| format!("    {value},\n")).collect();
            format!("{key} = [\n{}]", elements.concat())
        }
        _ => line,
    }
}
