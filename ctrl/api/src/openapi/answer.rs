//! What a route answers when it does not refuse: [`Answer`].

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use crate::routes::Protocol;

/// The description of an answer that is no refusal.
pub(crate) struct Success {
    /// Its HTTP status.
    pub(crate) status: &'static str,
    /// An OpenAPI response.
    pub(crate) response: Value,
    /// What the request has to ask an upgrade of its connection to, if it is answered by that.
    pub(crate) upgrade: Option<&'static str>,
}

/// An answer that can be described: JSON of a type that has a schema, or something else that says itself
/// what it is.
pub(crate) trait Answer {
    /// Describes it. The schemas of its types may go to the generator.
    fn success(generator: &mut SchemaGenerator) -> Success;
}

impl<T: JsonSchema> Answer for T {
    fn success(generator: &mut SchemaGenerator) -> Success {
        let content = json!({ "application/json": { "schema": generator.subschema_for::<T>() } });
        Success {
            status: "200",
            response: json!({ "description": "The answer.", "content": content }),
            upgrade: None,
        }
    }
}

/// Describes a connection that becomes a stream.
pub(crate) fn upgraded<P: Protocol>(about: &str) -> Success {
    let name = P::NAME;
    let header = json!({ "schema": { "type": "string", "const": name } });
    Success {
        status: "101",
        response: json!({
            "description": format!("The connection carries a stream from now on. {about}"),
            "headers": { "Upgrade": header },
        }),
        upgrade: Some(name),
    }
}

/// Describes text that is not JSON, of this media type.
pub(crate) fn text(media_type: &str, about: &str) -> Success {
    let content = json!({ media_type: { "schema": { "type": "string" } } });
    Success {
        status: "200",
        response: json!({ "description": about, "content": content }),
        upgrade: None,
    }
}
