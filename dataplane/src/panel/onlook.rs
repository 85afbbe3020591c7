//! Who looks on at a lane: captures, the flight recorder, and how well an impairment does.

use super::{Panel, PanelError};
use crate::cable::Side;
use crate::capture::{LaneCapture, RecorderReader, TapSpec, lane_tap, recorder};
use crate::command::{CableId, Command};
use crate::lane::{Accuracy, NumberedTap};

impl Panel {
    /// How well the impairment of the lane that begins at `from` keeps its promises; `None`
    /// where there is none.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`].
    pub fn accuracy(&self, id: CableId, from: Side) -> Result<Option<Accuracy>, PanelError> {
        let inner = self.lock();
        let worker = inner.owner(id)?;
        inner.tell(worker, |done| Command::Accuracy { id, from, done })
    }

    /// Captures the frames of the lane that begins at `from`, until what is returned is dropped.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`], [`PanelError::TooManyCaptures`].
    pub fn tap(&self, id: CableId, from: Side, spec: TapSpec) -> Result<Capture, PanelError> {
        let (tap, reader) = lane_tap(spec);
        let mut inner = self.lock();
        let number = inner.next_tap;
        inner.next_tap += 1;
        let worker = inner.owner(id)?;
        let tap = Box::new(NumberedTap { number, tap });
        let refused = inner.tell(worker, |done| Command::Tap {
            id,
            from,
            tap,
            done,
        })?;
        if refused.is_some() {
            return Err(PanelError::TooManyCaptures);
        }
        Ok(Capture {
            reader,
            panel: self.clone(),
            id,
            from,
            number,
            ended: false,
        })
    }

    /// Gives the lane that begins at `from` a flight recorder of `bytes` that keeps the first
    /// `snap` bytes of each frame; the one before ends.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`].
    pub fn record(
        &self,
        id: CableId,
        from: Side,
        bytes: usize,
        snap: u32,
    ) -> Result<RecorderReader, PanelError> {
        let (recorder, reader) = recorder(bytes, snap);
        let inner = self.lock();
        let worker = inner.owner(id)?;
        let recorder = Some(Box::new(recorder));
        inner.tell(worker, |done| Command::Record {
            id,
            from,
            recorder,
            done,
        })?;
        Ok(reader)
    }
}

/// A capture of one lane; it ends when this is dropped.
pub struct Capture {
    reader: LaneCapture,
    panel: Panel,
    id: CableId,
    from: Side,
    number: u64,
    ended: bool,
}

impl Capture {
    /// Where the frames come out.
    pub fn reader(&mut self) -> &mut LaneCapture {
        &mut self.reader
    }

    /// Ends it. Every frame that the lane has sent is in the ring then, or counted as lost.
    pub fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let (id, from, number) = (self.id, self.from, self.number);
        let inner = self.panel.lock();
        // The cable, or the panel, may be gone: so is the capture's end at it, then.
        if let Ok(worker) = inner.owner(id) {
            let _ = inner.tell(worker, |done| Command::Untap {
                id,
                from,
                number,
                done,
            });
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
    }
}
