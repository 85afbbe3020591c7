//! The page of a fabric.

use serde::{Deserialize, Serialize};

/// Where the page is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageLink {
    /// The whole link. Whoever has it controls the fabric as its owner does.
    pub link: String,
}
