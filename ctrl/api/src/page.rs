//! The page of a fabric.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the page is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PageLink {
    /// The whole link. Whoever has it controls the fabric as its owner does.
    pub link: String,
}
