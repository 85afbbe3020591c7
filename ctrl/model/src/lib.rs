//! What a fabric is made of, as values: what the user wrote, and what follows from it.
//!
//! ```text
//!  TOML file ─ config::load ─> Config ─ topology::build ─> Topology ─┬─ switch_conf ─> frr-conf
//!                                │                                   ├─ cables, ends ─> fabric
//!                                └─────────── difference ────────────┘  what `apply` changes
//! ```
//!
//! Everything here is pure: functions of their input, without a clock, a socket, an async runtime
//! or a process. The one exception reads the files that the user names ([`config::load`], filters
//! and delay tables in [`impairment`]). All other crates of `ctrl` may use this one; it uses
//! `frr-conf` and the plain value types of `dataplane`.
//!
//! - [`config`]: the TOML file as written, with every default in place.
//! - [`topology`]: the typed model that follows from it: names, addresses, cables, ends.
//! - [`impairment`]: the keys by which commands, API and TOML file say what a cable does to frames.
//! - [`cable_change`], [`plugging`], [`power`]: what API, configuration and VMs all say of cables
//!   and VMs.
//! - [`difference`]: what has to change to turn one running fabric into another.
//! - [`import`]: ikvswitch's configuration as ours.
//! - [`mac`]: MAC addresses, of the plan and of any frame.
//! - [`printable`]: bytes from a guest, made safe to print; [`utc`]: times as text; [`wording`]:
//!   libraries' sentences in plain words.
//! - [`bounded`]: files that a person names, up to a bound.

pub mod bounded;
pub mod cable_change;
pub mod config;
pub mod difference;
pub mod impairment;
pub mod import;
pub mod mac;
pub mod plugging;
pub mod power;
pub mod printable;
pub mod topology;
pub mod utc;
pub mod wording;
