//! The API's client side.

use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::Failure;

/// Longest answer that is read, in bytes: both streams of an `exec` in base64, and some.
const LONGEST_ANSWER: usize = 64 << 20;

/// Root's fabric.
const OF_ROOT: &str = "/run/ikv-fabric/control.sock";

/// Where a fabric listens unless told otherwise: /run/ikv-fabric for root, else the user's
/// own folder. A user whose own folder has none is shown root's, if it is there.
pub fn default_socket() -> PathBuf {
    let (own, of_root) = (own_socket(), PathBuf::from(OF_ROOT));
    if own.exists() || !of_root.exists() {
        own
    } else {
        of_root
    }
}

/// Where a fabric of this user's listens unless told otherwise.
pub fn own_socket() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) if !rustix::process::geteuid().is_root() => {
            PathBuf::from(folder).join("ikv-fabric/control.sock")
        }
        _ => OF_ROOT.into(),
    }
}

/// Why there is no answer to use.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no fabric answers at {}: start one with `ikv-fabric run`, or name its socket with --socket", .0.display())]
    NotRunning(PathBuf),
    /// Somebody listens, but not for us.
    #[error("the socket {} belongs to another user: run this as that user or root, or set the key `owner` of the fabric", .0.display())]
    NotAllowed(PathBuf),
    /// The fabric ended in mid-answer.
    #[error("the fabric at {} does not answer: {reason}; `ikv-fabric status` tells whether it still runs", .socket.display())]
    Broken {
        /// Which fabric.
        socket: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The fabric says no, and why.
    #[error("{0}")]
    Refused(String),
}

/// One connection per request: a unix socket costs nothing.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the fabric that listens at `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Client {
            socket: socket.into(),
        }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, None::<&()>).await
    }

    /// # Errors
    /// See [`ClientError`].
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(Method::PUT, path, Some(body)).await
    }

    /// # Errors
    /// See [`ClientError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Turns the connection of a `GET` into a stream of this protocol.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upgrade(
        &self,
        path: &str,
        protocol: &str,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<>, ClientError> {
        self.upgrade_by(Method::GET, path, protocol, Bytes::new())
            .await
    }

    /// Turns the connection of a `POST` into a stream of this protocol.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_and_upgrade<B: Serialize>(
        &self,
        path: &str,
        protocol: &str,
        body: &B,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<B>, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        self.upgrade_by(Method::POST, path, protocol, body.into())
            .await
    }

    async fn upgrade_by(
        &self,
        method: Method,
        path: &str,
        protocol: &str,
        body: Bytes,
    ) -> Result<TokioIo<Upgraded>, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "fabric")
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, protocol)
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        let response = self.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.failure(response).await);
        }
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|error| self.broken(error))?;
        Ok(TokioIo::new(upgraded))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let body = self.exchange(method, path, body).await?;
        serde_json::from_slice(&body).map_err(|error| self.broken(error))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Bytes, ClientError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| self.broken(error))?,
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "fabric")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.broken(error))?;
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(self.failure(response).await);
        }
        self.read(response).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError> {
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|error| match error.kind() {
                    io::ErrorKind::PermissionDenied => ClientError::NotAllowed(self.socket.clone()),
                    _ => ClientError::NotRunning(self.socket.clone()),
                })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        tokio::spawn(connection.with_upgrades());
        sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(error))
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = Limited::new(response.into_body(), LONGEST_ANSWER);
        Ok(body
            .collect()
            .await
            .map_err(|error| self.broken(error))?
            .to_bytes())
    }

    async fn failure(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        match self.read(response).await {
            Ok(body) => match serde_json::from_slice::<Failure>(&body) {
                Ok(failure) => ClientError::Refused(failure.error),
                Err(_) => self.broken(format!("it answered {status}")),
            },
            Err(error) => error,
        }
    }

    fn broken(&self, reason: impl ToString) -> ClientError {
        ClientError::Broken {
            socket: self.socket.clone(),
            reason: reason.to_string(),
        }
    }
}

/// A name as part of a path: whatever is not plain is percent-encoded.
pub fn segment(name: &str) -> String {
    name.bytes().fold(String::new(), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            path.push(byte.into());
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
        path
    })
}
