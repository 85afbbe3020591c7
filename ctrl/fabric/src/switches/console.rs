//! A switch's serial console as a stream of bytes: [`console_stream`].

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};

use vm::Vm;

/// How many bytes may wait for a slow client.
const BUFFER: usize = 64 << 10;

/// A console stream: first the recent output that was kept, then all new output. Input goes to the
/// guest.
pub(crate) fn console_stream(vm: &Vm) -> DuplexStream {
    let (ours, theirs) = duplex(BUFFER);
    let mut console = vm.console().attach();
    let typist = console.typist();
    let (mut from_client, mut to_client) = split(ours);
    let shown = async move {
        // If the client is gone, the loop below notices.
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
    // The end of either direction ends both, so that a client's disconnection is noticed at once
    // and not when the guest writes next.
    tokio::spawn(async move {
        tokio::select! {
            () = shown => {}
            () = typed => {}
        }
    });
    theirs
}
