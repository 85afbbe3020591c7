//! What a fabric changes on its host, and how that is undone: links, addresses, the route, NAT, what
//! may pass between fabric, host and neighbours, the guard on taps, forwarding.
//!
//! ```text
//!  HostPlanInput ──plan──> [HostStep] ──execute──> HostChanges ──undo (or drop)──> host as before
//!                                        │  ▲
//!                     written before each▼  │read by `clean` after a fabric was killed
//!                                       journal
//! ```
//!
//! [`plan`] is pure: it decides what must exist on the host, and in which order. [`execute`] writes
//! to the [`journal`] how a step is undone, performs the step, and undoes all of them at the end.
//! [`links`], [`address`], [`nft`] and [`sysctl`] each change one kind of thing and decide nothing;
//! [`netlink`] carries their requests to the kernel.
//!
//! [`cgroup`] limits the memory and the tasks of a child process.
//!
//! [`folder`] is where files are made and removed as root without following links. [`lock`] lets one fabric at a time use a socket, and names all of a fabric's files. [`others`] finds out which fabric made what is on the host. [`watch`]
//! reports what happens to our links while the fabric runs. [`alarm`] wakes the fabric when another program
//! may have taken something else of ours away, and [`upkeep`] tells what. [`firewall`] looks for rules of the host
//! that would drop the fabric's traffic; it changes nothing.
//!
//! Everything acts in the network namespace of the calling thread, so a fabric started by
//! `ip netns exec` changes nothing outside of that namespace. All calls block but those of [`watch`] and [`alarm`].
//!
//! This crate uses `model` and the system calls of `dataplane`; `vm`, `fabric` and the binary may
//! use it.

pub mod address;
pub mod alarm;
pub mod cgroup;
mod error;
pub mod execute;
pub mod firewall;
pub mod folder;
pub mod journal;
pub mod links;
pub mod lock;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod os_release;
pub mod others;
pub mod packages;
pub mod plan;
pub mod program;
pub mod rootless;
pub mod sysctl;
pub mod upkeep;
pub mod watch;

pub use error::HostError;
