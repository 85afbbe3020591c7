//! The keys of an impairment, as the command line, the API and the TOML file have them.
//!
//! [`ImpairKeys`] holds each key that was given. [`ImpairKeys::overlay`] applies a change to what
//! was set before, [`ImpairKeys::settings`] converts all keys together to what the dataplane takes.
//! Both are pure. The names and meanings are those of tc-netem(8); units are always written out,
//! because a bare `10` means something else in every tool.

mod args;
mod build;
mod client_values;
mod json;
mod keys;
#[cfg(test)]
mod tests;
mod units;
mod values;

pub use client_values::{Match, Program, SlotInterval, Slots, Spread};
pub use json::KeysInJson;
pub use keys::{ImpairKeys, KEYS, Key};
pub use units::{BitRate, Bytes, Percent, Time, mebibytes};
pub use values::{BoundedInt, Flag, FrameNumbers, LossModel, Probability, QueueLimit, Value};

/// Why a text is not a valid value, and what would be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(pub(crate) String);

/// What is wrong with a key of an impairment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}")]
pub struct KeyError {
    /// The key's name in the TOML file.
    pub key: &'static str,
    /// What is wrong, and what to do about it.
    pub what: String,
}

/// Implements serde's traits for types that JSON and TOML write as the text that their `FromStr`
/// takes. A number or a boolean stands for its text.
macro_rules! as_text {
    (@one $type:ty $(, $($generic:tt)*)?) => {
        impl $(<$($generic)*>)? serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
        impl<'de $(, $($generic)*)?> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let scalar = $crate::impairment::Scalar::deserialize(from)?;
                scalar.to_string().parse().map_err(serde::de::Error::custom)
            }
        }
    };
    ($type:ident < $($name:ident),+ >, $($generic:tt)+) => {
        $crate::impairment::as_text!(@one $type<$($name),+>, $($generic)+);
    };
    ($($type:ty),+ $(,)?) => {
        $($crate::impairment::as_text!(@one $type);)+
    };
}
use as_text;

/// A number, a boolean or a text of JSON or TOML.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Scalar {
    Flag(bool),
    Integer(i64),
    Large(u64),
    Fraction(f64),
    Text(String),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Flag(flag) => flag.fmt(out),
            Scalar::Integer(number) => number.fmt(out),
            Scalar::Large(number) => number.fmt(out),
            Scalar::Fraction(number) => number.fmt(out),
            Scalar::Text(text) => text.fmt(out),
        }
    }
}
