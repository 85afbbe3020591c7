//! `GET /metrics` over TCP, and nothing else: [`serve_metrics`].
//!
//! Whoever reaches the port may read the figures. So a client can cost the fabric neither memory nor
//! time: few are served at once, each for a short while, and all of them share one page.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::{IntoResponse, Response};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use super::refusal::refuse;
use crate::{ApiError, Backend, metrics, routes};

/// The most clients at the same time. Further ones wait in the listener's backlog.
const MOST_CLIENTS: usize = 16;

/// For a client to send its request and to read the answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The most bytes of a request's head; hyper takes no fewer.
const LONGEST_HEAD: usize = 8 << 10;

/// A page that is younger is sent again: clients that ask in a loop do not occupy the fabric.
const FRESH: Duration = Duration::from_millis(100);

/// Between two attempts to accept a client while the process has no descriptor left for it.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Serves `GET /metrics` to whoever connects, until dropped.
pub async fn serve_metrics<B: Backend>(listener: TcpListener, backend: Arc<B>) -> Infallible {
    serve_within(listener, backend, PATIENCE).await
}

async fn serve_within<B: Backend>(
    listener: TcpListener,
    backend: Arc<B>,
    patience: Duration,
) -> Infallible {
    let served = Arc::new(Semaphore::new(MOST_CLIENTS));
    let page = Arc::new(Page {
        backend,
        last: Mutex::new(None),
    });
    loop {
        let permit = served.clone().acquire_owned().await;
        let permit = permit.expect("nobody closes it");
        match listener.accept().await {
            Ok((stream, _)) => {
                let page = page.clone();
                tokio::spawn(async move {
                    serve_one(stream, page, patience).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the port of the metrics cannot accept a client");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn serve_one<B: Backend>(stream: TcpStream, page: Arc<Page<B>>, patience: Duration) {
    let service = service_fn(move |request: Request<Incoming>| {
        let page = page.clone();
        async move {
            let answer = page.answer(request.method(), request.uri().path());
            Ok::<_, Infallible>(answer.await)
        }
    });
    let mut http = http1::Builder::new();
    let served = http
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(LONGEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // The limit holds for reading the answer, too.
    if let Ok(Err(error)) = timeout(patience, served).await {
        tracing::debug!(%error, "a client of the metrics");
    }
}

/// The page, and what it is made from.
struct Page<B> {
    backend: Arc<B>,
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl<B: Backend> Page<B> {
    async fn answer(&self, method: &Method, path: &str) -> Response {
        let only = routes::METRICS;
        if path != only.template {
            return refuse(
                StatusCode::NOT_FOUND,
                &format!(
                    "{method} {path}: this port has {} only; all else is on the fabric's socket",
                    only.template
                ),
            );
        }
        if *method != only.method {
            let mut answer = refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                &format!("{method} {path}: this port is read with {}", only.method),
            );
            let allowed = HeaderValue::from_static("GET");
            answer.headers_mut().insert(ALLOW, allowed);
            return answer;
        }
        match self.text().await {
            Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
            Err(error) => error.into_response(),
        }
    }

    async fn text(&self) -> Result<Bytes, ApiError> {
        let mut last = self.last.lock().await;
        if let Some((made, text)) = &*last
            && made.elapsed() < FRESH
        {
            return Ok(text.clone());
        }
        let text = Bytes::from(metrics::of(&*self.backend).await?);
        *last = Some((Instant::now(), text.clone()));
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::tests::fake::Fake;

    /// Runs `test` with the address of a port that waits for its clients as long as this.
    async fn with_port(patience: Duration, test: impl AsyncFnOnce(SocketAddr)) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::select! {
            never = serve_within(listener, Arc::new(Fake::default()), patience) => match never {},
            () = test(at) => {}
        }
    }

    async fn ask(at: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A connection that is reset has an answer as well.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn one_page_is_read_and_nothing_else() {
        with_port(PATIENCE, async |at| {
            let page = ask(at, "GET /metrics?x=1 HTTP/1.1\r\nhost: f\r\n\r\n").await;
            assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
            assert!(page.contains("content-type: application/openmetrics-text"));
            assert!(page.ends_with("# EOF\n"), "{page}");
            for (line, status) in [
                ("GET /v1/status", "404"),
                ("GET /metrics/", "404"),
                ("PUT /v1/cables/iksb12/state", "404"),
                ("POST /metrics", "405"),
                ("HEAD /metrics", "405"),
            ] {
                let answer = ask(at, &format!("{line} HTTP/1.1\r\nhost: f\r\n\r\n")).await;
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {status} ")),
                    "{line}: {answer}"
                );
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        with_port(PATIENCE, async |at| {
            let long = "x".repeat(4 * LONGEST_HEAD);
            let request = format!("GET /metrics HTTP/1.1\r\nhost: f\r\nlong: {long}\r\n\r\n");
            let answer = ask(at, &request).await;
            assert!(!answer.contains("200 OK"), "{answer}");
        })
        .await;
    }

    /// They fill all places: half of them send nothing, the others never end their request.
    #[tokio::test]
    async fn slow_clients_are_gone_after_a_while() {
        with_port(Duration::from_millis(200), async |at| {
            let mut slow = Vec::new();
            for number in 0..MOST_CLIENTS {
                let mut client = TcpStream::connect(at).await.unwrap();
                if number % 2 == 0 {
                    client
                        .write_all(b"GET /metrics HTTP/1.1\r\nx")
                        .await
                        .unwrap();
                }
                slow.push(client);
            }
            let page = ask(at, "GET /metrics HTTP/1.1\r\nhost: f\r\n\r\n").await;
            assert!(page.ends_with("# EOF\n"), "{page}");
        })
        .await;
    }
}
