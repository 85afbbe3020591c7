//! Streams of events: how many there may be, and how an event looks on the wire.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::RefusalKind;
use crate::{ApiError, Streamed};

/// The most streams at the same time: half of the clients that the server takes, so that others are
/// still answered.
const MOST_STREAMS: usize = 64;

/// After this time without an event comes a comment.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How many more streams there may be.
#[derive(Debug, Clone)]
pub(super) struct StreamLimit(Arc<Semaphore>);

impl Default for StreamLimit {
    fn default() -> Self {
        StreamLimit(Arc::new(Semaphore::new(MOST_STREAMS)))
    }
}

impl StreamLimit {
    /// Admits one more stream until the permit is dropped.
    ///
    /// # Errors
    /// When there are too many.
    pub(super) fn admit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.0.clone().try_acquire_owned().map_err(|_| {
            ApiError::new(
                RefusalKind::Busy,
                format!(
                    "this fabric sends its events to {MOST_STREAMS} clients at once, and as many \
                     follow them: end some of them, and try again"
                ),
            )
        })
    }
}

/// Answers with a stream, which holds its permit until it ends. hyper asks for the next event once the
/// client has room for it, so that nothing piles up here.
pub(super) fn answer(
    events: BoxStream<'static, Streamed>,
    permit: OwnedSemaphorePermit,
) -> Response {
    let events = events.map(move |streamed| {
        let _held = &permit;
        Ok::<_, Infallible>(encode(&streamed))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Sse::new(events).keep_alive(keep_alive).into_response()
}

fn encode(streamed: &Streamed) -> sse::Event {
    let (id, name, data) = match streamed {
        Streamed::Event(event) => (event.id, event.kind.name(), serde_json::to_string(&**event)),
        Streamed::Lagged(lagged) => (
            lagged.since,
            Streamed::LAGGED,
            serde_json::to_string(lagged),
        ),
    };
    let data = data.expect("texts and numbers are always JSON");
    // In JSON, line ends are escaped: it is one line of data.
    sse::Event::default()
        .id(id.to_string())
        .event(name)
        .data(data)
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use futures_util::stream;

    use super::*;
    use crate::{Event, EventKind, Lagged};

    #[tokio::test]
    async fn an_event_is_three_lines_and_an_empty_one() {
        let event = Event {
            id: 7,
            time: "2026-11-30T20:35:07.042Z".into(),
            kind: EventKind::ImpairmentCleared,
            subject: "iksb12".into(),
            text: "a text\r\nof two lines".into(),
        };
        let lagged = Lagged {
            missed: 3,
            since: 10,
        };
        let sent = [Streamed::Event(Arc::new(event)), Streamed::Lagged(lagged)];
        let permit = StreamLimit::default().admit().unwrap();
        let answer = answer(stream::iter(sent).boxed(), permit);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let body = to_bytes(answer.into_body(), 4096).await.unwrap();
        insta::assert_snapshot!(String::from_utf8_lossy(&body), @r#"
        id: 7
        event: impaired
        data: {"id":7,"time":"2026-11-30T20:35:07.042Z","kind":"impaired","state":"clear","subject":"iksb12","text":"a text\r\nof two lines"}

        id: 10
        event: lagged
        data: {"missed":3,"since":10}
        "#);
    }

    #[tokio::test]
    async fn a_stream_counts_until_it_is_dropped() {
        let limit = StreamLimit::default();
        let open = || Some(answer(stream::pending().boxed(), limit.admit().ok()?));
        let mut streams: Vec<_> = std::iter::from_fn(open).collect();
        assert_eq!(streams.len(), MOST_STREAMS);
        let refused = limit.admit().unwrap_err().to_string();
        assert!(refused.contains("64 clients"), "{refused}");
        drop(streams.pop());
        assert!(limit.admit().is_ok());
    }
}
