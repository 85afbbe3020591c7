//! The cables of a topology: which of the panel's cables is which, and what state it is in.
//!
//! [`PatchPanel`] owns the threads, [`Cables`] names what they carry. Every call that waits for a
//! worker is `async`: the thread that serves the API must not block.

pub(crate) mod accuracy;
pub(crate) mod batch;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod names;
pub(crate) mod open;
pub(crate) mod panel;
pub(crate) mod plan;
pub(crate) mod plug;
pub(crate) mod report;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use dataplane::capture::{RecorderReader, TapSpec};
use dataplane::vhost_sockets::SocketId;
use dataplane::{CableHandle, CableId, Capture, DropReason, PanelError, clock};

use dataplane::Side;
use error::CablesError;
use model::cable_change::CableState;
use model::impairment::ImpairKeys;
use open::moved_away;
use panel::{PatchPanel, answer};
use plan::open_netdev;

/// The cables of a topology, by their index in it.
///
/// A handle: clones are the same cables.
#[derive(Clone)]
pub(crate) struct Cables {
    panel: PatchPanel,
    cables: Vec<Arc<PluggedCable>>,
}

/// A cable that is plugged in.
pub(crate) struct PluggedCable {
    name: String,
    ends: [PluggedEnd; 2],
    handle: CableHandle,
    condition: Mutex<Condition>,
}

/// What was made of a cable by request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    pub(crate) state: CableState,
    /// By the side where the lane begins.
    pub(crate) impairments: [ImpairKeys; 2],
}

struct PluggedEnd {
    name: String,
    socket: Option<SocketId>,
    /// See [`plan::PlannedSocket::file`].
    file: Option<PathBuf>,
}

impl PluggedCable {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn condition(&self) -> MutexGuard<'_, Condition> {
        let condition = self.condition.lock();
        condition.expect("no holder of this lock can panic")
    }
}

impl Cables {
    /// No cables yet, on this panel.
    pub(crate) fn none(panel: PatchPanel) -> Self {
        let cables = Vec::new();
        Cables { panel, cables }
    }

    /// These cables, on the same panel.
    pub(crate) fn with(&self, cables: Vec<Arc<PluggedCable>>) -> Self {
        let panel = self.panel.clone();
        Cables { panel, cables }
    }

    /// One cable, as [`Cables::with`] takes it.
    pub(crate) fn plugged(&self, index: usize) -> &Arc<PluggedCable> {
        &self.cables[index]
    }

    pub(crate) fn len(&self) -> usize {
        self.cables.len()
    }

    pub(crate) fn panel(&self) -> &PatchPanel {
        &self.panel
    }

    pub(crate) fn name(&self, index: usize) -> &str {
        &self.cables[index].name
    }

    pub(crate) fn end_names(&self, index: usize) -> [&str; 2] {
        let [a, b] = &self.cables[index].ends;
        [&a.name, &b.name]
    }

    fn id(&self, index: usize) -> CableId {
        self.cables[index].handle.id
    }

    pub(crate) fn state(&self, index: usize) -> CableState {
        self.condition(index).state
    }

    pub(crate) fn condition(&self, index: usize) -> Condition {
        self.cables[index].condition().clone()
    }

    /// Records what the panel makes of a cable. Returns what it was before.
    pub(crate) fn set_condition(&self, index: usize, now: Condition) -> Condition {
        std::mem::replace(&mut *self.cables[index].condition(), now)
    }

    /// Moves what is recorded of every cable to the time since 1970; see
    /// [`PatchPanel::wall_offset`].
    pub(crate) fn wall_offset(&self) -> u64 {
        self.panel.wall_offset()
    }

    /// Now, in ns since 1970, by the clock of the captures.
    pub(crate) fn wall_clock(&self) -> u64 {
        clock::now() + self.wall_offset()
    }

