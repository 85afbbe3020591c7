//! The schema of the file, generated from the structs, and the keys as it lists them.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Config;

/// A table of the file, or `[[cable]]`.
pub(super) struct Table {
    /// Empty for the keys above the first table.
    pub(super) name: String,
    /// For users.
    pub(super) about: String,
    /// Whether there may be several.
    pub(super) repeats: bool,
    /// In the order of the struct.
    pub(super) keys: Vec<Key>,
}

/// A key of a table.
pub(super) struct Key {
    /// Without its table: `racks`.
    pub(super) name: String,
    /// The schema of its value.
    pub(super) schema: Value,
}

impl Table {
    /// The whole name of one of its keys: `topology.racks`.
    pub(super) fn dotted(&self, key: &Key) -> String {
        if self.name.is_empty() {
            return key.name.clone();
        }
        format!("{}.{}", self.name, key.name)
    }
}

static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let mut tables = vec![Table {
        name: String::new(),
        about: String::new(),
        repeats: false,
        keys: Vec::new(),
    }];
    for Key { name, schema } in in_order(&generated()) {
        let repeats = schema["items"]["properties"].is_object();
        let inside = if repeats { &schema["items"] } else { &schema };
        if inside["properties"].is_object() {
            tables.push(Table {
                name,
                about: schema["description"].as_str().unwrap_or_default().into(),
                repeats,
                keys: in_order(inside),
            });
        } else {
            tables[0].keys.push(Key { name, schema });
        }
    }
    tables
});

/// Every table, in the order of [`Config`]; the keys above the first table come first.
pub(super) fn tables() -> &'static [Table] {
    &TABLES
}

/// Every table that there is once, with its keys.
pub(super) fn keys() -> impl Iterator<Item = (&'static Table, &'static Key)> {
    let once = tables().iter().filter(|table| !table.repeats);
    once.flat_map(|table| table.keys.iter().map(move |key| (table, key)))
}

/// A table by its name.
pub(super) fn table(name: &str) -> Option<&'static Table> {
    tables()
        .iter()
        .find(|table| table.name == name && !name.is_empty())
}

/// The schema of what `key` (such as `topology.racks`) takes.
pub(super) fn of(key: &str) -> Option<&'static Value> {
    position(key).map(|(_, known)| &known.schema)
}

/// A key by its whole name, and its index among all keys.
fn position(key: &str) -> Option<(usize, &'static Key)> {
    let (table, name) = key.split_once('.').unwrap_or(("", key));
    let mut all = keys().map(|(of, known)| (&*of.name, known)).enumerate();
    all.find(|(_, (of, known))| *of == table && known.name == name)
        .map(|(index, (_, known))| (index, known))
}

/// The position of `key` in the example.
pub(crate) fn order(key: &str) -> usize {
    position(key).map_or(usize::MAX, |(index, _)| index)
}

/// Whether `apply` can change the key, or the table that repeats, of a running fabric.
pub(crate) fn is_live(key: &str) -> bool {
    table(key).is_some_and(|table| table.repeats)
        || of(key).is_some_and(|schema| schema["x-live"] == true)
}

/// The JSON Schema of the file, for editors: every key with its description, default and bounds.
pub fn published() -> Value {
    let mut schema = generated();
    schema["title"] = "The configuration of ikv-fabric".into();
    without_order(&mut schema);
    schema
}

/// As schemars generates it, in TOML's terms. `required` lists the fields in the order of the
/// struct: it says what a serialized configuration has, not what a file must have.
fn generated() -> Value {
    let settings = SchemaSettings::draft07().for_serialize().with(|settings| {
        settings.inline_subschemas = true;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<Config>();
    let mut schema = std::mem::take(schema.ensure_object()).into();
    in_toml(&mut schema);
    schema
}

/// Takes away what TOML lacks, null, and asks for at least one letter in every text.
fn in_toml(schema: &mut Value) {
    let Value::Object(keywords) = schema else {
        return;
    };
    if let Some(Value::Array(types)) = keywords.get_mut("type") {
        types.retain(|one| one != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            keywords.insert("type".into(), one);
        }
    }
    // A table's default is that of its keys.
    let is_table = keywords.contains_key("properties");
    keywords.retain(|keyword, value| keyword != "default" || !(is_table || value.is_null()));
    let is_text = keywords.get("type").is_some_and(|one| one == "string");
    if is_text && !keywords.contains_key("pattern") {
        keywords.insert("minLength".into(), 1.into());
    }
    subschemas(keywords).for_each(in_toml);
}

fn without_order(schema: &mut Value) {
    if let Value::Object(keywords) = schema {
        keywords.remove("required");
        subschemas(keywords).for_each(without_order);
    }
}

/// The schemas of what is inside: a table's keys, a list's elements.
fn subschemas(keywords: &mut serde_json::Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    let inside = keywords
        .iter_mut()
        .filter(|(keyword, _)| matches!(keyword.as_str(), "properties" | "items"));
    inside.flat_map(|(keyword, value)| -> Vec<&mut Value> {
        if keyword == "items" {
            return vec![value];
        }
        value
            .as_object_mut()
            .into_iter()
            .flat_map(|keys| keys.values_mut())
            .collect()
    })
}

/// The keys of a table in the order of its struct.
fn in_order(table: &Value) -> Vec<Key> {
    let Some(properties) = table["properties"].as_object() else {
        return Vec::new();
    };
    let names = table["required"].as_array().into_iter().flatten();
    let first: Vec<&str> = names.filter_map(Value::as_str).collect();
    let others = properties.keys().map(String::as_str);
    let others = others.filter(|name| !first.contains(name));
    first
        .iter()
        .copied()
        .chain(others)
        .map(|name| Key {
            name: name.into(),
            schema: properties[name].clone(),
        })
        .collect()
}
