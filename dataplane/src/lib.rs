//! The dataplane of ikv-fabric: a patch panel for layer 2.
//!
//! # How a frame travels
//!
//! A [`Port`] is one end of a cable: a tap that the fabric holds, a network device that
//! is there already, the rings of a vhost-user front end, or a queue in memory. A [`Cable`]
//! is exactly two ports and the two lanes between them, and belongs to one worker at a time.
//!
//! ```text
//!   port A ── receive ─> Burst ─> lane ── send ──> port B
//!          <─ release ──
//! ```
//!
//! A [`Burst`] says where frames lie; it need not hold them. What a guest sends stays in the
//! guest's memory until the lane has sent it on, and is copied once, into the memory of the
//! guest at the other end; then `release` gives the first guest its buffers back. Between a
//! tap and a guest the kernel does that copy.
//!
//! A worker (`worker.rs`) is a thread with a list of *hot* ports: those that carried frames
//! lately. It takes a [`Burst`] of at most 64 frames from each in turn, hands it to the
//! lane, and the lane sends it out at the cable's other end or counts why not
//! ([`DropReason`]). When no hot port has had a frame for some tens of microseconds the
//! worker sleeps in epoll over all its ports.
//!
//! That is the whole frame path. It takes no lock, allocates nothing, logs nothing and
//! shares nothing between workers: the burst's memory is the worker's own and reused, and
//! the counters ([`LaneStats`]) are written by one thread and read by any. For every lane
//! and at every instant, frames in = frames out + drops + held.
//!
//! # What a lane does besides
//!
//! A clean lane does nothing else. Where somebody asked for more, its burst takes another way
//! (`lane/impaired.rs`):
//!
//! ```text
//!   Burst ─> match? ─> cut to wire frames ─> judge ─┬─> at once ─> send ─> watch
//!                                                   ├─> hold ── at its time ──┘
//!                                                   └─> lost, and counted under a reason
//! ```
//!
//! [`impair`] judges: it is pure, with time and chance as arguments, and has the keys of
//! tc-netem(8). A frame that must wait is copied into the lane's `Hold`, or takes its memory with
//! it; all that it may ever need was reserved by whoever gave the command. Constant delay leaves
//! super-frames whole; all else acts on them as they would be on the wire. A worker with frames
//! that wait polls the clock for the last 120 µs, and before that sleeps until a timer wakes it.
//!
//! [`capture`] is who looks on: taps that hand every frame to one reader, and the flight recorder
//! that keeps the last ones. They are told what became of a frame, with its bytes, after it was
//! sent; where their memory is full the copy is lost, never the frame. Filters are classic BPF
//! ([`bpf`]), checked once and run before the copy.
//!
//! # Who tells a worker what to do
//!
//! The [`Panel`] does: it starts the workers and sends them commands over a bounded channel
//! with a wake-up. A command has taken effect when its call returns. What nobody asked for
//! (a port failed) comes back as an [`Event`]. When one worker is overloaded and another is
//! not, [`Panel::balance`] gives a busy cable from one to the other, between two bursts:
//! frames that come meanwhile wait in its ports.
//!
//! # Offloads
//!
//! Each frame comes with a virtio-net header ([`VnetHeader`]) that says which checksum is
//! unfinished and into which pieces a 64 KiB super-frame is to be cut. It passes through
//! untouched to a receiver that agreed to take such frames ([`Offloads`]). For any other the
//! lane finishes the checksum and cuts super-frames into wire frames as the kernel would
//! (`offload/cut.rs`): headers are copied, payloads stay where they lie.
//!
//! # Guests
//!
//! [`port::vhost_user`] is the rings, and all that a worker sees of a guest; [`vhost_sockets`] is the
//! sockets, the protocol, and one thread for all of them. A guest is not trusted: what it may
//! do to itself, and what it cannot do to others, stands in both.
//!
//! `unsafe` stands in [`sys`] and, for following pointers into guest memory, in
//! [`port::vhost_user`].

mod adaptive_poll;
#[cfg(any(test, fuzzing))]
pub mod arbitrary;
mod balance;
pub mod bpf;
mod cable;
mod cable_state;
pub mod capture;
pub mod clock;
mod command;
mod frame;
mod hold;
pub mod impair;
mod lane;
mod mailbox;
pub mod offload;
mod panel;
pub mod port;
mod reply;
pub mod rights;
mod side;
mod stats;
mod sync;
pub mod sys;
mod timer;
pub mod vhost_sockets;
mod worker;

pub use cable::Cable;
pub use cable_state::CableState;
pub use command::{CableId, EndedImpairment, Event};
pub use frame::{Burst, MAX_BURST, MAX_FRAME, MIN_FRAME, VnetHeader};
pub use lane::Accuracy;
pub use offload::Offloads;
pub use panel::{
    Answerer, CableHandle, Capture, Panel, PanelChange, PanelError, PanelOptions, close_cables,
};
pub use port::{Port, PortError};
pub use reply::Reply;
pub use side::Side;
pub use stats::{DropReason, Drops, ImpairmentCounts, LaneSnapshot, LaneStats};
pub use worker::Idle;