    /// Sets whether a front end at an end has carrier. Without it the front end is disconnected,
    /// and none can connect.
    ///
    /// # Errors
    /// When the sockets' thread does not answer.
    pub(crate) async fn set_carrier(
        &self,
        index: usize,
        side: Side,
        up: bool,
    ) -> Result<(), PanelError> {
        let end = &self.cables[index].ends[side as usize];
        let Some(socket) = end.socket else {
            return Ok(());
        };
        answer(self.panel.sockets.set_carrier(socket, up)).await?;
        // QEMU prints three lines for every connection that is closed at once, and none for one
        // that it cannot make.
        if let Some(file) = &end.file {
            let aside = moved_away(file);
            let (from, to) = if up { (&aside, file) } else { (file, &aside) };
            // It may be there already. If a stranger has moved it, front ends are just turned away.
            if let Err(error) = std::fs::rename(from, to) {
                tracing::debug!(%error, file = %file.display());
            }
        }
        Ok(())
    }

    /// Sets whether vhost-user front ends may plug in at an end; not while a tap carries it. It
    /// takes effect a moment later.
    pub(crate) fn set_accepting(&self, index: usize, side: Side, accepting: bool) {
        if let Some(socket) = self.cables[index].ends[side as usize].socket {
            // A thread that does not answer is reported by the next command that must succeed.
            drop(self.panel.sockets.set_accepting(socket, accepting));
        }
    }

    /// Plugs a device into one end of a cable again, after it was made anew. Where a front end
    /// carries the end, the device waits until it leaves.
    ///
    /// # Errors
    /// When the device cannot be opened, or a worker refuses it.
    pub(crate) async fn replug(&self, index: usize, side: Side) -> Result<(), CablesError> {
        let cable = &*self.cables[index];
        let end = &cable.ends[side as usize];
        let port = Some(open_netdev(&cable.name, &end.name)?);
        let PatchPanel { panel, sockets, .. } = &self.panel;
        answer(match end.socket {
            Some(socket) => sockets.set_fallback_port(socket, port),
            None => panel.exchange(cable.handle.id, side, port),
        })
        .await?;
        Ok(())
    }

    /// Copies what passes one lane of a cable: the one whose frames enter at `from`.
    ///
    /// # Errors
    /// When the lane has too many captures, or its worker does not answer.
    pub(crate) async fn tap(
        &self,
        index: usize,
        from: Side,
        spec: TapSpec,
    ) -> Result<Capture, PanelError> {
        answer(self.panel.panel.tap(self.id(index), from, spec)).await
    }

    /// Gives a lane a flight recorder of `bytes` that keeps `snap` bytes of each frame.
    ///
    /// # Errors
    /// When its worker does not answer.
    pub(crate) async fn record(
        &self,
        index: usize,
        from: Side,
        bytes: usize,
        snap: u32,
    ) -> Result<RecorderReader, PanelError> {
        answer(self.panel.panel.record(self.id(index), from, bytes, snap)).await
    }

    /// All lanes added up: frames and bytes that entered, frames dropped.
    pub(crate) fn traffic(&self) -> (u64, u64, u64) {
        let lanes = self.cables.iter().flat_map(|cable| &cable.handle.lanes);
        lanes.fold((0, 0, 0), |(frames, bytes, drops), lane| {
            let seen = lane.snapshot();
            (
                frames + seen.frames_in,
                bytes + seen.bytes_in,
                drops + seen.dropped(),
            )
        })
    }

    /// Frames that entered a lane, and those that it dropped for the reasons that `counts`.
    pub(crate) fn drops(
        &self,
        index: usize,
        from: Side,
        counts: impl Fn(DropReason) -> bool,
    ) -> (u64, u64) {
        let seen = self.cables[index].handle.lanes[from as usize].snapshot();
        let reasons = seen.drop_reasons().filter(|(reason, _)| counts(*reason));
        (seen.frames_in, reasons.map(|(_, count)| count).sum())
    }
}
