//! What clients ask of the recorder: [`RecorderRequests`].

use crate::cable_requests::CableRequests;
use crate::recorder::Recorder;
use api::capture::CaptureStream;
use api::recorder::{DumpRequest, RecorderStatus, TriggersRequest};
use api::{ApiError, Recording};

/// Answers clients' requests about the recorder of these cables.
pub(crate) struct RecorderRequests<C>(C);

impl<C: CableRequests> RecorderRequests<C> {
    /// # Errors
    /// If recording is disabled.
    pub(crate) fn new(cables: C) -> Result<Self, ApiError> {
        if cables.recorder().is_none() {
            return Err(ApiError::conflict(
                "nothing is recorded: start `patch` with --record, or `run` without \
                 `recorder.enabled = false`",
            ));
        }
        Ok(RecorderRequests(cables))
    }

    fn recorder(&self) -> &Recorder {
        self.0.recorder().expect("looked for by `new`")
    }
}

impl<C: CableRequests> Recording for RecorderRequests<C> {
    async fn status(&self) -> RecorderStatus {
        self.recorder().status().await
    }

    async fn dump(&self, request: &DumpRequest) -> Result<CaptureStream, ApiError> {
        self.recorder().dump(request, &self.0).await
    }

    async fn kept(&self, name: &str) -> Result<CaptureStream, ApiError> {
        self.recorder().kept(name)
    }

    async fn set_triggers(&self, request: TriggersRequest) -> Result<RecorderStatus, ApiError> {
        self.recorder()
            .set_triggers(request.triggers, &self.0)
            .await?;
        Ok(self.recorder().status().await)
    }
}
