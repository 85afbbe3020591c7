//! How a request travels: one HTTP connection over the unix socket for each.

use std::io;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::{Client, ClientError};
use crate::Failure;
use crate::routes::{Protocol, Route};

/// The longest answer that is read, in bytes: both streams of an `exec` in base64, and some.
const LONGEST_ANSWER: usize = 64 << 20;

impl Client {
    /// Sends a request and reads its answer. `name` is the name in the path, if the route has one.
    pub(super) async fn ask<I: Serialize, A: DeserializeOwned>(
        &self,
        route: Route<I, A>,
        name: &str,
        input: &I,
    ) -> Result<A, ClientError> {
        let request = self.request(&route, name, input)?;
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(self.failure(response).await);
        }
        let body = self.read(response.into_body()).await?;
        serde_json::from_slice(&body).map_err(|error| self.broken(error))
    }

    /// Sends a request; the body of its answer, which is not JSON.
    pub(super) async fn open<I: Serialize, A>(
        &self,
        route: Route<I, A>,
        input: &I,
    ) -> Result<Incoming, ClientError> {
        let request = self.request(&route, "", input)?;
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(self.failure(response).await);
        }
        Ok(response.into_body())
    }

    /// Reads a text to its end.
    pub(super) async fn read_text(&self, body: Incoming) -> Result<String, ClientError> {
        let bytes = self.read(body).await?;
        String::from_utf8(bytes.into()).map_err(|error| self.broken(error))
    }

    /// Sends a request and turns its connection into the stream that it asks for.
    pub(super) async fn upgrade<I: Serialize, P: Protocol>(
        &self,
        route: Route<I, P>,
        name: &str,
        input: &I,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<I, P>, ClientError> {
        let mut request = self.request(&route, name, input)?;
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(P::NAME));
        let response = self.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.failure(response).await);
        }
        let upgraded = hyper::upgrade::on(response).await;
        Ok(TokioIo::new(upgraded.map_err(|error| self.broken(error))?))
    }

    fn request<I: Serialize, A>(
        &self,
        route: &Route<I, A>,
        name: &str,
        input: &I,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut uri = route.path(&segment(name));
        let mut body = Vec::new();
        if route.method == Method::GET {
            let query = serde_urlencoded::to_string(input).map_err(|error| self.broken(error))?;
            if !query.is_empty() {
                uri = format!("{uri}?{query}");
            }
        } else {
            body = serde_json::to_vec(input).map_err(|error| self.broken(error))?;
        }
        Request::builder()
            .method(route.method.clone())
            .uri(uri)
            .header(HOST, "fabric")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.broken(error))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError> {
        let socket = self.socket();
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => ClientError::NotAllowed(socket.to_owned()),
                _ => ClientError::NotRunning(socket.to_owned()),
            })?;
        self.check_server(&stream)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        tokio::spawn(connection.with_upgrades());
        sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(error))
    }

    /// Checks who serves the socket before anything is sent: an answer names files and sets what a
    /// terminal shows.
    fn check_server(&self, stream: &UnixStream) -> Result<(), ClientError> {
        // Of the moment when the server began to listen.
        let server = stream.peer_cred().map_err(|error| self.broken(error))?;
        let own = rustix::process::geteuid().as_raw();
        if [0, own].contains(&server.uid()) {
            return Ok(());
        }
        Err(ClientError::Foreign {
            socket: self.socket().to_owned(),
            uid: server.uid(),
        })
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, ClientError> {
        let body = Limited::new(body, LONGEST_ANSWER);
        Ok(body
            .collect()
            .await
            .map_err(|error| self.broken(error))?
            .to_bytes())
    }

    async fn failure(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        match self.read(response.into_body()).await {
            Ok(body) => match serde_json::from_slice::<Failure>(&body) {
                Ok(failure) => ClientError::Refused(failure.error),
                Err(_) => self.broken(format!("it answered {status}")),
            },
            Err(error) => error,
        }
    }

    pub(super) fn broken(&self, reason: impl ToString) -> ClientError {
        ClientError::Broken {
            socket: self.socket().to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// A name as one segment of a path: everything but letters, digits and `-_.` is percent-encoded.
fn segment(name: &str) -> String {
    name.bytes().fold(String::new(), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            path.push(byte.into());
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
        path
    })
}
