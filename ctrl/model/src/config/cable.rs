//! `[[cable]]`: what a cable is like from the start, and cables of one's own.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;
use toml::{Table, Value};

use super::check::{check_value, nearest};
use super::{Problem, schema};
use crate::cable_change::CableState;
use crate::impairment::{ImpairKeys, KEYS, Key, KeysInJson};

/// One `[[cable]]`. Several may be of the same cable; later ones win.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
// Serde cannot deny unknown fields beside a flattened one; `check` does.
#[schemars(extend("additionalProperties" = false))]
pub struct CableKeys {
    /// A cable of the fabric, by its name or either end. With `ends`: the name of the new cable, at
    /// most 15 characters. Default with `ends`: ikcb1 and so on.
    #[schemars(example = &"iksb12")]
    pub name: Option<String>,
    /// The two ends of a new cable: ends of cables between leaves and servers, by name or alias.
    /// The cables that had them keep their other end, which is then connected to nothing; a cable
    /// that lost both is gone.
    #[schemars(example = ["leaf1:u3", "leaf3:u5"])]
    pub ends: Option<[String; 2]>,
    /// State of the cable from the start. Default: "up".
    #[schemars(with = "CableState", example = &"up")]
    pub state: Option<CableState>,
    /// The impairments below are for frames that enter at this port. Default: for both ways.
    #[schemars(example = &"ikst12")]
    pub from: Option<String>,
    /// What is done to frames: the keys of `ikv-fabric impair`.
    #[serde(flatten)]
    pub impair: ImpairKeys,
}

/// All keys are written as on the command line, or as plain numbers and booleans.
impl JsonSchema for ImpairKeys {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ImpairKeys".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        // A client of the API sends what it has made of filters and tables, and leaves keys out.
        if generator.contract().is_deserialize() {
            return KeysInJson::json_schema(generator);
        }
        let described = |key: &Key| {
            // Numbers and booleans stand in the file as such, all else as a text.
            let example: serde_json::Value =
                serde_json::from_str(key.example).unwrap_or_else(|_| key.example.into());
            json!({
                "description": format!("{}.", key.help),
                "type": ["string", "number", "boolean"],
                "examples": [example],
            })
        };
        let properties: serde_json::Map<_, _> = KEYS
            .iter()
            .map(|key| (key.name.into(), described(key)))
            .collect();
        // In the order of the table, as for derived schemas.
        let names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        json_schema!({ "type": "object", "properties": properties, "required": names })
    }
}

/// Everything that is wrong with the keys and values of `[[cable]]`.
pub(super) fn problems(value: &Value, found: &mut Vec<Problem>) {
    let mut problem = |key: String, what: String| found.push(Problem { key, what });
    let Value::Array(cables) = value else {
        let what = format!("{value} is not a list; write its keys below [[cable]]");
        return problem("cable".into(), what);
    };
    for (index, cable) in cables.iter().enumerate() {
        let Value::Table(cable) = cable else {
            let what = format!("{cable} is not a table; write its keys below [[cable]]");
            problem(format!("cable[{index}]"), what);
            continue;
        };
        for (key, value) in cable {
            if let Err(what) = check(key, value) {
                problem(format!("cable[{index}].{key}"), what);
            }
        }
        if let Err(what) = check_together(cable) {
            problem(format!("cable[{index}]"), what);
        }
    }
}

fn check(key: &str, value: &Value) -> Result<(), String> {
    let Some(schema) = keys()
        .find(|known| known.name == key)
        .map(|known| &known.schema)
    else {
        return Err(unknown(key));
    };
    if !KEYS.iter().any(|of_impair| of_impair.name == key) {
        check_value(schema, value)?;
        let elements = value.as_array().into_iter().flatten();
        return elements
            .into_iter()
            .try_for_each(|element| check_value(&schema["items"], element));
    }
    let text = match value {
        Value::String(text) => text.clone(),
        // A filter that is compiled, or a table that is read: `run` has done it.
        Value::Table(_)
            if Table::from_iter([(key.to_owned(), value.clone())])
                .try_into::<ImpairKeys>()
                .is_ok() =>
        {
            return Ok(());
        }
        Value::Array(_) | Value::Table(_) => {
            return Err(format!("{value} is not a single value"));
        }
        other => other.to_string(),
    };
    match ImpairKeys::default().set(key, &text) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.what),
    }
}

fn keys() -> impl Iterator<Item = &'static schema::Key> {
    let cable = schema::table("cable");
    cable.into_iter().flat_map(|table| &table.keys)
}

fn unknown(key: &str) -> String {
    if let Some(near) = nearest(key, keys().map(|known| &*known.name)) {
        return format!("unknown key; did you mean {near}?");
    }
    let known: Vec<_> = keys().map(|known| &*known.name).collect();
    format!("unknown key; [[cable]] has {}", known.join(", "))
}

fn check_together(cable: &Table) -> Result<(), String> {
    match (cable.get("name"), cable.get("ends")) {
        (None, None) => Err(
            "neither name nor ends is there: name = \"iksb12\" changes a cable, ends = \
             [\"leaf1:u3\", \"leaf3:u5\"] makes one"
                .into(),
        ),
        (_, Some(Value::Array(ends))) if ends.len() != 2 => Err(format!(
            "ends names {} ports, a cable has two ends",
            ends.len()
        )),
        _ => Ok(()),
    }
}
