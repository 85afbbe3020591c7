//! Connections that become streams: consoles, captures and dumps.

use std::future::Future;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy, split};

use crate::capture::CaptureStream;
use crate::error::RefusalKind;
use crate::{ApiError, ConsoleStream};

/// What a request says about the stream that its connection is to become.
pub(super) struct Upgrade {
    protocol: Option<HeaderValue>,
    connection: Option<OnUpgrade>,
}

impl Upgrade {
    pub(super) fn take_from(request: &mut Request) -> Self {
        Upgrade {
            protocol: request.headers().get(header::UPGRADE).cloned(),
            connection: request.extensions_mut().remove(),
        }
    }

    /// The connection, if `protocol` is what the client wants to speak on it.
    ///
    /// # Errors
    /// When the client did not ask for an upgrade, or for one to another protocol.
    pub(super) fn accept(&mut self, protocol: &str) -> Result<OnUpgrade, ApiError> {
        let asked = self.protocol.take();
        let matches =
            asked.is_some_and(|asked| asked.as_bytes().eq_ignore_ascii_case(protocol.as_bytes()));
        let connection = self.connection.take().filter(|_| matches);
        connection.ok_or_else(|| {
            ApiError::new(
                RefusalKind::Invalid,
                format!(
                    "the answer is a stream: ask for it with the headers `Connection: upgrade` \
                     and `Upgrade: {protocol}`"
                ),
            )
        })
    }
}

/// What a backend sends over an upgraded connection.
pub(super) trait Stream: Send + 'static {
    /// Serves the client until either side ends.
    fn serve(self, client: impl AsyncRead + AsyncWrite + Send) -> impl Future<Output = ()> + Send;
}

impl Stream for CaptureStream {
    async fn serve(self, client: impl AsyncRead + AsyncWrite + Send) {
        // It fails when the client has gone, so that there is no one to report it to.
        let _ = self.send(client).await;
    }
}

impl Stream for Box<dyn ConsoleStream> {
    async fn serve(self, client: impl AsyncRead + AsyncWrite + Send) {
        let (mut from_client, mut to_client) = split(client);
        let (mut from_vm, mut to_vm) = split(self);
        // The end of either way ends both. Otherwise the server would notice that a client has
        // gone only when the VM writes something.
        tokio::select! {
            _ = copy(&mut from_client, &mut to_vm) => {}
            _ = copy(&mut from_vm, &mut to_client) => {}
        }
    }
}

/// Answers that the connection is upgraded; a task of its own serves the stream after that.
pub(super) fn switch_to(
    protocol: &'static str,
    upgrade: OnUpgrade,
    stream: impl Stream,
) -> Response {
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            stream.serve(TokioIo::new(upgraded)).await;
        }
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, protocol)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
