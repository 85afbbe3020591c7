//! Taps as the VMs need them: opened by name, or unconnected.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use dataplane::sys::netns;
use dataplane::sys::tap::{TapFlags, open_tap};

/// Opens an existing tap by name with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`, and as many queues as it
/// was made with. Whether the descriptor
/// blocks does not matter to QEMU.
pub type OpenTap = Arc<dyn Fn(&str) -> io::Result<OwnedFd> + Send + Sync>;

/// Makes `count` taps in a network namespace that contains nothing else, so that no program sees or
/// reaches them. The kernel removes each with its descriptor.
///
/// # Errors
/// When the TUN driver is unavailable, or the caller is not root.
pub(crate) fn unconnected(count: usize) -> io::Result<Vec<OwnedFd>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let flags = TapFlags {
        vnet_hdr: true,
        exclusive: true,
        nonblocking: true,
        multi_queue: false,
    };
    netns::in_new_one(move || {
        (0..count)
            .map(|index| open_tap(&format!("unconnected{index}"), flags))
            .collect()
    })
}
