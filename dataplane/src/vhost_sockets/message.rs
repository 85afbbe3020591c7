//! Messages of the vhost-user protocol on a socket: [`Reader`] and [`reply`].
//!
//! The `vhost` crate says what requests, bodies and bits there are; reading and answering is
//! our own code, because the crate's handler waits for bytes that a hostile front end does not send
//! or does not read, and leaves the descriptors that it received open in our child processes.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};
use vhost::vhost_user::message::{
    FrontendReq, MAX_ATTACHED_FD_ENTRIES, MAX_MSG_SIZE, VhostUserHeaderFlag, VhostUserMsgValidator,
};

use crate::port::vhost_user::is_memory_file;
use crate::vhost_sockets::ring::is_eventfd;

/// Bytes of request, flags and size.
const HEADER: usize = 12;

/// Most descriptors that the kernel passes with one sendmsg(2) (SCM_MAX_FD).
const MAX_RIGHTS: usize = 253;

const VERSION: u32 = 1;

/// Why a session cannot go on: its bytes are not messages of the protocol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    /// The front end has closed the connection, which is its right.
    #[error("the front end hung up")]
    HungUp,
    #[error("request {0} is none that vhost-user knows")]
    UnknownRequest(u32),
    #[error("{request:?}: flags {flags:#x} are not those of a request")]
    Flags { request: FrontendReq, flags: u32 },
    #[error("{request:?}: a body of {size} bytes, more than any message has")]
    Oversized { request: FrontendReq, size: u32 },
    #[error("{0:?}: its body does not have the size or content that the protocol requires")]
    Body(FrontendReq),
    #[error("{0:?}: another number of descriptors than it requires")]
    Files(FrontendReq),
    #[error("more than {MAX_ATTACHED_FD_ENTRIES} descriptors with one message")]
    TooManyFiles,
    #[error(
        "{0:?}: a descriptor that is neither an eventfd nor memory: give QEMU \
         memory-backend-memfd, or memory-backend-file in /dev/shm or on hugetlbfs, with share=on"
    )]
    StrangeFile(FrontendReq),
    #[error("its descriptors could not be taken over: this process has too many open")]
    NoDescriptors,
    #[error("it does not read our answers")]
    NotReading,
    #[error("{0}")]
    Socket(#[from] Errno),
}

/// One complete request.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) request: FrontendReq,
    /// The front end waits for an answer, if REPLY_ACK was agreed on.
    pub(crate) needs_reply: bool,
    body: Vec<u8>,
    files: Vec<OwnedFd>,
}

impl Message {
    /// The body as a structure of the crate `vhost`.
    pub(crate) fn body<T: VhostUserMsgValidator + Default>(&self) -> Result<T, MessageError> {
        self.parts().and_then(|(body, rest)| match rest {
            [] => Ok(body),
            _ => Err(MessageError::Body(self.request)),
        })
    }

    /// The first part of the body as a structure of the crate `vhost`, and the rest.
    pub(crate) fn parts<T: VhostUserMsgValidator + Default>(
        &self,
    ) -> Result<(T, &[u8]), MessageError> {
        split(&self.body).ok_or(MessageError::Body(self.request))
    }

    /// Exactly this many descriptors.
    pub(crate) fn take_files(&mut self, count: usize) -> Result<Vec<OwnedFd>, MessageError> {
        if self.files.len() == count {
            Ok(std::mem::take(&mut self.files))
        } else {
            Err(MessageError::Files(self.request))
        }
    }

    /// Nothing that came with it is left, neither bytes nor descriptors.
    pub(crate) fn is_bare(&self) -> Result<(), MessageError> {
        match (self.body.is_empty(), self.files.is_empty()) {
            (true, true) => Ok(()),
            (false, _) => Err(MessageError::Body(self.request)),
            (_, false) => Err(MessageError::Files(self.request)),
        }
    }
}

/// A structure of the crate from the front of `bytes`, checked as the crate checks it.
pub(crate) fn split<T: VhostUserMsgValidator + Default>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let mut value = T::default();
    let (front, rest) = bytes.split_at_checked(value.as_slice().len())?;
    value.as_mut_slice().copy_from_slice(front);
    value.is_valid().then_some((value, rest))
}

