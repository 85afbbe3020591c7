//! A client of a fabric's page that sends any bytes, and the browser.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::panel::PanelHost;
use crate::{Netns, skip};

/// The longest wait for an answer, or for the connection's end.
const LIMIT: Duration = Duration::from_secs(30);

/// An answer of the page's server.
#[derive(Debug, Clone)]
pub struct WebAnswer {
    /// Its status.
    pub status: u16,
    /// Its headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl WebAnswer {
    /// The value of a header; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        let mut named = self.headers.iter().filter(|(found, _)| found == name);
        named.next().map_or("", |(_, value)| value)
    }

    /// Its body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The page of a fabric: its address, its link and the cookie that the link gives.
#[derive(Debug)]
pub struct PageClient<'h> {
    netns: &'h Netns,
    /// Where the page listens.
    pub at: SocketAddr,
    /// What stands behind the address in the link.
    pub query: String,
    /// The cookie as a browser sends it.
    pub cookie: String,
}

impl<'h> PageClient<'h> {
    /// Asks the fabric for the link and opens it.
    ///
    /// # Panics
    /// When there is none, or it gives no cookie.
    pub fn open(host: &'h PanelHost) -> Self {
        let answer = host.json(&["web"]);
        let link = answer["link"].as_str().expect("a link");
        let rest = link.strip_prefix("http://").expect("a link");
        let (at, query) = rest.split_once('/').expect("a path");
        let mut page = PageClient {
            netns: &host.netns,
            at: at.parse().expect("an address"),
            query: format!("/{query}"),
            cookie: String::new(),
        };
        let greeting = page.ask("GET", &page.query, &[("host", at)], "");
        assert_eq!(greeting.status, 303, "{greeting:?}");
        let cookie = greeting.header("set-cookie").split(';').next();
        cookie.unwrap_or_default().clone_into(&mut page.cookie);
        page
    }

    /// The link.
    pub fn link(&self) -> String {
        format!("http://{}{}", self.at, self.query)
    }

    /// A connection to the page's server.
    ///
    /// # Panics
    /// When nobody listens.
    pub fn connect(&self) -> TcpStream {
        let stream = self.netns.enter(|| TcpStream::connect(self.at));
        let stream = stream.unwrap_or_else(|error| panic!("{}: {error}", self.at));
        stream.set_write_timeout(Some(LIMIT)).expect("not zero");
        stream
    }

    /// A request with these headers and no others but those of its body; its answer.
    ///
    /// # Panics
    /// When no whole answer comes within 30 s.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> WebAnswer {
        let mut stream = self.connect();
        // The server may refuse before it has read all of it.
        let _ = stream.write_all(&request(method, path, headers, body));
        answer(&mut stream).unwrap_or_else(|| panic!("{method} {path}: closed without an answer"))
    }

    /// A request as the page itself makes it.
    ///
    /// # Panics
    /// As [`PageClient::ask`].
    pub fn call(&self, method: &str, path: &str, body: &str) -> WebAnswer {
        let (host, origin) = (self.at.to_string(), format!("http://{}", self.at));
        let headers = [
            ("host", &*host),
            ("origin", &*origin),
            ("sec-fetch-site", "same-origin"),
            ("cookie", &*self.cookie),
        ];
        self.ask(method, path, &headers, body)
    }
}

/// A request after whose answer the server closes the connection. It is of HTTP/1.0, whose answers
/// are never in chunks.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.0\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        text += &format!(
            "content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
    }
    format!("{text}\r\n{body}").into_bytes()
}

/// The answer on a connection that the server closes after it; `None` if it closes without one.
///
/// # Panics
/// When it does not close within 30 s.
pub fn answer(stream: &mut TcpStream) -> Option<WebAnswer> {
    let deadline = Instant::now() + LIMIT;
    let mut seen = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "no end within {LIMIT:?}: {seen:?}");
        stream.set_read_timeout(Some(left)).expect("not zero");
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => seen.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // What was refused before it was read whole ends with a reset.
            Err(_) => break,
        }
    }
    let end = seen.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&seen[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| line.split_once(": "));
    Some(WebAnswer {
        status,
        headers: headers
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect(),
        body: seen[end + 4..].to_vec(),
    })
}

/// Whether there is a browser; prints SKIP if not.
///
/// # Panics
/// Under CI, where nothing may be skipped.
pub fn have_browser() -> bool {
    let there = host::program::find("chromium").is_some();
    if !there {
        skip("needs a browser (apt-get install chromium)");
    }
    there
}
