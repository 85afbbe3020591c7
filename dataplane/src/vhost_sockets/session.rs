//! One front end, from connecting to hanging up: [`Session`].

use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::FrontendReq;

use crate::vhost_sockets::backend::{Answer, Backend, SessionError};
use crate::vhost_sockets::cable_end::{CableEnd, ExchangePort};
use crate::vhost_sockets::message::{MessageError, Reader, reply};

/// Most messages that are handled at a time, so that no front end keeps the others waiting. Bringing
/// up a device takes some forty.
const BUDGET: usize = 64;

/// A connected front end and the device that it sees.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) stream: UnixStream,
    pub(crate) backend: Backend,
    reader: Reader,
}

impl Session {
    pub(crate) fn new(stream: UnixStream, mtu: Option<u16>) -> Self {
        Session {
            stream,
            backend: Backend::new(mtu),
            reader: Reader::default(),
        }
    }

    /// Handles the messages that wait. `true` when more may wait.
    pub(crate) fn serve(
        &mut self,
        cable_end: &mut CableEnd<impl ExchangePort>,
    ) -> Result<bool, SessionError> {
        for _ in 0..BUDGET {
            let Some(message) = self.reader.next(&self.stream)? else {
                return Ok(false);
            };
            let (request, asks) = (message.request, message.needs_reply);
            let answer = self.backend.handle(message, cable_end);
            let asks = asks && self.backend.acknowledges();
            match answer {
                Ok(answer) => self.answer(request, answer, asks)?,
                Err(error) => {
                    // The session ends for this error, whether or not the answer arrives.
                    let _ = self.answer(request, Answer::Declined, asks);
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    fn answer(&self, request: FrontendReq, answer: Answer, asks: bool) -> Result<(), MessageError> {
        let send = |value: u64| reply(&self.stream, request, &value.to_ne_bytes());
        match answer {
            Answer::Value(value) => send(value),
            Answer::Ring { index, value } => {
                let body = [index.to_ne_bytes(), value.to_ne_bytes()].concat();
                reply(&self.stream, request, &body)
            }
            Answer::Done if asks => send(0),
            Answer::Declined if asks => send(1),
            Answer::Done | Answer::Declined => Ok(()),
        }
    }
}
