//! A running fabric: cables, switches, the host's part, and what clients ask of them.
//!
//! ```text
//!  Options ── bring_up ──> Running ── owns ──> Host, PatchPanel, Fabric
//!             preflight                          │        │        │
//!                                    links, routes    workers    switches: VMs, BMCs, displays
//!                                                     cables ──> capture, recorder
//! ```
//!
//! [`bring_up()`] makes a [`Fabric`] stage by stage; [`Running`] owns what exists at every moment and
//! takes it away. [`Fabric`] answers the API ([`api::Backend`]): requests about cables by
//! `cable_requests`, which [`Patch`], a single wire, shares; requests about switches by `switches`.
//! `apply` (`change`) makes another fabric of a running one.
//!
//! What a fabric consists of at one moment is an immutable `FabricState`; `Live` holds the present
//! one, together with the host, the occupancy of the ends and the notices for the user. Tasks follow
//! devices (`links`), cables (`cable_events`) and switches.
//!
//! Everything runs on one thread, which must not block: what waits for a worker is `async`, and what
//! waits for the kernel, a disk or `nft` runs on a thread of its own (`off_thread`). Children are
//! started on the main thread, because they end with the thread that started them; `nft` may not be
//! waited for there.

mod bring_up;
mod cable_events;
mod cable_requests;
mod cables;
mod capture;
mod change;
mod descriptors;
mod fabric;
mod files;
mod host;
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
mod switches;
pub mod vm_args;

pub use bring_up::{Running, bring_up, listen};
pub use cables::error::CablesError;
pub use fabric::Fabric;
pub use files::FileError;
pub use options::{BringUpError, Options};
pub use owner::{NoSuchUser, Person};
pub use patch::{Patch, PortSpec};
pub use recorder::options::RecorderOptions;
