//! `docs/src/reference/keys.md`, written from the schema.

use std::fmt::Write as _;

use serde::Deserialize as _;
use serde_json::Value;

use super::check::choices;
use super::schema::{Key, Table, is_live, tables};

const PAGE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/src/reference/keys.md"
);

const HEAD: &str = "\
# Keys of the configuration

Every key of the TOML file, in the order of `ikv-fabric config example`. A unit test writes this page from
the configuration's JSON Schema, by which the program checks a file, too. All keys may be left out.

\"Live\" means that `ikv-fabric apply` changes the key in a running fabric. Any other key needs a new `run`.

";

#[test]
fn the_page_of_the_keys_is_the_generated_one() {
    let page = page();
    if std::env::var("IKV_DOCS").is_ok_and(|update| update == "write") {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    let differs = page
        .lines()
        .zip(written.lines())
        .position(|(new, old)| new != old);
    assert!(
        page == written,
        "docs/src/reference/keys.md differs from the keys at line {}: write it anew by \
         `IKV_DOCS=write cargo test -p ikv-model reference`, and read the difference",
        differs.unwrap_or(page.lines().count().min(written.lines().count())) + 1
    );
}

#[test]
fn every_key_of_the_schema_is_on_the_page() {
    let page = page();
    for table in tables() {
        for key in &table.keys {
            let heading = format!("\n### `{}`\n", table.dotted(key));
            assert_eq!(page.matches(&heading).count(), 1, "{heading}");
        }
    }
}

fn page() -> String {
    let mut out = HEAD.to_owned();
    for table in tables().iter().filter(|table| !table.keys.is_empty()) {
        let title = title(table);
        let _ = writeln!(out, "- [{title}](#{})", anchor(table));
    }
    for table in tables().iter().filter(|table| !table.keys.is_empty()) {
        out.truncate(out.trim_end().len());
        let _ = writeln!(out, "\n\n## {}\n", title(table));
        if !table.about.is_empty() {
            let _ = writeln!(out, "{}\n", flowing(&table.about));
        }
        for key in &table.keys {
            write_key(&mut out, table, key);
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn title(table: &Table) -> String {
    match (&*table.name, table.repeats) {
        ("", _) => "Above the first table".into(),
        (name, true) => format!("`[[{name}]]`"),
        (name, false) => format!("`[{name}]`"),
    }
}

fn anchor(table: &Table) -> String {
    match &*table.name {
        "" => "above-the-first-table".into(),
        name => name.to_owned(),
    }
}

fn write_key(out: &mut String, table: &Table, key: &Key) {
    let name = table.dotted(key);
    let schema = &key.schema;
    let about = schema["description"].as_str().unwrap_or_default();
    let _ = writeln!(out, "### `{name}`\n\n{}\n", flowing(about));
    for (choice, meaning) in choices(schema) {
        let _ = writeln!(out, "- `\"{choice}\"`: {}", flowing(meaning));
    }
    if !choices(schema).is_empty() {
        out.push('\n');
    }
    let mut facts = Vec::new();
    facts.extend(bounds(schema).map(|bounds| format!("Takes {bounds}.")));
    let value = |value: &Value| toml::Value::deserialize(value).ok();
    if let Some(default) = schema.get("default").and_then(value) {
        facts.push(format!("Default: `{default}`."));
    } else if let Some(example) = schema["examples"].get(0).and_then(value) {
        facts.push(format!("Example: `{example}`."));
    }
    let live = if table.repeats {
        is_live(&table.name)
    } else {
        is_live(&name)
    };
    if live {
        facts.push("Live.".into());
    }
    if !facts.is_empty() {
        let _ = writeln!(out, "{}\n", facts.join(" "));
    }
}

/// The least and the most that a value may be. An account's number has bounds too, but is seldom one.
fn bounds(schema: &Value) -> Option<String> {
    if schema["type"] == "integer" {
        return Some(format!("{} to {}", schema["minimum"], schema["maximum"]));
    }
    let [least, most] = ["x-minimum", "x-maximum"].map(|key| schema[key].as_str());
    Some(format!("{} to {}", least?, most?))
}

/// The paragraphs of a description, each in one line, without signs that Markdown would take.
fn flowing(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| {
        let lines: Vec<_> = paragraph.lines().map(str::trim).collect();
        escaped(&lines.join(" "))
    });
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

fn escaped(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(index, part)| {
        if index % 2 == 1 {
            return part.to_owned();
        }
        part.replace('<', "&lt;")
            .replace('*', "\\*")
            .replace('[', "\\[")
    });
    parts.collect::<Vec<_>>().join("`")
}
