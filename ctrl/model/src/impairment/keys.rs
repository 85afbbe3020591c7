//! All keys of an impairment, in one table: a new key is a line here and its meaning in `build`.

use serde::{Deserialize, Serialize};

use super::{
    BitRate, BoundedInt, Flag, FrameNumbers, KeyError, LossModel, Match, Percent, Probability,
    QueueLimit, Slots, Spread, Time, Value,
};

/// A key, as help and messages describe it.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The name in the TOML file and in JSON, such as `cell_overhead`.
    pub name: &'static str,
    /// The form of its value, such as `TIME`.
    pub takes: &'static str,
    /// A value of this form.
    pub example: &'static str,
    /// The most words that its value has.
    pub words: usize,
    /// What it does, in one line.
    pub help: &'static str,
}

impl Key {
    /// Its name as an option, without the dashes before it.
    pub fn option(&self) -> &'static str {
        match self.name {
            "cell_overhead" => "cell-overhead",
            name => name,
        }
    }
}

macro_rules! keys {
    ($($field:ident $name:literal: $type:ty, $words:literal $takes:literal such as $example:literal, $help:literal;)+) => {
        /// The keys of an impairment or of a change to one. A change leaves keys that it does not
        /// give as they are.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct ImpairKeys {
            $(
                #[doc = $help]
                #[serde(rename = $name, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )+
        }

        /// Every key, in the order of tc-netem(8); those of our own last.
        pub const KEYS: &[Key] = &[
            $(Key { name: $name, takes: $takes, example: $example, words: $words, help: $help },)+
        ];

        impl ImpairKeys {
            /// Sets a key by its name in the TOML file; `false` if there is no such key.
            ///
            /// # Errors
            /// What is wrong with the text.
            pub fn set(&mut self, key: &str, text: &str) -> Result<bool, KeyError> {
                match key {
                    $($name => {
                        let value = text.parse::<$type>().map_err(|error| KeyError {
                            key: $name,
                            what: error.to_string(),
                        })?;
                        self.$field = Some(value);
                        Ok(true)
                    })+
                    _ => Ok(false),
                }
            }

            /// The keys that are set, and their values, in the order of [`KEYS`].
            pub fn pairs(&self) -> Vec<(&'static str, String)> {
                let mut pairs = Vec::new();
                $(pairs.extend(self.$field.as_ref().map(|value| ($name, value.to_string())));)+
                pairs
            }

            fn take_from(&mut self, over: ImpairKeys) {
                $(if over.$field.is_some() { self.$field = over.$field; })+
            }

            fn remove_off(&mut self) {
                $(if self.$field.as_ref().is_some_and(Value::is_off) { self.$field = None; })+
            }
        }
    };
}

/// A count that fits into 32 bits.
type Count = BoundedInt<0, 1_000_000_000>;
/// A number of bytes that may be negative.
type Extra = BoundedInt<-65_535, 65_535>;
/// The seed of the random numbers.
type Seed = BoundedInt<1, { i64::MAX }>;

keys! {
    delay "delay": Time, 1 "TIME" such as "10ms", "Every frame waits this long";
    jitter "jitter": Time, 1 "TIME" such as "1ms", "How much the delay varies";
    correlation "correlation": Percent, 1 "SHARE" such as "25%", "How much a frame's jitter is that of the frame before";
    distribution "distribution": Spread, 1 "uniform|normal|pareto|paretonormal|FILE" such as "normal", "How the jitter is distributed; FILE: a table as tc has them, read by the client";
    loss "loss": LossModel, 6 "SHARE|MODEL" such as "1%", "Frames are lost: \"1%\", \"1% 25%\" with correlation, \"gemodel P R 1-H 1-K\" or \"state P13 P31 P32 P23 P14\"";
    ecn "ecn": Flag, 1 "true|false" such as "true", "Frames of ECN-capable flows are marked instead of lost";
    duplicate "duplicate": Probability, 2 "SHARE" such as "0.1%", "Frames go out twice: \"1%\", or \"1% 25%\" with correlation";
    corrupt "corrupt": Probability, 2 "SHARE" such as "0.1%", "One bit of a frame is flipped: \"1%\", or \"1% 25%\" with correlation";
    reorder "reorder": Probability, 2 "SHARE" such as "25% 50%", "Frames overtake those that are delayed: \"25%\", or \"25% 50%\" with correlation";
    gap "gap": Count, 1 "N" such as "5", "With reorder: of N frames at most one overtakes";
    rate "rate": BitRate, 1 "RATE" such as "1gbit", "How fast the line is, in bits per second of frame bytes without FCS; \"none\": as fast as it can";
    overhead "overhead": Extra, 1 "BYTES" such as "24", "With rate: bytes that a frame takes on the line beyond its own (Ethernet: 24)";
    cell "cell": BoundedInt<0, 65_535>, 1 "BYTES" such as "48", "With rate: the line carries cells of this many bytes, and fills up the last one (ATM: 48)";
    cell_overhead "cell_overhead": BoundedInt<-1_024, 1_024>, 1 "BYTES" such as "5", "With cell: bytes that a cell takes beyond its payload (ATM: 5)";
    limit "limit": QueueLimit, 1 "BYTES|FRAMESp" such as "2MB", "How much may wait: \"2MB\", or \"1000p\" frames; \"none\": what the delay needs at full speed";
    slot "slot": Slots, 8 "MIN [MAX]" such as "1ms 2ms packets 10", "Frames gather and leave in bursts: \"MIN MAX packets N bytes N\", all but MIN may be left out, or \"distribution NAME DELAY JITTER …\"";
    seed "seed": Seed, 1 "N" such as "42", "The same seed and the same frames give the same verdicts";
    matches "match": Match, 1 "EXPRESSION" such as "tcp port 179", "Only frames that this tcpdump expression matches; \"none\": all";
    drop_nth "drop": FrameNumbers, 1 "N,N-N" such as "3,7,20-25", "Exactly these of the matching frames are lost, from 1: \"3,7,20-25\"";
}

impl ImpairKeys {
    /// Whether no key is set.
    pub fn is_empty(&self) -> bool {
        *self == ImpairKeys::default()
    }

    /// Applies the change `over`: its keys replace ours, the others keep their values. A key that
    /// it switches off is removed, together with the keys that have no effect without it.
    #[must_use]
    pub fn overlay(mut self, over: ImpairKeys) -> Self {
        let off = |value: Option<bool>| value == Some(true);
        if off(over.jitter.as_ref().map(Value::is_off)) {
            (self.correlation, self.distribution) = (None, None);
        }
        if off(over.loss.as_ref().map(Value::is_off)) {
            self.ecn = None;
        }
        if off(over.reorder.as_ref().map(Value::is_off)) {
            self.gap = None;
        }
        if off(over.rate.as_ref().map(Value::is_off)) {
            (self.overhead, self.cell, self.cell_overhead) = (None, None, None);
        }
        if off(over.cell.as_ref().map(Value::is_off)) {
            self.cell_overhead = None;
        }
        self.take_from(over);
        self.remove_off();
        self
    }

    /// In one line, without the seed: `delay 10ms jitter 1ms loss 1%`.
    pub fn words(&self) -> String {
        let pairs = self.pairs().into_iter().filter(|(key, _)| *key != "seed");
        let words: Vec<_> = pairs
            .map(|(key, value)| match key {
                "match" => format!("match '{value}'"),
                "ecn" => "ecn".into(),
                _ => format!("{key} {value}"),
            })
            .collect();
        words.join(" ")
    }
}
