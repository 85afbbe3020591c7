//! The cables of a topology: which panel cable each of them is, and its state.
//!
//! [`PatchPanel`] owns the threads; [`Cables`] gives names to what they carry. Every call that
//! waits for a worker is `async`, because the thread that serves the API must not block.

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
mod supervision;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use dataplane::capture::{RecorderReader, TapSpec};
use dataplane::vhost_sockets::SocketId;
use dataplane::{CableHandle, CableId, Capture, DropReason, LaneSnapshot, PanelError, clock};

use dataplane::Side;
use error::CablesError;
use host::folder::Folder;
use model::cable_change::CableState;
use model::impairment::ImpairKeys;
use open::moved_away;
use panel::{PatchPanel, answer};
use plan::open_netdev;

/// The cables of a topology, by their indices in it.
///
/// This is a handle: clones refer to the same cables.
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
    /// When it was last cut or mended, or its ends were told, in ns on the dataplane's clock.
    touched: AtomicU64,
}

/// The state and impairments that were requested for a cable.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    pub(crate) state: CableState,
    /// By the side where the lane begins.
    pub(crate) impairments: [ImpairKeys; 2],
    /// Why no frame passes whatever the state: a fault of this program. The state `up` opens it again.
    pub(crate) closed: Option<String>,
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
    /// An empty set of cables on this panel.
    pub(crate) fn none(panel: PatchPanel) -> Self {
        let cables = Vec::new();
        Cables { panel, cables }
    }

    /// The given cables, on the same panel.
    pub(crate) fn with(&self, cables: Vec<Arc<PluggedCable>>) -> Self {
        let panel = self.panel.clone();
        Cables { panel, cables }
    }

    /// The handle of one cable, for [`Cables::with`].
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

    /// Records the condition that the panel has given a cable. Returns the one before.
    pub(crate) fn set_condition(&self, index: usize, now: Condition) -> Condition {
        let state = now.state;
        let before = std::mem::replace(&mut *self.cables[index].condition(), now);
        if before.state != state || before.closed.is_some() {
            self.touch(index);
        }
        before
    }

    /// What was learned about a cable before now no longer counts.
    pub(crate) fn touch(&self, index: usize) {
        let touched = &self.cables[index].touched;
        touched.store(clock::now(), Ordering::Relaxed);
    }

    /// When a cable last began to pass frames, in ns on the dataplane's clock. `None` if it passes none.
    pub(crate) fn passes_since(&self, index: usize) -> Option<u64> {
        let cable = &self.cables[index];
        let condition = cable.condition();
        let passes = condition.state == CableState::Up && condition.closed.is_none();
        passes.then(|| cable.touched.load(Ordering::Relaxed))
    }

    /// What to add to the dataplane's clock to get ns since 1970; see [`PatchPanel::wall_offset`].
    pub(crate) fn wall_offset(&self) -> u64 {
        self.panel.wall_offset()
    }

    /// The present time in ns since 1970, by the clock that captures use.
    pub(crate) fn wall_clock(&self) -> u64 {
        clock::now() + self.wall_offset()
    }

    /// Sets whether a front end at an end has carrier. Without carrier the front end is
    /// disconnected, and no other can connect.
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
        // QEMU prints three lines for each connection that is closed at once, and none for a
        // connection that fails. So the socket's file is moved away instead.
        if let Some(file) = &end.file {
            let aside = moved_away(file);
            let (from, to) = if up { (&aside, file) } else { (file, &aside) };
            // The file may be in the right place already. If another user has moved it, front ends
            // are refused by the socket instead.
            let renamed = Folder::of(from)
                .and_then(|(folder, name)| folder.rename(name, to.file_name().unwrap_or_default()));
            if let Err(error) = renamed {
                tracing::debug!(%error, file = %file.display());
            }
        }
        Ok(())
    }

    /// Sets whether vhost-user front ends may connect at an end. They may not while a tap carries
    /// it. The change takes effect asynchronously.
    pub(crate) fn set_accepting(&self, index: usize, side: Side, accepting: bool) {
        if let Some(socket) = self.cables[index].ends[side as usize].socket {
            // A thread that does not answer is reported by the next command that must succeed.
            drop(self.panel.sockets.set_accepting(socket, accepting));
        }
    }

    /// Plugs a device that was created again into one end of a cable. If a front end carries the
    /// end, the device waits until the front end leaves.
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

    /// Captures the frames of one lane of a cable: the lane whose frames enter at `from`.
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

    /// Gives a lane a flight recorder of `bytes` bytes that keeps the first `snap` bytes of each
    /// frame.
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

    /// The sum over all lanes: frames and bytes that entered, frames dropped.
    pub(crate) fn traffic(&self) -> (u64, u64, u64) {
        let lanes = self.cables.iter().flat_map(|cable| &cable.handle.lanes);
        lanes.fold((0, 0, 0), |(frames, bytes, drops), lane| {
            let seen = lane.snapshot();
            (
                frames + seen.frames_in,
                bytes + seen.bytes_in,
                drops + lost(&seen),
            )
        })
    }

    /// Frames that entered a lane, and those that it dropped for a reason that `counts` accepts.
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

/// The drops of a lane without the frames to an end where nobody is: a switch speaks to each of its
/// ports, also in a fabric that is healthy and idle.
fn lost(seen: &LaneSnapshot) -> u64 {
    let reasons = seen.drop_reasons();
    let lost = reasons.filter(|(reason, _)| *reason != DropReason::Unplugged);
    lost.map(|(_, count)| count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_to_nobody_are_not_lost() {
        let mut seen = LaneSnapshot::default();
        seen.drops[DropReason::Unplugged as usize] = 90;
        seen.drops[DropReason::CableDown as usize] = 7;
        assert_eq!(lost(&seen), 7);
    }
}
