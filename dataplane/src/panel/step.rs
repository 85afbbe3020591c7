//! Changes of several cables at the same moment: [`Panel::step`].

use super::{Inner, Panel, PanelError, await_answer};
use crate::cable::{CableState, Side};
use crate::command::{CableId, Command};
use crate::impair::Impairment;
use crate::lane::Impaired;

/// One change of a step, see [`Panel::step`].
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Cuts a cable, lets its frames vanish, or mends it.
    State {
        /// The cable.
        id: CableId,
        /// From now on.
        state: CableState,
    },
    /// Impairs one lane, or takes its impairment away. Frames that wait leave at their time
    /// nevertheless.
    Impair {
        /// The cable.
        id: CableId,
        /// Where the lane begins.
        from: Side,
        /// All of it: what is not set is off.
        impairment: Option<Box<Impairment>>,
    },
}

impl Panel {
    /// Makes several changes at the same moment, as near as workers can: all are prepared first,
    /// then all workers are told, and only then are their answers awaited. Nothing is changed
    /// when one of them cannot be made.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`], [`PanelError::Impairment`], [`PanelError::NoMemory`].
    pub fn step(&self, changes: Vec<Change>) -> Result<(), PanelError> {
        let mut prepared = Vec::with_capacity(changes.len());
        for change in changes {
            prepared.push(Prepared::new(change)?);
        }
        self.lock().step(prepared)
    }
}

/// A change with all that it needs.
enum Prepared {
    State(CableId, CableState),
    Impair(CableId, Side, Option<Box<Impaired>>),
}

impl Prepared {
    fn new(change: Change) -> Result<Self, PanelError> {
        Ok(match change {
            Change::State { id, state } => Prepared::State(id, state),
            Change::Impair {
                id,
                from,
                impairment,
            } => {
                let impairment = impairment.filter(|impairment| !impairment.is_clean());
                let prepare = |impairment: Box<Impairment>| {
                    impairment.check()?;
                    let bytes = impairment.hold_bytes();
                    Impaired::new(*impairment).ok_or(PanelError::NoMemory { bytes })
                };
                Prepared::Impair(id, from, impairment.map(prepare).transpose()?)
            }
        })
    }

    fn cable(&self) -> CableId {
        match self {
            Prepared::State(id, _) | Prepared::Impair(id, ..) => *id,
        }
    }
}

impl Inner {
    fn step(&mut self, changes: Vec<Prepared>) -> Result<(), PanelError> {
        let owners: Vec<_> = changes
            .iter()
            .map(|change| self.owner(change.cable()))
            .collect::<Result<_, _>>()?;
        let mut states = Vec::new();
        let mut leftovers = Vec::new();
        for (change, worker) in changes.into_iter().zip(owners) {
            match change {
                Prepared::State(id, state) => {
                    let command = |done| Command::SetState { id, state, done };
                    states.push((worker, self.send(worker, command)?));
                }
                Prepared::Impair(id, from, impaired) => {
                    let command = |done| Command::Impair {
                        id,
                        from,
                        impaired,
                        done,
                    };
                    leftovers.push((worker, self.send(worker, command)?));
                }
            }
        }
        for (worker, answer) in states {
            await_answer(worker, &answer)?;
        }
        for (worker, answer) in leftovers {
            drop(await_answer(worker, &answer)?);
        }
        Ok(())
    }
}
