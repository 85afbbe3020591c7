//! The page and its server: [`Page`].

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    LOCATION, REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use api::{Backend, routes};

use crate::assets;
use crate::connections::{self, MOST_KNOWN, Place};
use crate::door::{Door, Entry};
use crate::token::Token;

/// What the page may load, and from where: its own files, and nothing written inside of them.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'";

/// Every answer has these.
const HEADERS: [(HeaderName, HeaderValue); 7] = [
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Leads on to the page.
const ONWARD: &str = "<!doctype html><title>ikv-fabric</title>\
    <meta http-equiv=\"refresh\" content=\"0;url=/\"><a href=\"/\">ikv-fabric</a>\n";

/// Why the page cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Whoever reads the traffic of another address has the cookie: there is no encryption.
    #[error(
        "the page is for this machine alone: name an address such as 127.0.0.1:8090, not {0}; from \
         another machine, `ssh -L 8090:127.0.0.1:8090` leads to it"
    )]
    NotLoopback(SocketAddr),
    /// The address is not this machine's, or the port is taken.
    #[error(
        "the page cannot listen at {0}: {1}; name another port (`ss -tlnp` shows who is there)"
    )]
    Address(SocketAddr, io::Error),
    /// There is nothing to make a secret of.
    #[error(
        "the kernel has no random numbers for the page's link: {0}; start the fabric without --web"
    )]
    Random(io::Error),
}

/// A page that listens and is not served yet.
#[derive(Debug)]
pub struct Page {
    listener: TcpListener,
    door: Door,
}

impl Page {
    /// Listens at `at`, and makes the secret of its link. Port 0 stands for any that is free.
    ///
    /// # Errors
    /// When `at` is not a loopback address, is not this machine's, or is taken.
    pub fn listen(at: SocketAddr) -> Result<Self, ListenError> {
        if !at.ip().is_loopback() {
            return Err(ListenError::NotLoopback(at));
        }
        let failed = |error| ListenError::Address(at, error);
        let listener = TcpListener::bind(at).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let own = listener.local_addr().map_err(failed)?;
        let token = Token::random().map_err(ListenError::Random)?;
        let door = Door::new(own, token);
        Ok(Page { listener, door })
    }

    /// The link that opens the page. Whoever has it controls the fabric.
    pub fn link(&self) -> String {
        self.door.link()
    }

    /// Serves the page of this fabric; the future ends only when it is dropped.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn serve<B: Backend>(
        &self,
        backend: Arc<B>,
    ) -> io::Result<impl Future<Output = Infallible> + Send + use<B>> {
        let listener = tokio::net::TcpListener::from_std(self.listener.try_clone()?)?;
        let inside = assets::router()
            // No script may read the secret: it would outlive the visit.
            .route(&routes::PAGE.path(""), any(withhold_link))
            .fallback_service(api::router(backend));
        let reception = Arc::new(Reception {
            door: self.door.clone(),
            inside: TowerToHyperService::new(inside),
        });
        Ok(connections::accept(listener, move |request, place| {
            let reception = reception.clone();
            async move { reception.answer(request, &place).await }
        }))
    }
}

/// Answers requests: refuses them, or passes them on.
struct Reception {
    door: Door,
    /// For those who may come in.
    inside: TowerToHyperService<Router>,
}

impl Reception {
    async fn answer(&self, request: Request<Incoming>, place: &Place) -> Response {
        let (head, body) = request.into_parts();
        let mut answer = match self.door.judge(&head) {
            Entry::Enter if place.know().is_ok() => {
                let request = Request::from_parts(head, body);
                match self.inside.call(request).await {
                    Ok(answer) => answer,
                    Err(never) => match never {},
                }
            }
            Entry::Enter => refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!(
                    "{MOST_KNOWN} connections to this page are open: close some of its windows"
                ),
            ),
            Entry::Greet { from_elsewhere } => self.greet(from_elsewhere),
            Entry::Refuse(status, sentence) => refusal(status, sentence),
        };
        secure(answer.headers_mut());
        answer
    }

    fn greet(&self, from_elsewhere: bool) -> Response {
        let cookie = [(SET_COOKIE, self.door.cookie())];
        if from_elsewhere {
            let html = [(CONTENT_TYPE, "text/html; charset=utf-8")];
            return (StatusCode::OK, cookie, html, ONWARD).into_response();
        }
        let onward = [(LOCATION, HeaderValue::from_static("/"))];
        (StatusCode::SEE_OTHER, cookie, onward).into_response()
    }
}

async fn withhold_link() -> Response {
    refusal(
        StatusCode::FORBIDDEN,
        "the page's link is not given to the page: `ikv-fabric web` prints it",
    )
}

fn refusal(status: StatusCode, sentence: &str) -> Response {
    let kind = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
    (status, kind, format!("{sentence}\n")).into_response()
}

fn secure(headers: &mut HeaderMap) {
    for (name, value) in &HEADERS {
        headers.insert(name, value.clone());
    }
}
