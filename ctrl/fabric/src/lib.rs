//! A running fabric: its cables, its switches, its changes to the host, and the answers to its
//! clients.
//!
//! ```text
//!  Options ── bring_up ──> Running ── owns ──> Host, PatchPanel, Fabric
//!             preflight                          │        │        │
//!                                    links, routes    workers    switches: VMs, BMCs, displays
//!                                                     cables ──> capture, recorder
//! ```
//!
//! [`bring_up()`] makes a [`Fabric`] stage by stage; [`Running`] owns what exists at every moment
//! and removes it. [`Fabric`] answers the API ([`api::Backend`]): `cable_requests`, which [`Patch`]
//! (a single wire) shares, answers requests about cables, and `switches` those about switches.
//! `apply` (`change`) turns a running fabric into another one.
//!
//! An immutable `FabricState` describes what a fabric consists of at one moment. `Live` holds the
//! current one, together with the host, the occupancy of the ends and the notices for the user.
//! Tasks follow devices (`links`), cables (`cable_events`) and switches; one looks after the workers,
//! and a task that ends although it should not is said (`supervision`). What happens is written down for
//! clients that follow it (`events`). `upkeep` puts back what another
//! program takes from the host.
//!
//! Everything runs on one thread, which must not block: calls that wait for a worker are `async`,
//! and work that waits for the kernel, a disk or `nft` runs on a thread of its own (`off_thread`).
//! Long-lived children are started on the main thread, because they end with the thread that
//! started them. `nft` is short-lived and runs on such a thread of its own.

mod accepted;
mod bring_up;
mod cable_events;
mod cable_requests;
mod cables;
mod capture;
mod change;
mod descriptors;
mod events;
mod fabric;
mod files;
mod host;
mod jail;
mod learning;
mod links;
mod live;
mod notices;
mod occupancy;
mod off_thread;
mod options;
mod owner;
mod patch;
mod positions;
pub mod preflight;
pub mod progress;
mod readiness;
pub mod reconfigure;
mod recorder;
mod rights;
mod state;
mod stop;
mod supervision;
mod switches;
mod upkeep;
pub mod vm_args;
mod way_out;

pub use bring_up::{Running, bring_up, listen};
pub use cables::error::CablesError;
pub use fabric::Fabric;
pub use files::FileError;
pub use options::{BringUpError, Options};
pub use owner::{NoSuchAccount, Person};
pub use patch::{Patch, PortSpec};
pub use recorder::options::RecorderOptions;
