//! `ikv-fabric web`: the link of a fabric's page; and the option of `run` that serves it.

use std::net::SocketAddr;
use std::sync::Mutex;

use clap::Args;

use super::Context;
use web::Page;

/// Prints the link that opens the fabric's page in a browser, for a fabric that was started with
/// `run --web 127.0.0.1:8090`. Whoever has the link controls the fabric.
#[derive(Debug, Args)]
pub(crate) struct WebArgs {}

/// # Errors
/// When no fabric answers, or it has no page.
pub(crate) async fn run(context: &Context, _: &WebArgs) -> anyhow::Result<()> {
    let page = context.client.page().await?;
    context.report(&page, || format!("{}\n", page.link))?;
    Ok(())
}

/// Where the page is served.
#[derive(Debug, Args)]
pub(crate) struct PageArgs {
    /// Serve a page for browsers at this loopback address and port, to whoever has its link: the aisle with
    /// every cable, live [without ADDR:PORT: 127.0.0.1:8090].
    #[arg(
        long,
        value_name = "ADDR:PORT",
        num_args = 0..=1,
        default_missing_value = "127.0.0.1:8090"
    )]
    web: Option<SocketAddr>,
    #[arg(skip)]
    page: Mutex<Option<Page>>,
}

impl PageArgs {
    /// Listens, if it was asked for. A fabric without root moves into a network namespace of its own:
    /// to be called before, so that the page is where its user's browser is.
    ///
    /// # Errors
    /// When the address is not a loopback address of this machine, or the port is taken.
    pub(crate) fn listen(&self) -> anyhow::Result<()> {
        let Some(at) = self.web else {
            return Ok(());
        };
        *self.lock() = Some(Page::listen(at)?);
        Ok(())
    }

    /// The page that listens, if any; once.
    pub(crate) fn take(&self) -> Option<Page> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Page>> {
        self.page.lock().expect("no holder of this lock can panic")
    }
}
