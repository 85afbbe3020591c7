//! The keys of an impairment in the API's JSON.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::KEYS;

/// What [`ImpairKeys`](super::ImpairKeys) are in JSON: no key has to be there, and a filter or a table
/// stands there with what the client made of it, because the fabric compiles no filter and reads no file.
#[derive(Debug)]
pub enum KeysInJson {}

impl JsonSchema for KeysInJson {
    fn schema_name() -> Cow<'static, str> {
        "Impairment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let properties: Map<_, _> = KEYS
            .iter()
            .map(|key| {
                // Whole numbers and booleans may stand as such, all else as a text.
                let example = serde_json::from_str(key.example);
                let example = example.unwrap_or_else(|_| Value::from(key.example));
                let text = match example {
                    Value::Number(_) => json!({ "type": ["string", "integer"] }),
                    Value::Bool(_) => json!({ "type": ["string", "boolean"] }),
                    _ => json!({ "type": "string" }),
                };
                let mut schema = json!({
                    "description": format!("{}.", key.help),
                    "examples": [example],
                });
                match completed(key.name) {
                    Some(object) => schema["anyOf"] = json!([text, object]),
                    None => schema["type"] = text["type"].clone(),
                }
                (key.name.to_owned(), schema)
            })
            .collect();
        json_schema!({
            "description": "The keys of an impairment, as `ikv-fabric impair` has them.",
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
        })
    }
}

/// The form that the client gives a key which only it can complete.
fn completed(key: &str) -> Option<Value> {
    let instruction = json!({
        "description": "code, jt, jf, k",
        "type": "array",
        "items": { "type": "integer", "minimum": 0, "maximum": u32::MAX },
        "minItems": 4,
        "maxItems": 4,
    });
    match key {
        "match" => Some(json!({
            "description": "A tcpdump expression, and the classic BPF that libpcap compiles it to for Ethernet.",
            "type": "object",
            "properties": {
                "expression": { "type": "string" },
                "program": { "type": "array", "items": instruction },
            },
            "required": ["expression", "program"],
        })),
        "distribution" => Some(json!({
            "description": "A table's name, and its values, in units of 1/8192 of the jitter.",
            "type": "object",
            "properties": {
                "name": { "type": "string" },
                "values": {
                    "type": "array",
                    "items": { "type": "integer", "minimum": i16::MIN, "maximum": i16::MAX },
                },
            },
            "required": ["name", "values"],
        })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::impairment::{ImpairKeys, Match, Spread};

    #[test]
    fn each_key_that_the_client_completes_has_its_second_form() {
        let keys = ImpairKeys {
            matches: Some(Match {
                expression: "arp".into(),
                program: vec![(6, 0, 0, 1)],
            }),
            distribution: Some(Spread::Table {
                name: "mine".into(),
                values: vec![1, 2],
            }),
            ..ImpairKeys::default()
        };
        let Value::Object(written) = serde_json::to_value(&keys).unwrap() else {
            panic!("keys are an object");
        };
        for (key, value) in written {
            let form = completed(&key).unwrap_or_else(|| panic!("{key} has no second form"));
            let named: Vec<_> = form["properties"].as_object().unwrap().keys().collect();
            let found: Vec<_> = value.as_object().unwrap().keys().collect();
            assert_eq!(named, found, "{key}");
        }
        let schema = KeysInJson::json_schema(&mut SchemaGenerator::default());
        let properties = schema.get("properties").unwrap().as_object().unwrap();
        assert_eq!(properties.len(), KEYS.len());
    }
}
