//! What clients ask of cables: [`CableRequests`], implemented by a whole fabric and by a single
//! wire.

use std::future::Future;

use futures_util::future::join_all;

use crate::cables::Cables;
use crate::cables::batch::CheckedBatch;
use crate::cables::names::CableNames;
use crate::capture;
use crate::events::log::EventLog;
use crate::recorder::Recorder;
use crate::recorder::requests::RecorderRequests;
use api::capture::{CaptureRequest, CaptureStream};
use api::{ApiError, CableBatchDone, CableChanged, CableReport, LaneImpairment};
use dataplane::Side;
use model::cable_change::{CableBatch, CableChange, CableState, ImpairmentChange};

/// Answers requests about cables. A clone refers to the same cables.
pub(crate) trait CableRequests: CableNames + Clone + Send + Sync + 'static {
    fn cables(&self) -> &Cables;

    /// `None` if recording is disabled.
    fn recorder(&self) -> Option<&Recorder>;

    /// Where changes to them are written down.
    fn events(&self) -> &EventLog;

    /// Reports to the device or VM at an end whether it has carrier. Returns a sentence if that
    /// failed.
    fn set_carrier(
        &self,
        cable: usize,
        side: Side,
        up: bool,
    ) -> impl Future<Output = Option<String>> + Send;

    /// Reports on the named cables, or on all if `names` is empty.
    fn reports(
        &self,
        names: &[String],
    ) -> impl Future<Output = Result<Vec<CableReport>, ApiError>> + Send {
        let indices: Result<Vec<Vec<usize>>, ApiError> = match names {
            [] => Ok(vec![(0..self.cables().len()).collect()]),
            // A name that comes twice is answered twice.
            names => names.iter().map(|name| self.named(name)).collect(),
        };
        async { Ok(self.cables().reports(indices?.concat()).await) }
    }

    /// Cuts or mends a cable, or all that the name stands for, or makes them blackholes.
    fn set_state(
        &self,
        name: &str,
        state: CableState,
    ) -> impl Future<Output = Result<CableChanged, ApiError>> + Send {
        let change = CableChange {
            cable: name.into(),
            state: Some(state),
            impair: None,
        };
        let batch = CableBatch {
            changes: vec![change],
        };
        async move {
            let name = match *self.named(name)? {
                [one] => self.cables().name(one).to_owned(),
                _ => name.to_owned(),
            };
            Ok(CableChanged {
                notes: self.change(batch).await?.notes,
                name,
                state,
            })
        }
    }

    /// Changes the impairment of one cable. Returns the impairment of both lanes after the change.
    fn impair(
        &self,
        name: &str,
        change: ImpairmentChange,
    ) -> impl Future<Output = Result<[LaneImpairment; 2], ApiError>> + Send {
        async {
            let index = self.cable(name)?;
            self.change(CableBatch::of(name, change)).await?;
            Ok(self.cables().impairments(index))
        }
    }

    /// Makes all changes of a batch at the same instant, or none, and then reports carriers to the
    /// ends.
    fn change(
        &self,
        batch: CableBatch,
    ) -> impl Future<Output = Result<CableBatchDone, ApiError>> + Send {
        let cables = self.clone();
        async {
            // A task of its own: a client that disconnects cancels its request, which must not
            // leave half of a change behind.
            let change = tokio::spawn(async move { cables.commit(&batch).await });
            change.await.map_err(ApiError::failed)?
        }
    }

    /// As [`CableRequests::change`], but the caller must await it to its end.
    fn commit(
        &self,
        batch: &CableBatch,
    ) -> impl Future<Output = Result<CableBatchDone, ApiError>> + Send {
        async {
            let cables = self.cables();
            let changing = cables.panel().lock_changes().await;
            let committed = CheckedBatch::check(self, cables, batch)?
                .commit(cables)
                .await?;
            self.events().cables_changed(cables, &committed.changes);
            drop(changing);
            let ends = committed.states.into_iter().flat_map(|(index, state)| {
                let up = state != CableState::Down;
                [Side::A, Side::B].map(|side| self.set_carrier(index, side, up))
            });
            let notes = join_all(ends.collect::<Vec<_>>()).await;
            Ok(CableBatchDone {
                at_ns: committed.at_ns,
                notes: notes.into_iter().flatten().collect(),
            })
        }
    }

    /// Starts a capture: every lane is tapped when the future completes.
    fn capture(
        &self,
        request: &CaptureRequest,
    ) -> impl Future<Output = Result<CaptureStream, ApiError>> + Send {
        async move {
            let stream = capture::start(self.cables(), self, request).await?;
            self.events().capture_began(&stream.start);
            Ok(stream)
        }
    }

    /// The flight recorder of these cables.
    ///
    /// # Errors
    /// If recording is disabled.
    fn recording(&self) -> Result<RecorderRequests<Self>, ApiError> {
        RecorderRequests::new(self.clone())
    }
}
