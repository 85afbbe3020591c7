//! The dataplane of ikv-fabric: a patch panel for layer 2.
//!
//! In it: ports, the cables that join them, the threads that move frames, and what a cable can do to
//! frames on purpose. It knows no configuration, no names of switches and no API: the crates of
//! `ctrl/` open ports, make cables of them and send commands. Nothing here needs an async runtime.
//!
//! # How a frame travels
//!
//! A [`Port`] is one end of a cable: a tap that the fabric holds, an existing network device, the
//! rings of a vhost-user front end, or a queue in memory. A [`Cable`] is exactly two ports and the
//! two lanes between them, and belongs to one worker at a time.
//!
//! ```text
//!   port A ── receive ─> Burst ─> lane ── send ──> port B
//!          <─ release ──
//! ```
//!
//! A [`Burst`] says where frames lie; it need not hold them. A frame that a guest sends stays in the
//! guest's memory until the lane has sent it on, and is copied once, into the memory of the
//! guest at the other end; then `release` gives the first guest its buffers back. Between a
//! tap and a guest the kernel makes that copy.
//!
//! A worker (`worker/mod.rs`) is a thread with a list of *active* ports: those that carried frames
//! lately. From each in turn it receives a [`Burst`] of at most 64 frames and hands it to the lane
//! (`lane/mod.rs`). The lane sends the frames out at the cable's other end, or counts why not
//! ([`DropReason`]). A burst ends early when it is the work of a whole turn (`work.rs`), and a lane that
//! had more of the worker than others that have frames waits until they have caught up
//! (`worker/shares.rs`): its frames stay with the sender, and how often it waits is counted. When no
//! active port has had a frame for some tens of microseconds the worker sleeps in epoll over all its
//! ports.
//!
//! That is the whole frame path. It takes no lock, allocates nothing, logs nothing and
//! shares nothing between workers, but for the budget of held frames (below): the burst's memory is
//! the worker's own and reused, and the counters ([`LaneStats`]) are written by one thread and read by any. For every lane
//! and at every instant, frames in = frames out + drops + held.
//!
//! # Impairments
//!
//! Most lanes only forward. A lane with an impairment sends its bursts another way
//! (`lane/impaired.rs`):
//!
//! ```text
//!   Burst ─> match? ─> cut to wire frames ─> judge ─┬─> at once ─> send ─> taps
//!                                                   ├─> hold ─ when it is due ┘
//!                                                   └─> lost, and counted under a reason
//! ```
//!
//! [`impair`] judges: it is pure, with time and randomness as arguments, and has the keys of
//! tc-netem(8). A frame that must wait is copied into the lane's `Hold`, or takes its memory with it.
//! The command that sets an impairment reserves all the address space that it may need, before the
//! worker sees it. What is used of it counts against one budget of all lanes ([`HoldMemory`]), 2 MiB
//! at a time, until control frees it with the impairment. Constant delay leaves super-frames whole;
//! every other key acts on frames as they would be on the wire. A worker in which frames wait sleeps until a timer wakes it 120 µs before the
//! first is due, and polls the clock from then on.
//!
//! # Captures
//!
//! [`capture`] observes lanes: a tap hands every frame to one reader, the flight recorder keeps the
//! last ones. The lane reports to both what became of a frame, with its bytes, after it was sent.
//! Where their memory is full the copy is lost, never the frame. Filters are classic BPF
//! ([`bpf`]), checked once and run before the copy.
//!
//! # Commands
//!
//! The [`Panel`] starts the workers and sends them commands over a bounded channel with a wake-up.
//! Each call returns a [`Reply`] at once: a future that is ready when the command has taken effect,
//! so that no thread of control has to wait for a worker. A failed port, and the end of an
//! impairment, come back without a command, as an [`Event`]. When one worker is overloaded and
//! another is not, [`Panel::balance`] moves a busy cable between them, between two bursts: frames
//! that come meanwhile wait in its ports. The workers end with the panel's last handle.
//!
//! # Faults of our own
//!
//! A panic in a worker closes the cable whose frame was in hand ([`Event::CableClosed`]) and no other:
//! its frames are dropped as [`DropReason::Fault`], its ports stay and are not looked at, until its
//! state is set to up. Each worker counts its turns and notes what it has in hand;
//! [`Panel::look`] compares, and so names a worker that hangs.
//!
//! # Offloads
//!
//! Each frame comes with a virtio-net header ([`VnetHeader`]) that says which checksum is
//! unfinished and into which pieces a 64 KiB super-frame is to be cut. It passes through
//! untouched to a receiver that agreed to take such frames ([`Offloads`]). For any other receiver the
//! lane finishes the checksum and cuts super-frames into wire frames as the kernel would
//! (`offload/cut.rs`): headers are copied, payloads stay where they lie. A super-frame in a tunnel, or
//! behind a tag that Linux does not know, is always cut: its virtio-net header cannot say what it is.
//!
//! # Guests
//!
//! [`port::vhost_user`] is the rings, and all that a worker sees of a guest; [`vhost_sockets`] is the
//! sockets, the protocol, and one thread for all of them. A guest is not trusted: both say what a
//! guest may do to itself and why it cannot harm others.
//!
//! Each thread gives up what it does not need once it has set itself up: rights of root ([`rights`])
//! and system calls ([`seccomp`]).
//!
//! # `unsafe`
//!
//! Only [`sys`] and, to follow pointers into guest memory, [`port::vhost_user`] contain it.

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
pub mod seccomp;
mod side;
mod stats;
mod sync;
pub mod sys;
mod timer;
pub mod vhost_sockets;
mod work;
mod worker;

pub use cable::Cable;
pub use cable_state::CableState;
pub use command::{CableId, EndedImpairment, Event};
pub use frame::{Burst, MAX_BURST, MAX_FRAME, MIN_FRAME, Offloads, VnetHeader};
pub use hold::{HoldMemory, quarter_of_ram};
pub use lane::Accuracy;
pub use panel::{
    Answerer, CableHandle, Capture, Panel, PanelChange, PanelError, PanelOptions, WorkerState,
    close_cables,
};
pub use port::{Port, PortError};
pub use reply::Reply;
pub use side::Side;
pub use stats::{DropReason, Drops, ImpairmentCounts, LaneSnapshot, LaneStats};
pub use worker::{Idle, panic_text};
