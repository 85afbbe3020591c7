//! How a fabric comes up.
//!
//! ```text
//!  TOML file ─config─> Config ─topology─> Topology ─plan─> steps ─apply─> host as planned
//!                                            │                               │ taps
//!                                            ├── ends, cables ──> dataplane: Panel, VhostUserSockets
//!                                            └─ switch_conf ─ frr-conf ─ seeds ─ vm ─> nine QEMUs
//! ```
//!
//! [`config`] reads what the user wrote, [`topology`] makes the typed model of it; both are
//! pure, and whatever is wrong is found there. [`preflight`] looks whether this host can carry
//! it. [`plan`] says what must exist on the host and in which order, [`apply`] does it, having
//! written down in the [`journal`] how to take it back, and [`host`] holds the single skills
//! (links, addresses, nftables, sysctls). [`image`] provides the one image that all switches
//! boot, [`vm`] starts them, from saved states where it can, and supervises them, [`bmc`] gives them BMCs. [`fabric`] is the running
//! whole; it answers for itself by the [`api`], of which the [`commands`] are clients.
//! [`impairment`] has the keys by which commands, API and TOML file say what a cable does to its
//! frames.
//!
//! A running fabric becomes another one by `ikv-fabric apply`: [`difference`] says what of it is to
//! be made, taken and left alone, which is pure, and [`fabric`] does it.
//!
//! [`decode`] reads what is in a frame: for lines of a capture, for what triggers the flight
//! recorder, and for `converge`.
//!
//! Everything runs on one thread under tokio; frames are moved by the dataplane's workers, and
//! vhost-user front ends are served by its vhost-user sockets: this crate only sends them commands. Once the
//! fabric stands, it gives up every right of root's that it does not need any more, and those
//! threads all of them.

pub mod api;
pub mod apply;
pub mod bmc;
pub mod commands;
pub mod config;
pub mod decode;
pub mod difference;
pub mod fabric;
pub mod host;
pub mod image;
pub mod impairment;
pub mod import;
pub mod journal;
pub mod lock;
pub mod plan;
pub mod preflight;
pub mod progress;
pub mod topology;
pub mod vm;
