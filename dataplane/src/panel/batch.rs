//! Changes of several cables at the same moment: [`Panel::commit`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Answerer, Inner, Panel, PanelError, Sent};
use crate::cable_state::CableState;
use crate::command::{CableId, Command};
use crate::hold::HoldMemory;
use crate::impair::Impairment;
use crate::lane::Impaired;
use crate::reply::{NumberedWorker, Reply};
use crate::side::Side;

/// One change of a batch, see [`Panel::commit`].
#[derive(Debug, Clone, PartialEq)]
pub enum PanelChange {
    /// Cuts a cable, lets its frames vanish, or mends it.
    State {
        /// The cable to be changed.
        id: CableId,
        /// Its new state.
        state: CableState,
    },
    /// Impairs one lane, or takes its impairment away. Frames that wait still leave at their time,
    /// or at once when there is no impairment any more.
    Impair {
        /// The cable to be changed.
        id: CableId,
        /// Where the lane begins.
        from: Side,
        /// The whole impairment: keys that are not set are off. `None` takes it away.
        impairment: Option<Box<Impairment>>,
    },
}

impl Panel {
    /// Makes several changes at the same moment, as nearly as workers can. All are prepared before
    /// the first command is sent, and the commands of all workers are sent before an answer is
    /// awaited. Nothing is changed when one of them is wrong.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`], [`PanelError::Impairment`], [`PanelError::NoMemory`]. A worker
    /// that is [`PanelError::Silent`] may leave the batch half done.
    pub fn commit(&self, batch: Vec<PanelChange>) -> Reply<()> {
        let prepare = |change| Prepared::new(change, &self.hold_memory);
        let prepared: Result<Vec<_>, _> = batch.into_iter().map(prepare).collect();
        match prepared.and_then(|prepared| self.lock().commit(prepared)) {
            Ok(answers) => {
                let (from, workers) = (answers.from, answers.workers());
                Reply::new(from, answers.all()).unless_hanging(workers)
            }
            Err(error) => Reply::ready(Answerer::Worker(0), Err(error)),
        }
    }
}

/// The answers to a batch.
struct Answers {
    /// The worker that [`PanelError::Silent`] names when the caller gives up waiting.
    from: Answerer,
    states: Vec<Sent<()>>,
    /// Each brings what the change replaced, to be freed here.
    impairments: Vec<Sent<Option<Box<Impaired>>>>,
}

impl Answers {
    fn workers(&self) -> Vec<NumberedWorker> {
        let states = self.states.iter().map(|sent| &sent.stats);
        let impairments = self.impairments.iter().map(|sent| &sent.stats);
        let all = states.chain(impairments).flatten();
        let by_number: BTreeMap<_, _> = all.cloned().collect();
        by_number.into_iter().collect()
    }

    async fn all(self) -> Result<(), PanelError> {
        for sent in self.states {
            sent.reply().await?;
        }
        for sent in self.impairments {
            drop(sent.reply().await?);
        }
        Ok(())
    }
}

/// A change with all that it needs.
enum Prepared {
    State(CableId, CableState),
    Impair(CableId, Side, Option<Box<Impaired>>),
}

impl Prepared {
    fn new(change: PanelChange, memory: &Arc<HoldMemory>) -> Result<Self, PanelError> {
        Ok(match change {
            PanelChange::State { id, state } => Prepared::State(id, state),
            PanelChange::Impair {
                id,
                from,
                impairment,
            } => {
                let impairment = impairment.filter(|impairment| !impairment.is_clean());
                let prepare = |impairment: Box<Impairment>| {
                    impairment.check()?;
                    let bytes = impairment.hold_bytes();
                    Impaired::new(*impairment, memory).ok_or(PanelError::NoMemory { bytes })
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
    fn commit(&mut self, changes: Vec<Prepared>) -> Result<Answers, PanelError> {
        // All of them, before the first command goes out.
        let owners: Vec<_> = changes
            .iter()
            .map(|change| self.owner(change.cable()))
            .collect::<Result<_, _>>()?;
        let mut answers = Answers {
            from: Answerer::Worker(owners.first().copied().unwrap_or(0)),
            states: Vec::new(),
            impairments: Vec::new(),
        };
        for (change, worker) in changes.into_iter().zip(owners) {
            match change {
                Prepared::State(id, state) => {
                    let command = |done| Command::SetState { id, state, done };
                    answers.states.push(self.send(worker, command));
                }
                Prepared::Impair(id, from, impaired) => {
                    let command = |done| Command::Impair {
                        id,
                        from,
                        impaired,
                        done,
                    };
                    answers.impairments.push(self.send(worker, command));
                }
            }
        }
        Ok(answers)
    }
}
