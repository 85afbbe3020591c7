//! The description is complete, and one by the rules of OpenAPI 3.1.0: the sections named are its.

use std::collections::BTreeSet;

use super::*;
use components::each_reference;

/// Each operation with its path and method.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().iter();
            methods.map(move |(method, operation)| (&**path, &**method, operation))
        })
        .collect()
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

#[test]
fn the_description_is_this() {
    insta::assert_snapshot!("openapi", openapi());
}

#[test]
fn every_route_is_in_it_and_nothing_else() {
    let document = document();
    let described: BTreeSet<_> = operations(&document)
        .into_iter()
        .map(|(path, method, _)| format!("{} {path}", method.to_uppercase()))
        .collect();
    let routes = routes::ALL.iter();
    let table: BTreeSet<_> = routes
        .map(|route| format!("{} {}", route.method, route.template))
        .collect();
    assert_eq!(described, table);
    assert_eq!(
        described.len(),
        routes::ALL.len(),
        "two routes are the same"
    );
}

/// 4.8.10, 4.8.12: ids are unique, and each name in a path is a parameter that is required.
#[test]
fn operations_and_their_parameters_are_whole() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let id = text(operation, "operationId");
        assert!(!id.is_empty() && ids.insert(id), "{method} {path}: {id}");
        assert!(!text(operation, "summary").is_empty(), "{id}");
        let none = Vec::new();
        let parameters = operation["parameters"].as_array().unwrap_or(&none);
        let mut names = BTreeSet::new();
        for parameter in parameters {
            let (name, place) = (text(parameter, "name"), text(parameter, "in"));
            assert!(names.insert((place, name)), "{id}: {name} twice");
            assert!(parameter["schema"].is_object(), "{id}: {name}");
            assert_ne!(text(parameter, "description"), "", "{id}: {name}");
            match place {
                "path" => assert_eq!(parameter["required"], true, "{id}: {name}"),
                "query" => assert_eq!(method, "get", "{id}: {name}"),
                "header" => {
                    assert_eq!(name, "Upgrade", "{id}");
                    assert!(operation["responses"]["101"].is_object(), "{id}");
                }
                other => panic!("{id}: {name} is in {other}"),
            }
        }
        let in_path: BTreeSet<_> = names.iter().filter(|(place, _)| *place == "path").collect();
        let wanted: BTreeSet<_> = names_in(path).map(|name| ("path", name)).collect();
        assert_eq!(in_path, wanted.iter().collect(), "{id}");
        assert_eq!(
            operation["requestBody"].is_object(),
            method != "get",
            "{id}"
        );
    }
}

/// 4.8.17: a response has a description; 4.8.16: a request has a success, and here its refusals.
#[test]
fn every_operation_says_how_it_ends() {
    let document = document();
    for (path, method, operation) in operations(&document) {
        let responses = operation["responses"].as_object().unwrap();
        let successes = responses
            .keys()
            .filter(|status| !status.starts_with(['4', '5']));
        assert_eq!(successes.count(), 1, "{method} {path}");
        assert!(
            responses.contains_key("404") && responses.contains_key("502"),
            "{path}"
        );
        assert_eq!(responses.contains_key("422"), method != "get", "{path}");
        for (status, response) in responses {
            let found = match response["$ref"].as_str() {
                Some(reference) => document.pointer(&reference[1..]).unwrap(),
                None => response,
            };
            assert!(!text(found, "description").is_empty(), "{path} {status}");
        }
    }
    let failure = document.pointer("/components/schemas/Failure").unwrap();
    assert_eq!(failure["required"], json!(["error"]));
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_used() {
    let mut document = document();
    let mut references = BTreeSet::new();
    each_reference(&mut document, &mut |reference| {
        references.insert(reference.clone());
    });
    for reference in &references {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    for kind in ["schemas", "responses"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
            assert!(name.chars().all(plain), "4.8.7: {name}");
            let used = references.contains(&format!("#/components/{kind}/{name}"));
            assert!(used, "{kind} {name}");
        }
    }
}

#[test]
fn everything_in_it_is_described() {
    let text = openapi();
    for leftover in [words::UNDESCRIBED, "[`", "`None`"] {
        assert!(!text.contains(leftover), "{leftover}");
    }
}

/// A key with a default may be left out of a request, and is always in an answer.
#[test]
fn what_is_asked_and_what_is_answered_are_told_apart() {
    let document = document();
    let schema = |name: &str| &document["components"]["schemas"][name];
    assert_eq!(schema("ImpairmentChange")["required"], Value::Null);
    let answered = &schema("ImpairmentChangeAnswered")["required"];
    assert_eq!(*answered, json!(["clear", "set"]));
    // It differs only in what it names.
    let changes = &schema("CableBatch")["properties"]["changes"]["items"]["$ref"];
    assert_eq!(changes, "#/components/schemas/CableChange");
    let settings = &schema("Difference")["properties"]["settings"]["items"]["$ref"];
    assert_eq!(settings, "#/components/schemas/CableChangeAnswered");
    assert_eq!(
        schema("ImpairmentAnswered"),
        &Value::Null,
        "the same both ways"
    );
}
