//! A client of the API's socket that sends any bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest wait for an answer, or for the connection's end.
const LIMIT: Duration = Duration::from_secs(30);

/// A connection to the API's socket.
#[derive(Debug)]
pub struct RawClient(UnixStream);

/// The fabric's reaction to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// An HTTP answer: its status and its body.
    Answer(u16, String),
    /// The connection was closed without an answer.
    Closed,
}

impl RawClient {
    /// Connects.
    ///
    /// # Panics
    /// When no fabric listens.
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket)
            .unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        stream.set_write_timeout(Some(LIMIT)).expect("not zero");
        RawClient(stream)
    }

    /// Sends bytes. Returns `false` once the other side does not read them.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Closes the sending side.
    pub fn finish(&self) {
        // The connection may be closed already.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// Waits for an answer, or for the end of the connection.
    ///
    /// # Panics
    /// When neither comes within 30 s.
    pub fn reply(&mut self) -> Reply {
        let deadline = Instant::now() + LIMIT;
        let mut seen = Vec::new();
        loop {
            if let Some(answer) = answer(&seen) {
                return answer;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "neither answer nor end within {LIMIT:?}");
            self.0.set_read_timeout(Some(left)).expect("not zero");
            let mut chunk = [0; 4096];
            match self.0.read(&mut chunk) {
                Ok(0) => return Reply::Closed,
                Ok(read) => seen.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Reply::Closed,
            }
        }
    }
}

/// The answer, once it is complete. An upgraded connection's answer has no body.
fn answer(seen: &[u8]) -> Option<Reply> {
    let end = seen.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
    let status = head.strip_prefix("http/1.1 ")?.get(..3)?.parse().ok()?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(Some(0), |length| length.parse().ok())?;
    let body = seen.get(end + 4..end + 4 + length)?;
    Some(Reply::Answer(
        status,
        String::from_utf8_lossy(body).into_owned(),
    ))
}

/// A valid request; its body is JSON.
pub fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    request_with(method, path, "content-type: application/json\r\n", body)
}

/// As [`request`] with other headers, each ending with CR and LF.
pub fn request_with(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: fabric\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}
