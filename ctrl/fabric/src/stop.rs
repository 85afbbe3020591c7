//! Ending a fabric at the request of a client: [`StopRequest`].

use tokio::sync::Notify;

use api::{ApiError, Peer, Stopping};

/// Whether a client has asked that the fabric ends.
#[derive(Debug, Default)]
pub(crate) struct StopRequest(Notify);

impl StopRequest {
    /// A client asks for it. `owner` is the uid of the fabric's owner.
    ///
    /// # Errors
    /// When the client is neither root nor the owner. The socket lets no one else connect, but whoever
    /// was let in by its earlier mode, or got a descriptor of it, must not end the datacenter either.
    pub(crate) fn ask(&self, peer: Peer, owner: u32) -> Result<Stopping, ApiError> {
        if !peer.uid.is_some_and(|uid| uid == 0 || uid == owner) {
            return Err(ApiError::conflict(format!(
                "only root and the owner of this fabric (uid {owner}) may end it: use `sudo \
                 ikv-fabric stop`"
            )));
        }
        self.0.notify_one();
        Ok(Stopping {
            pid: std::process::id(),
        })
    }

    /// Waits for such a request. One that came before counts, too.
    pub(crate) async fn asked(&self) {
        self.0.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    async fn is_asked(stop: &StopRequest) -> bool {
        let mut asked = pin!(stop.asked());
        poll_fn(|context| Poll::Ready(asked.as_mut().poll(context).is_ready())).await
    }

    #[tokio::test]
    async fn only_root_and_the_owner_may_end_a_fabric() {
        const OWNER: u32 = 54_321;
        for stranger in [Some(OWNER + 1), Some(65_534), None] {
            let stop = StopRequest::default();
            let refused = stop.ask(Peer { uid: stranger }, OWNER).unwrap_err();
            assert!(refused.to_string().contains("uid 54321"), "{refused}");
            assert!(!is_asked(&stop).await, "{stranger:?}");
        }
        for person in [0, OWNER] {
            let stop = StopRequest::default();
            stop.ask(Peer { uid: Some(person) }, OWNER).unwrap();
            assert!(is_asked(&stop).await, "{person}");
        }
    }
}