/// Assembles messages from the bytes that wait in the socket, and never waits for more.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Header and body so far. Never longer than the message: a read that went into the next message
    /// would take that one's descriptors for this one's.
    bytes: Vec<u8>,
    /// The descriptors that came with it. One whose closing may wait never leaves the reader, which
    /// is dropped on a thread of its own.
    files: Vec<OwnedFd>,
}

impl Reader {
    /// The next message. `None` when it has not come completely yet.
    pub(crate) fn next(&mut self, socket: impl AsFd) -> Result<Option<Message>, MessageError> {
        loop {
            let missing = self.missing()?;
            if missing == 0 {
                return self.finish().map(Some);
            }
            let have = self.bytes.len();
            self.bytes.resize(have + missing, 0);
            let received = self.receive(socket.as_fd(), have);
            self.bytes.truncate(have + *received.as_ref().unwrap_or(&0));
            match received {
                Ok(0) | Err(MessageError::Socket(Errno::CONNRESET)) => {
                    return Err(MessageError::HungUp);
                }
                Ok(_) | Err(MessageError::Socket(Errno::INTR)) => {}
                Err(MessageError::Socket(Errno::AGAIN)) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn receive(&mut self, socket: impl AsFd, have: usize) -> Result<usize, MessageError> {
        const SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_RIGHTS));
        let mut space = [MaybeUninit::<u8>::uninit(); SPACE];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut self.bytes[have..])];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(socket, &mut parts, &mut control, flags)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(MessageError::NoDescriptors);
        }
        if self.files.len() > MAX_ATTACHED_FD_ENTRIES {
            return Err(MessageError::TooManyFiles);
        }
        Ok(received.bytes)
    }

    /// Bytes up to the end of the header, or of the message once the header is there.
    fn missing(&self) -> Result<usize, MessageError> {
        match self.bytes.len().checked_sub(HEADER) {
            Some(body) => Ok(self.header()?.2 - body),
            None => Ok(HEADER - self.bytes.len()),
        }
    }

    fn header(&self) -> Result<(FrontendReq, u32, usize), MessageError> {
        let word = |at: usize| {
            let bytes = self.bytes[at..at + 4].try_into();
            u32::from_ne_bytes(bytes.expect("four bytes"))
        };
        let (request, flags, size) = (word(0), word(4), word(8));
        let request =
            FrontendReq::try_from(request).map_err(|()| MessageError::UnknownRequest(request))?;
        if flags & !VhostUserHeaderFlag::NEED_REPLY.bits() != VERSION {
            return Err(MessageError::Flags { request, flags });
        }
        if size as usize > MAX_MSG_SIZE {
            return Err(MessageError::Oversized { request, size });
        }
        Ok((request, flags, size as usize))
    }

    fn finish(&mut self) -> Result<Message, MessageError> {
        let (request, flags, _) = self.header()?;
        if !self.files.iter().all(is_harmless) {
            return Err(MessageError::StrangeFile(request));
        }
        let body = self.bytes[HEADER..].to_vec();
        self.bytes.clear();
        Ok(Message {
            request,
            needs_reply: flags & VhostUserHeaderFlag::NEED_REPLY.bits() != 0,
            body,
            files: std::mem::take(&mut self.files),
        })
    }
}

/// Whether the file can be used and closed without waiting for the front end that sent it. The query
/// does not wait either.
fn is_harmless(file: &OwnedFd) -> bool {
    is_memory_file(file) || is_eventfd(file)
}

/// Answers a request. An answer is far smaller than a socket's buffer: when the buffer is full, the
/// front end has left hundreds of answers unread.
pub(crate) fn reply(
    socket: impl AsFd,
    request: FrontendReq,
    body: &[u8],
) -> Result<(), MessageError> {
    let flags = VERSION | VhostUserHeaderFlag::REPLY.bits();
    let mut message = Vec::with_capacity(HEADER + body.len());
    for word in [u32::from(request), flags, body.len() as u32] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    message.extend_from_slice(body);
    loop {
        match send(&socket, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) if sent == message.len() => return Ok(()),
            Err(Errno::INTR) => {}
            Ok(_) | Err(Errno::AGAIN) => return Err(MessageError::NotReading),
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(MessageError::HungUp),
            Err(errno) => return Err(errno.into()),
        }
    }
}
