//! Letting go of what a front end sent without waiting for it: [`Closer`].

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use rustix::io::ioctl_fionread;
use rustix::net::{Shutdown, shutdown};

/// How much of one jack may wait to be closed. The sessions of honest front ends are gone in a
/// moment.
const MOST: usize = 8;

/// Closes descriptors on threads of their own. A front end can send one whose closing waits, for
/// as long as it likes (a TCP socket that lingers, a file of its own FUSE file system), and what
/// it sent and we never read is closed with the socket.
#[derive(Debug, Default)]
pub(crate) struct Closer(Arc<()>);

impl Closer {
    /// Whether the jack is to take nobody in for now: earlier front ends are still being closed.
    pub(crate) fn is_full(&self) -> bool {
        Arc::strong_count(&self.0) > MOST
    }

    /// Drops it on another thread.
    pub(crate) fn drop_in_background(&self, what: impl Send + 'static) {
        let counted = self.0.clone();
        // Without another thread it is dropped here: late is better than never.
        let _ = thread::Builder::new()
            .name("jack-closer".into())
            .spawn(move || drop((what, counted)));
    }

    /// Turns a connection away.
    pub(crate) fn hang_up(&self, stream: UnixStream) {
        // Nothing can be sent to it any more after this, so that an empty one stays empty.
        let _ = shutdown(&stream, Shutdown::Both);
        if ioctl_fionread(&stream).is_ok_and(|bytes| bytes == 0) {
            drop(stream);
        } else {
            self.drop_in_background(stream);
        }
    }
}
