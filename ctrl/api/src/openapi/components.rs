//! The schemas of all types, by name: [`Components`].

use std::collections::BTreeSet;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// Where they are in the document, as a JSON pointer.
const SCHEMAS: &str = "/components/schemas";

/// A type whose answers look otherwise than its inputs gets this behind its name: a key that has a default
/// may be left out of what is asked, but is never missing from what is answered.
const ANSWERED: &str = "Answered";

/// For what clients send.
pub(super) fn inputs() -> SchemaGenerator {
    settings().for_deserialize().into_generator()
}

/// For what the fabric answers.
pub(super) fn answers() -> SchemaGenerator {
    settings().for_serialize().into_generator()
}

fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = SCHEMAS.into();
        settings.meta_schema = None;
    })
}

/// The schemas of inputs and of answers together.
pub(super) struct Components {
    /// By the name that references use.
    pub(super) schemas: Map<String, Value>,
    /// Those that an answer finds under another name.
    renamed: BTreeSet<String>,
}

impl Components {
    /// Puts together what both generators have met.
    pub(super) fn of(mut inputs: SchemaGenerator, mut answers: SchemaGenerator) -> Self {
        let mut schemas = inputs.take_definitions(true);
        let answered = answers.take_definitions(true);
        let mut components = Components {
            renamed: unequal(&schemas, &answered),
            schemas: Map::new(),
        };
        for (name, mut schema) in answered {
            let name = components.name(&name);
            components.rename(&mut schema);
            schemas.insert(name, schema);
        }
        components.schemas = schemas;
        components
    }

    /// Makes the references in an answer lead to the answers' schemas.
    pub(super) fn rename(&self, schema: &mut Value) {
        each_reference(schema, &mut |reference| {
            if let Some(name) = named(reference) {
                *reference = format!("#{SCHEMAS}/{}", self.name(name));
            }
        });
    }

    fn name(&self, name: &str) -> String {
        if self.renamed.contains(name) {
            format!("{name}{ANSWERED}")
        } else {
            name.to_owned()
        }
    }
}

/// The types that are both asked and answered, and differ by themselves or by a type that they name.
fn unequal(asked: &Map<String, Value>, answered: &Map<String, Value>) -> BTreeSet<String> {
    let both = || {
        answered
            .iter()
            .filter(|(name, _)| asked.contains_key(*name))
    };
    let differs = |(name, schema): &(&String, &Value)| asked[*name] != **schema;
    let mut found: BTreeSet<String> = both()
        .filter(differs)
        .map(|(name, _)| name.clone())
        .collect();
    loop {
        let before = found.len();
        for (name, schema) in both() {
            let mut leads_there = false;
            each_reference(&mut schema.clone(), &mut |reference| {
                leads_there |= named(reference).is_some_and(|name| found.contains(name));
            });
            if leads_there {
                found.insert(name.clone());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// The name that a reference to a schema leads to.
fn named(reference: &str) -> Option<&str> {
    reference
        .strip_prefix('#')?
        .strip_prefix(SCHEMAS)?
        .strip_prefix('/')
}

/// Calls `visit` with each `$ref`.
pub(super) fn each_reference(value: &mut Value, visit: &mut impl FnMut(&mut String)) {
    match value {
        Value::Object(keys) => {
            for (key, value) in keys {
                match value {
                    Value::String(reference) if key == "$ref" => visit(reference),
                    value => each_reference(value, visit),
                }
            }
        }
        Value::Array(values) => values
            .iter_mut()
            .for_each(|value| each_reference(value, visit)),
        _ => {}
    }
}

/// Gives each integer the bounds of its format; schemars gives none above 16 bits.
pub(super) fn with_bounds(value: &mut Value) {
    match value {
        Value::Object(keys) => {
            let bounds = match keys.get("format").and_then(Value::as_str) {
                Some("uint32") => Some((Value::from(0), u32::MAX.into())),
                Some("uint64" | "uint") => Some((Value::from(0), u64::MAX.into())),
                Some("int32") => Some((i32::MIN.into(), i32::MAX.into())),
                Some("int64") => Some((i64::MIN.into(), i64::MAX.into())),
                _ => None,
            };
            if let Some((least, most)) = bounds {
                keys.entry("minimum").or_insert(least);
                keys.entry("maximum").or_insert(most);
            }
            keys.values_mut().for_each(with_bounds);
        }
        Value::Array(values) => values.iter_mut().for_each(with_bounds),
        _ => {}
    }
}
