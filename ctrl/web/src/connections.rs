//! How many connections there may be, and for how long: [`accept`].
//!
//! Whoever can connect is a stranger until a request of theirs has the cookie. There are few places for
//! strangers, and the one who waits longest makes room for a new one; so nobody can take all of them for
//! longer than it takes to ask for the page.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep};

/// The most connections without the cookie, and the most with it.
pub(crate) const MOST_STRANGERS: usize = 64;
pub(crate) const MOST_KNOWN: usize = 64;

/// For the head of a request to arrive; a connection on which none begins is closed after the same time.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client that takes none of its answer for this long is disconnected.
const STALLED: Duration = Duration::from_secs(30);

/// The most bytes of a request's head.
const LONGEST_HEAD: usize = 16 << 10;

/// Between two attempts to accept a client while the process has no descriptor left for it.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// All connections.
#[derive(Debug)]
struct Places {
    /// Those without the cookie, the oldest first: their numbers, and how to end them.
    strangers: Mutex<VecDeque<(u64, Arc<Notify>)>>,
    known: Arc<Semaphore>,
}

/// The place of one connection, which is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    places: Arc<Places>,
    known: Mutex<Option<OwnedSemaphorePermit>>,
}

/// There are as many connections with the cookie as there may be.
#[derive(Debug)]
pub(crate) struct Full;

impl Places {
    fn new() -> Arc<Self> {
        Arc::new(Places {
            strangers: Mutex::default(),
            known: Arc::new(Semaphore::new(MOST_KNOWN)),
        })
    }

    fn strangers(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<Notify>)>> {
        self.strangers
            .lock()
            .expect("no holder of this lock can panic")
    }

    /// A place for a new connection, and what is notified when it has to go. `number` is its own.
    fn take(self: &Arc<Self>, number: u64) -> (Place, Arc<Notify>) {
        let cut = Arc::new(Notify::new());
        let mut strangers = self.strangers();
        strangers.push_back((number, cut.clone()));
        if strangers.len() > MOST_STRANGERS
            && let Some((_, oldest)) = strangers.pop_front()
        {
            oldest.notify_one();
        }
        let place = Place {
            number,
            places: self.clone(),
            known: Mutex::default(),
        };
        (place, cut)
    }
}

impl Place {
    /// Marks the connection as one of somebody who has the cookie.
    ///
    /// # Errors
    /// When there are too many of them.
    pub(crate) fn know(&self) -> Result<(), Full> {
        let mut known = self.known.lock().expect("no holder of this lock can panic");
        if known.is_none() {
            let permit = self.places.known.clone().try_acquire_owned();
            *known = Some(permit.map_err(|_| Full)?);
            self.leave_strangers();
        }
        Ok(())
    }

    fn leave_strangers(&self) {
        let mut strangers = self.places.strangers();
        strangers.retain(|(number, _)| *number != self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave_strangers();
    }
}

/// Accepts connections until dropped, and lets `answer` answer each of their requests.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    answer: impl Fn(Request<Incoming>, Arc<Place>) -> F + Clone + Send + Sync + 'static,
) -> Infallible
where
    F: Future<Output = Response> + Send + 'static,
{
    let places = Places::new();
    let mut number = 0;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                number += 1;
                let (place, cut) = places.take(number);
                tokio::spawn(serve(stream, Arc::new(place), cut, answer.clone()));
                // The new one is served before the next is accepted: whoever has sent the cookie by now
                // is known before strangers can push them out.
                yield_now().await;
            }
            Err(error) => {
                tracing::warn!(%error, "the page cannot accept a client");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn serve<F>(
    stream: TcpStream,
    place: Arc<Place>,
    cut: Arc<Notify>,
    answer: impl Fn(Request<Incoming>, Arc<Place>) -> F,
) where
    F: Future<Output = Response>,
{
    let connection = Connection {
        stream,
        stalled: None,
        _place: place.clone(),
    };
    let service = service_fn(move |request| {
        let answer = answer(request, place.clone());
        async { Ok::<_, Infallible>(answer.await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(LONGEST_HEAD);
    let served = http.serve_connection(TokioIo::new(connection), service);
    tokio::select! {
        served = served.with_upgrades() => {
            if let Err(error) = served {
                tracing::debug!(%error, "a client of the page");
            }
        }
        () = cut.notified() => {}
    }
}

/// A connection, upgraded or not. It has its place until it is dropped.
struct Connection {
    stream: TcpStream,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    _place: Arc<Place>,
}

impl Connection {
    /// Passes on what became of a write; an error once the client has taken nothing for too long.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        wrote: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stalled = None;
            return wrote;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALLED)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
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
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.watch(context, wrote)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a connection has been told to go.
    async fn is_cut(cut: &Notify) -> bool {
        tokio::select! {
            biased;
            () = cut.notified() => true,
            () = yield_now() => false,
        }
    }

    #[tokio::test]
    async fn the_oldest_stranger_makes_room() {
        let places = Places::new();
        let mut strangers: VecDeque<_> = (0..MOST_STRANGERS as u64)
            .map(|number| places.take(number))
            .collect();
        assert!(!is_cut(&strangers[0].1).await);
        let _newest = places.take(1000);
        assert!(is_cut(&strangers[0].1).await);
        assert!(!is_cut(&strangers[1].1).await);
        // Whoever leaves makes room as well.
        strangers.drain(..2);
        assert_eq!(places.strangers().len(), MOST_STRANGERS - 1);
    }

    #[tokio::test]
    async fn no_stranger_pushes_out_who_has_the_cookie() {
        let places = Places::new();
        let (guest, cut) = places.take(0);
        guest.know().unwrap();
        guest.know().unwrap();
        let strangers: Vec<_> = (1..1000).map(|number| places.take(number)).collect();
        assert!(!is_cut(&cut).await);
        assert_eq!(places.strangers().len(), MOST_STRANGERS);
        drop(strangers);
        assert_eq!(places.known.available_permits(), MOST_KNOWN - 1);
        drop(guest);
        assert_eq!(places.known.available_permits(), MOST_KNOWN);
    }

    #[tokio::test]
    async fn there_are_so_many_places_and_no_more() {
        let places = Places::new();
        let guests: Vec<_> = (0..MOST_KNOWN as u64)
            .map(|number| places.take(number).0)
            .collect();
        assert!(guests.iter().all(|guest| guest.know().is_ok()));
        let (late, _) = places.take(1000);
        assert!(late.know().is_err());
        drop(guests);
        assert!(late.know().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_disconnected() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (place, _) = Places::new().take(0);
        let mut connection = Connection {
            stream: accepted.unwrap().0,
            stalled: None,
            _place: Arc::new(place),
        };
        let (began, answer) = (tokio::time::Instant::now(), vec![0; 1 << 16]);
        let error = loop {
            let written = tokio::io::AsyncWriteExt::write(&mut connection, &answer).await;
            if let Err(error) = written {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= STALLED);
        drop(client);
    }
}
