//! The option `--metrics` of `run`: a port where a monitoring system reads the fabric's figures.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use clap::Args;

use fabric::Fabric;
use fabric::progress::Progress;

/// Where the figures of the fabric can be read over TCP.
#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    /// Serve `GET /metrics` (OpenMetrics, for Prometheus) at this address and port, to whoever reaches it. It is
    /// on the API's socket in any case.
    #[arg(
        long,
        value_name = "ADDR:PORT",
        num_args = 0..=1,
        default_missing_value = "127.0.0.1:9469"
    )]
    metrics: Option<SocketAddr>,
    #[arg(skip)]
    listener: Mutex<Option<TcpListener>>,
}

impl MetricsArgs {
    /// Listens, if it was asked for. A fabric without root moves into a network namespace of its own: to be
    /// called before, so that the port is where its user is.
    ///
    /// # Errors
    /// When the address is not this machine's, or the port is taken.
    pub(crate) fn listen(&self) -> anyhow::Result<()> {
        let Some(at) = self.metrics else {
            return Ok(());
        };
        let listener = TcpListener::bind(at)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .with_context(|| {
                format!(
                    "--metrics: cannot listen at {at}; name another address or port (`ss -tlnp` shows \
                     who is there)"
                )
            })?;
        let kept = self.listener.lock();
        *kept.expect("no holder of this lock can panic") = Some(listener);
        Ok(())
    }

    fn take(&self) -> Option<TcpListener> {
        let kept = self.listener.lock();
        kept.expect("no holder of this lock can panic").take()
    }

    /// Serves the figures of `fabric` until dropped; waits for ever if nobody asked for them.
    pub(crate) async fn serve(&self, fabric: &Arc<Fabric>, progress: &Progress) -> Infallible {
        let Some(at) = self.metrics else {
            return std::future::pending().await;
        };
        let listener = self.take().map(tokio::net::TcpListener::from_std);
        let Some(Ok(listener)) = listener else {
            progress.notice(
                '!',
                &format!("nobody can read the metrics at {at}: restart the fabric"),
            );
            return std::future::pending().await;
        };
        let at = listener.local_addr().unwrap_or(at);
        let who = if at.ip().is_loopback() {
            ""
        } else {
            ", for whoever reaches this address"
        };
        progress.note(&format!("  · metrics: http://{at}/metrics{who}"));
        api::serve_metrics(listener, fabric.clone()).await
    }
}
