//! A switch's serial console as a stream of bytes: [`console_stream`].

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};

use vm::Vm;

/// Bytes that may wait for a slow client.
const BUFFER: usize = 64 << 10;

/// A console: first what was kept of it, then everything as it comes. What is written goes to the
/// guest.
pub(crate) fn console_stream(vm: &Vm) -> DuplexStream {
    let (ours, theirs) = duplex(BUFFER);
    let mut console = vm.console().attach();
    let typist = console.typist();
    let (mut from_client, mut to_client) = split(ours);
    let shown = async move {
        let _ = to_client.write_all(&console.backlog).await;
        while let Some(bytes) = console.read().await {
            if to_client.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let typed = async move {
        let mut keys = [0; 1024];
        while let Ok(length @ 1..) = from_client.read(&mut keys).await {
            if typist.send(keys[..length].to_vec()).await.is_err() {
                return;
            }
        }
    };
    // Either ends both: a client that has gone is noticed at once, not when the guest writes next.
    tokio::spawn(async move {
        tokio::select! {
            () = shown => {}
            () = typed => {}
        }
    });
    theirs
}
