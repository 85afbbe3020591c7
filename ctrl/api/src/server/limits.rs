//! The server's connections: how many there may be, and how long a client may take to ask.
//!
//! No client can use up the fabric's memory, descriptors or time.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::RefusalKind;
use crate::{ApiError, Peer};

/// The most clients at the same time; those attached to a capture or a console count too.
const MOST_CLIENTS: usize = 128;

/// The most clients beyond [`MOST_CLIENTS`] that are being refused at the same time. Further
/// ones wait in the socket's backlog.
const MOST_REFUSED: usize = 8;

/// For the head of a request to arrive, and then for its body. A connection on which no request
/// begins is closed after the same time.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The most bytes in a request's head: the names of all cables of a large fabric, and some. hyper
/// may read twice as many before it finds that a head is too long.
const LONGEST_HEAD: usize = 64 << 10;

/// Between two attempts to accept a client while the process has no descriptor left for it.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// A connection, upgraded or not. It counts against the limit until it is dropped.
struct Connection {
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
}

/// Serves clients until dropped.
pub(super) async fn serve_clients(listener: UnixListener, router: Router) -> Infallible {
    let served = Arc::new(Semaphore::new(MOST_CLIENTS));
    let refused = Arc::new(Semaphore::new(MOST_REFUSED));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the API cannot accept a client");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        if let Ok(permit) = served.clone().try_acquire_owned() {
            tokio::spawn(serve_one(Connection::new(stream, permit), router.clone()));
        } else if let Ok(permit) = refused.clone().acquire_owned().await {
            tokio::spawn(refuse(Connection::new(stream, permit)));
        }
    }
}

fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(LONGEST_HEAD);
    http
}

async fn serve_one(connection: Connection, router: Router) {
    let peer = Peer {
        uid: connection.stream.peer_cred().ok().map(|peer| peer.uid()),
    };
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.call(request)
    });
    let served = http().serve_connection(TokioIo::new(connection), service);
    if let Err(error) = served.with_upgrades().await {
        tracing::debug!(%error, "an API client");
    }
}

async fn refuse(connection: Connection) {
    let service = service_fn(async |_| Ok::<_, Infallible>(full().into_response()));
    let mut http = http();
    let served = http
        .keep_alive(false)
        .serve_connection(TokioIo::new(connection), service);
    // A client that does not read its refusal is not waited for.
    let _ = tokio::time::timeout(PATIENCE, served).await;
}

fn full() -> ApiError {
    ApiError::new(
        RefusalKind::Busy,
        format!(
            "this fabric serves {MOST_CLIENTS} clients at once, and as many are connected: end some \
         of its captures, consoles or scripts, and try again"
        ),
    )
}

impl Connection {
    fn new(stream: UnixStream, permit: OwnedSemaphorePermit) -> Self {
        Connection {
            stream,
            _permit: permit,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
