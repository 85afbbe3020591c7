//! `[impair]`: what the impairments of all cables share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms::ByteSize;
use crate::impairment::Bytes;

/// The table `[impair]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Impair {
    /// Memory that the frames held back on all cables may take together; beyond it frames are dropped
    /// as `hold-memory`. Default: a quarter of the RAM.
    #[schemars(
        with = "Option<ByteSize>",
        example = &"4GiB",
        extend("x-minimum" = "1MiB", "x-maximum" = "64GiB")
    )]
    pub memory: Option<Bytes>,
}
