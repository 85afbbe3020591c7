//! The API described for programs, by the rules of OpenAPI 3.1: [`openapi()`].
//!
//! All of it is made from the [table of routes](crate::routes) and the types that it names, so a new
//! route cannot be forgotten: it does not compile before its types can be described.

mod answer;
mod components;
#[cfg(test)]
mod tests;
mod words;

use std::sync::LazyLock;

use hyper::Method;
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use crate::Failure;
use crate::routes::{self, Described};
use crate::server::refusals;
pub(crate) use answer::{Answer, Success, text, upgraded};
use components::{Components, answers, inputs};

/// Where the description's own parts are.
const RESPONSES: &str = "#/components/responses/";

/// What programs need to know that no route says.
const ABOUT: &str = "\
The API of a running fabric: HTTP/1.1 over a unix socket, /run/ikv-fabric/control.sock for root and \
$XDG_RUNTIME_DIR/ikv-fabric/control.sock for others. Its owner and root may connect.

A `GET` takes its input from the query, every other method from a body of JSON, in which whole numbers \
have no point (`5`, not `5.0`).

The server serves 128 clients at once. The head of a request must arrive within 10 s and its body within \
another 10 s; a body has at most 2 MiB. Every refusal has a sentence that names the way out.";

/// The description of the API, an OpenAPI 3.1 document in JSON. It is made once: however many clients
/// ask for it, they all get the same bytes.
pub fn openapi() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", document()));
    &TEXT
}

/// The same, as a value.
fn document() -> Value {
    let (mut inputs, mut answers) = (inputs(), answers());
    let failure = answers.subschema_for::<Failure>();
    let mut described: Vec<_> = routes::ALL
        .iter()
        .map(|route| {
            let success = (route.answer)(&mut answers);
            (route, request(route, &mut inputs), success)
        })
        .collect();
    let components = Components::of(inputs, answers);
    let mut paths = Map::new();
    for (route, mut operation, success) in described.drain(..) {
        let Success {
            status,
            mut response,
            upgrade,
        } = success;
        if let Some(protocol) = upgrade {
            let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
            if let Some(all) = parameters.as_array_mut() {
                all.push(in_header(protocol));
            }
        }
        components.rename(&mut response);
        let mut responses = Map::from_iter([(status.to_owned(), response)]);
        for (status, _) in refusals(has_body(route)) {
            let at = format!("{RESPONSES}{}", name_of(status));
            responses.insert(status.as_str().into(), json!({ "$ref": at }));
        }
        operation.insert("responses".into(), responses.into());
        let path = paths.entry(route.template).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation.into();
    }
    let refusals = refusals(true).into_iter().map(|(status, about)| {
        let content = json!({ "application/json": { "schema": failure } });
        let response = json!({ "description": about, "content": content });
        (name_of(status), response)
    });
    let refusals: Map<_, _> = refusals.collect();
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ikv-fabric",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{
            "url": "http://fabric",
            "description": "Over the fabric's unix socket; there the name of the host means nothing.",
        }],
        "paths": paths,
        "components": { "schemas": components.schemas, "responses": refusals },
    });
    components::with_bounds(&mut document);
    words::for_readers(&mut document);
    document["info"]["description"] = ABOUT.into();
    document
}

/// All of an operation but its responses.
fn request(route: &Described, inputs: &mut SchemaGenerator) -> Map<String, Value> {
    let text = words::joined(route.about);
    let (summary, description) = words::first_sentence(&text);
    let mut operation = Map::from_iter([
        ("operationId".to_owned(), words::camel(route.name).into()),
        ("summary".to_owned(), summary.into()),
    ]);
    if !description.is_empty() {
        operation.insert("description".into(), description.into());
    }
    let mut parameters: Vec<Value> = names_in(route.template).map(in_path).collect();
    if has_body(route) {
        let content = json!({ "application/json": { "schema": (route.body)(inputs) } });
        let body = json!({ "required": true, "content": content });
        operation.insert("requestBody".into(), body);
    } else {
        parameters.extend(in_query((route.query)(inputs).to_value()));
    }
    if !parameters.is_empty() {
        operation.insert("parameters".into(), parameters.into());
    }
    operation
}

fn has_body(route: &Described) -> bool {
    route.method != Method::GET
}

/// The segments of a path that stand in braces, without them.
fn names_in(template: &str) -> impl Iterator<Item = &str> {
    let segments = template.split('/');
    segments.filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

fn in_path(name: &str) -> Value {
    let about = match name {
        "cable" => "A cable by its name, either of its ends, or an alias of one: iksb12, spine1:2.",
        "node" => "A switch's name: leaf1.",
        "position" => {
            "A position, for all its NICs, or one NIC: rack1:u3, rack1:u3:1, ikvm1-3-1; or ipmi."
        }
        "dump" => "The name of a dump that was kept.",
        _ => words::UNDESCRIBED,
    };
    json!({
        "name": name,
        "in": "path",
        "required": true,
        "description": about,
        "schema": { "type": "string" },
    })
}

fn in_header(protocol: &str) -> Value {
    json!({
        "name": "Upgrade",
        "in": "header",
        "required": true,
        "description": "What the connection is to carry; the header `Connection: upgrade` goes with it.",
        "schema": { "type": "string", "const": protocol },
    })
}

/// A parameter for each key of an object.
fn in_query(mut object: Value) -> Vec<Value> {
    let required = object["required"].take();
    let Value::Object(properties) = object["properties"].take() else {
        return Vec::new();
    };
    let parameter = |(name, mut schema): (String, Value)| {
        let named = |required: &Value| *required == name;
        let must = required.as_array().is_some_and(|all| all.iter().any(named));
        let about = schema
            .as_object_mut()
            .and_then(|keys| keys.remove("description"));
        json!({
            "name": name,
            "in": "query",
            "required": must,
            "description": about.unwrap_or_else(|| words::UNDESCRIBED.into()),
            "schema": schema,
        })
    };
    properties.into_iter().map(parameter).collect()
}

/// The name of a refusal's description: `NotFound`.
fn name_of(status: hyper::StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or(status.as_str());
    reason.replace(' ', "")
}
