//! Closes what a front end sent without waiting for it: [`Closer`].

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use rustix::io::ioctl_fionread;
use rustix::net::{Shutdown, shutdown};

/// Closes that may be under way for one socket. Those of honest front ends take a moment.
const LIMIT: usize = 8;

/// Closes descriptors on threads of their own. A front end can send a descriptor whose closing waits
/// for as long as the front end likes (a TCP socket that lingers, a file of its own FUSE file
/// system), and descriptors that it sent and we never read are closed with the connection.
#[derive(Debug, Default)]
pub(crate) struct Closer(Arc<()>);

impl Closer {
    /// Whether the socket is to accept no front end for now: earlier ones are still being closed.
    pub(crate) fn is_full(&self) -> bool {
        Arc::strong_count(&self.0) > LIMIT
    }

    /// Drops a value on another thread.
    pub(crate) fn drop_in_background(&self, value: impl Send + 'static) {
        let counted = self.0.clone();
        // If no thread can be started, the value is dropped here: late is better than never.
        let _ = thread::Builder::new()
            .name("socket-closer".into())
            .spawn(move || drop((value, counted)));
    }

    /// Turns a connection away.
    pub(crate) fn hang_up(&self, stream: UnixStream) {
        // Nothing can be sent to it after this: a connection that is empty then stays empty, and
        // holds no descriptor whose closing could wait.
        let _ = shutdown(&stream, Shutdown::Both);
        if ioctl_fionread(&stream).is_ok_and(|bytes| bytes == 0) {
            drop(stream);
        } else {
            self.drop_in_background(stream);
        }
    }
}
