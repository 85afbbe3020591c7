//! Cables that change their worker: [`Panel::move_cable`] and [`Panel::balance`].

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use super::{Entry, Inner, Panel, Sent, forget, lock};
use crate::balance::{CableMove, Load, OVERLOADED, choose};
use crate::command::{CableId, Command};
use crate::panel::{Answerer, PanelError};
use crate::reply::Reply;

/// What [`Panel::balance`] remembers between two calls.
pub(super) struct State {
    measured: Instant,
    /// Whether the cables' frames were counted the last time too.
    counting: bool,
    /// The cable that is on its way. Another one has to wait.
    moving: Option<Reply<()>>,
}

impl State {
    pub(super) fn new(now: Instant) -> Self {
        State {
            measured: now,
            counting: false,
            moving: None,
        }
    }
}

impl Panel {
    /// Gives a cable to another worker. Frames that come meanwhile wait in its ports: none
    /// is lost and none overtakes another. Commands for the cable wait at the new worker.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`], or [`PanelError::Refused`] by the new worker: the cable
    /// is taken out of the panel then, unless the worker has no time for it
    /// ([`ErrorKind::WouldBlock`]).
    ///
    /// # Panics
    /// When `to` is not the number of a worker.
    pub fn move_cable(&self, id: CableId, to: usize) -> Reply<()> {
        let mut inner = self.lock();
        let from = match inner.owner(id) {
            Ok(from) => from,
            Err(error) => return Reply::ready(Answerer::Worker(to), Err(error)),
        };
        if from == to {
            return Reply::ready(Answerer::Worker(to), Ok(()));
        }
        let sent = inner.hand_over(id, from, to);
        drop(inner);
        let panel = Arc::downgrade(&self.inner);
        sent.then(move |moved| {
            moved.inspect_err(|error| match error {
                PanelError::Refused { source, .. } if source.kind() == ErrorKind::WouldBlock => {
                    stays(&panel, id, from);
                }
                PanelError::Silent(_) | PanelError::Stopped => {}
                _ => forget(&panel, id),
            })
        })
    }

    /// Moves one busy cable from an overloaded worker to an idle one, if that helps. To be
    /// called a few times a second; what is measured is the time since the last call. It does not
    /// wait until the cable has moved.
    ///
    /// # Errors
    /// As [`Panel::move_cable`]; those of a move that the call before began.
    pub fn balance(&self) -> Result<Option<CableId>, PanelError> {
        // Polled without the lock, which the end of a move takes.
        let moving = self.lock().balance.moving.take();
        if let Some(mut moving) = moving {
            let Some(moved) = moving.try_take() else {
                self.lock().balance.moving = Some(moving);
                return Ok(None);
            };
            moved?;
        }
        let Some(CableMove { cable, to }) = self.lock().measure() else {
            return Ok(None);
        };
        let moving = self.move_cable(cable, to);
        self.lock().balance.moving = Some(moving);
        Ok(Some(cable))
    }
}

/// A cable whose new worker had no time for it.
fn stays(panel: &Weak<Mutex<Inner>>, id: CableId, worker: usize) {
    if let Some(panel) = panel.upgrade()
        && let Some(entry) = lock(&panel).cables.get_mut(&id)
    {
        entry.worker = worker;
    }
}

impl Inner {
    /// The old worker hands the cable to the new one without coming back to control in between.
    fn hand_over(&mut self, id: CableId, from: usize, to: usize) -> Sent<()> {
        let mailbox = &self.workers[to].mailbox;
        // Before any later command for the cable, which is to wait for it there.
        if mailbox.send(Command::Expect { id }).is_err() {
            let answer = Err(PanelError::Silent(Answerer::Worker(to)));
            return Sent {
                worker: to,
                stats: None,
                answer,
            };
        }
        let target = Arc::downgrade(mailbox);
        let sent = self.send(from, |done| Command::HandOver {
            id,
            to: target,
            done,
        });
        if sent.answer.is_ok()
            && let Some(entry) = self.cables.get_mut(&id)
        {
            entry.worker = to;
        }
        sent
    }

    /// The load since the last call, and what to do about it. Cables are looked at only when
    /// a worker is overloaded: an idle fabric of a thousand costs nothing.
    fn measure(&mut self) -> Option<CableMove> {
        let elapsed = std::mem::replace(&mut self.balance.measured, Instant::now()).elapsed();
        let mut loads = Vec::with_capacity(self.workers.len());
        for worker in &mut self.workers {
            let busy = worker.stats.busy();
            let before = std::mem::replace(&mut worker.busy_before, busy);
            let spent = busy.saturating_sub(before);
            let busy = (spent.as_secs_f64() / elapsed.as_secs_f64()).min(1.0);
            loads.push(Load {
                // One that stands still looks idle, and would be given cables.
                busy: if worker.works() { busy } else { 1.0 },
                cables: Vec::new(),
            });
        }
        let overloaded = loads.iter().any(|load| load.busy >= OVERLOADED);
        let counted_before = std::mem::replace(&mut self.balance.counting, overloaded);
        if !overloaded {
            return None;
        }
        for (id, entry) in &mut self.cables {
            let frames = entry.frames();
            let carried = frames - std::mem::replace(&mut entry.frames_before, frames);
            loads[entry.worker].cables.push((*id, carried));
        }
        // How many frames a cable carried is the difference between two counts.
        if counted_before { choose(&loads) } else { None }
    }
}

impl Entry {
    fn frames(&self) -> u64 {
        let lanes = self.lanes.iter();
        lanes.map(|lane| lane.snapshot().frames_in).sum()
    }
}
