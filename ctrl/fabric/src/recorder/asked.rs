//! The recorder as the API asks it, by the names of who has it.

use super::Recorder;
use api::capture::CaptureStream;
use api::recorder::{DumpRequest, RecorderStatus, TriggersRequest};
use api::{ApiError, Recording};

/// A recorder, and what gives a cable's place by a name.
pub(crate) struct Asked<'r, N> {
    recorder: &'r Recorder,
    cable: N,
}

impl<'r, N: Fn(&str) -> Result<usize, ApiError>> Asked<'r, N> {
    /// The recorder, if there is one.
    pub(crate) fn of(recorder: Option<&'r Recorder>, cable: N) -> Result<Self, ApiError> {
        let recorder = recorder.ok_or_else(|| {
            ApiError::conflict(
                "nothing is recorded: start `patch` with --record, or `run` without \
                 `recorder.enabled = false`",
            )
        })?;
        Ok(Asked { recorder, cable })
    }
}

impl<N: Fn(&str) -> Result<usize, ApiError> + Send + Sync> Recording for Asked<'_, N> {
    async fn status(&self) -> RecorderStatus {
        self.recorder.status()
    }

    async fn dump(&self, request: &DumpRequest) -> Result<CaptureStream, ApiError> {
        self.recorder.dump(request, &self.cable)
    }

    async fn kept(&self, name: &str) -> Result<CaptureStream, ApiError> {
        self.recorder.kept(name)
    }

    async fn set_triggers(&self, set: TriggersRequest) -> Result<RecorderStatus, ApiError> {
        self.recorder.arm(set.triggers, &self.cable)?;
        Ok(self.recorder.status())
    }
}
