//! What looks at a lane: captures, the flight recorder, and an impairment's accuracy.

use std::sync::{Arc, Mutex, Weak};

use super::{Answerer, Inner, Panel, PanelError, lock};
use crate::capture::{LaneCapture, RecorderReader, TapSpec, lane_tap, recorder};
use crate::command::{CableId, Command};
use crate::lane::{Accuracy, NumberedTap};
use crate::reply::Reply;
use crate::side::Side;

impl Panel {
    /// How well the impairment of the lane that begins at `from` keeps to its settings; `None`
    /// where the lane has no impairment.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`].
    pub fn accuracy(&self, id: CableId, from: Side) -> Reply<Option<Accuracy>> {
        self.send_to_owner(id, |done| Command::Accuracy { id, from, done })
            .reply()
    }

    /// Captures the frames of the lane that begins at `from`, until the capture is dropped.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`], [`PanelError::TooManyCaptures`].
    pub fn tap(&self, id: CableId, from: Side, spec: TapSpec) -> Reply<Capture> {
        let (tap, reader) = lane_tap(spec);
        let mut inner = self.lock();
        inner.reap();
        let number = inner.next_tap;
        inner.next_tap += 1;
        drop(inner);
        // Made before the answer is there: a caller that gives up waiting ends the capture.
        let capture = Capture {
            reader,
            panel: Arc::downgrade(&self.inner),
            id,
            from,
            number,
            ended: false,
        };
        let tap = Box::new(NumberedTap { number, tap });
        let command = |done| Command::Tap {
            id,
            from,
            tap,
            done,
        };
        let sent = self.send_to_owner(id, command);
        sent.then(|refused| match refused? {
            None => Ok(capture),
            Some(_) => Err(PanelError::TooManyCaptures),
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
    ) -> Reply<RecorderReader> {
        let (recorder, reader) = recorder(bytes, snap);
        let recorder = Some(Box::new(recorder));
        let command = |done| Command::Record {
            id,
            from,
            recorder,
            done,
        };
        // The old recorder comes with the answer and is freed here.
        self.send_to_owner(id, command)
            .then(|old| old.map(|_| reader))
    }
}

/// A capture of one lane; it ends when this is dropped.
pub struct Capture {
    reader: LaneCapture,
    panel: Weak<Mutex<Inner>>,
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

    /// Ends it. Once the reply is there, every frame that the lane has sent is in the ring, or
    /// counted as lost.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`] and [`PanelError::Stopped`]: the capture ended with its cable, or
    /// with the panel.
    pub fn end(&mut self) -> Reply<()> {
        self.ended = true;
        let (id, from, number) = (self.id, self.from, self.number);
        let Some(panel) = self.panel.upgrade() else {
            return Reply::ready(Answerer::Worker(0), Err(PanelError::Stopped));
        };
        let command = |done| Command::Untap {
            id,
            from,
            number,
            done,
        };
        let sent = lock(&panel).send_to_owner(id, command);
        sent.then(|tap| tap.map(drop))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut ending = self.end();
        let answer = ending.try_take();
        if let Some(panel) = self.panel.upgrade() {
            let mut inner = lock(&panel);
            inner.reap();
            match answer {
                None => inner.ending.push(ending),
                Some(Err(PanelError::Silent(_))) => {
                    inner.unended.push((self.id, self.from, self.number));
                }
                // It has ended, or its cable or the panel has.
                Some(_) => {}
            }
        }
    }
}

impl Inner {
    /// Frees the memory of captures that have ended. It comes back with the worker's answer, so that
    /// no worker frees it, and the answer is not waited for. Asks again to end those whose worker had
    /// too many commands to read: a lane must not copy frames for a reader that has gone.
    fn reap(&mut self) {
        for (id, from, number) in std::mem::take(&mut self.unended) {
            let command = |done| Command::Untap {
                id,
                from,
                number,
                done,
            };
            let sent = self.send_to_owner(id, command);
            match sent.answer {
                Err(PanelError::Silent(_)) => self.unended.push((id, from, number)),
                _ => self.ending.push(sent.then(|tap| tap.map(drop))),
            }
        }
        self.ending.retain_mut(|ending| ending.try_take().is_none());
    }
}
