//! Who may come in: [`Door::judge`], a function of a request's head.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{COOKIE, HOST, HeaderName, HeaderValue, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};

use crate::token::Token;

/// What a browser says about the page that sends a request (Fetch Metadata, W3C).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It is answered.
    Enter,
    /// It came by the link: it gets the cookie, and goes on to the page.
    Greet {
        /// Whether another site led to the link. To where an answer redirects, a browser then sends no
        /// cookie that is `SameSite=Strict`: the way on must begin at a page of ours.
        from_elsewhere: bool,
    },
    /// It is refused, for the reason in the sentence.
    Refuse(StatusCode, &'static str),
}

/// The address and the secret of the page.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    at: SocketAddr,
    token: Token,
}

impl Door {
    pub(crate) fn new(at: SocketAddr, token: Token) -> Self {
        Door { at, token }
    }

    /// The link that opens it.
    pub(crate) fn link(&self) -> String {
        format!("http://{}/?token={}", self.at, self.token.digits())
    }

    /// The header that gives the cookie to a browser.
    pub(crate) fn cookie(&self) -> HeaderValue {
        let (name, value) = (self.cookie_name(), self.token.digits());
        let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict");
        HeaderValue::try_from(cookie).expect("it has letters and digits")
    }

    /// Cookies belong to a host, not to a port: the name keeps two fabrics' pages apart.
    fn cookie_name(&self) -> String {
        format!("ikv-fabric-{}", self.at.port())
    }

    /// Decides about a request. Nothing of its body has been read.
    pub(crate) fn judge(&self, head: &Parts) -> Entry {
        let Some(host) = only(&head.headers, &HOST).filter(|host| self.is_ours(host)) else {
            return Entry::Refuse(
                StatusCode::FORBIDDEN,
                "this page answers to its own address and to localhost only: open the link that \
                 `ikv-fabric web` prints",
            );
        };
        if head.uri.authority().is_some() || !is_own_page(&head.headers, host) {
            return Entry::Refuse(
                StatusCode::FORBIDDEN,
                "another page sent this request: only the fabric's own page may",
            );
        }
        if let Some(said) = link_token(head) {
            return if self.token.is(said.as_bytes()) {
                Entry::Greet {
                    from_elsewhere: is_foreign(&head.headers),
                }
            } else {
                Entry::Refuse(
                    StatusCode::UNAUTHORIZED,
                    "this link is not this fabric's, or no longer: `ikv-fabric web` prints the \
                     present one",
                )
            };
        }
        if !self.has_cookie(&head.headers) {
            return Entry::Refuse(
                StatusCode::UNAUTHORIZED,
                "this page opens by its link: `ikv-fabric web` prints it",
            );
        }
        // A browser sends the cookie along from other ports of this host, too.
        if is_foreign(&head.headers) && head.uri.path() != "/" {
            return Entry::Refuse(
                StatusCode::FORBIDDEN,
                "another page sent this request: only the fabric's own page may",
            );
        }
        Entry::Enter
    }

    /// Whether a name in `Host` means this page. The port may be another one: `ssh -L` leads here from
    /// any port, and no name of an attacker's is one of these.
    fn is_ours(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
                name
            }
            _ => host,
        };
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let bare = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        let address = bare.unwrap_or(name).parse::<IpAddr>();
        address.is_ok_and(|address| address == self.at.ip())
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let name = self.cookie_name();
        let lines = headers.get_all(COOKIE).iter();
        lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .any(|(key, value)| key == name && self.token.is(value.as_bytes()))
    }
}

/// The value of a header that is there once; two of one kind could mean either.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

/// Whether the request does not come from another page.
fn is_own_page(headers: &HeaderMap, host: &str) -> bool {
    if !headers.contains_key(ORIGIN) {
        return true;
    }
    let origin = only(headers, &ORIGIN).and_then(|origin| origin.strip_prefix("http://"));
    origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}

/// Whether a browser says that another page led here.
fn is_foreign(headers: &HeaderMap) -> bool {
    headers.contains_key(FETCH_SITE)
        && !matches!(only(headers, &FETCH_SITE), Some("same-origin" | "none"))
}

/// The token of a request for the link.
fn link_token(head: &Parts) -> Option<&str> {
    if head.method != Method::GET || head.uri.path() != "/" {
        return None;
    }
    let mut pairs = head.uri.query()?.split('&');
    pairs.find_map(|pair| pair.strip_prefix("token="))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn door(at: &str) -> Door {
        Door::new(at.parse().unwrap(), Token::random().unwrap())
    }

    fn judge(door: &Door, method: &str, path: &str, headers: &[(&str, &str)]) -> Entry {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        door.judge(&request.body(()).unwrap().into_parts().0)
    }

    fn refused(entry: &Entry) -> u16 {
        match entry {
            Entry::Refuse(status, sentence) => {
                assert!(sentence.contains("page") || sentence.contains("link"));
                status.as_u16()
            }
            other => panic!("{other:?}"),
        }
    }

    fn cookie(door: &Door) -> String {
        let cookie = door.cookie();
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        pair.to_owned()
    }

    #[test]
    fn the_link_is_traded_for_a_cookie_that_opens() {
        let door = door("127.0.0.1:8090");
        let link = door.link();
        let query = link.strip_prefix("http://127.0.0.1:8090").unwrap();
        let host = ("host", "127.0.0.1:8090");
        for (site, from_elsewhere) in [("none", false), ("cross-site", true)] {
            let entry = judge(&door, "GET", query, &[host, ("sec-fetch-site", site)]);
            assert_eq!(entry, Entry::Greet { from_elsewhere });
        }
        let cookie = cookie(&door);
        for path in ["/", "/style.css", "/v1/status"] {
            let with = judge(&door, "GET", path, &[host, ("cookie", &cookie)]);
            assert_eq!(with, Entry::Enter, "{path}");
            assert_eq!(refused(&judge(&door, "GET", path, &[host])), 401, "{path}");
        }
        let among = format!("a=b; {cookie}; ikv-fabric-8091=0");
        let entry = judge(&door, "PUT", "/v1/x", &[host, ("cookie", &among)]);
        assert_eq!(entry, Entry::Enter);
        let attributes = door.cookie();
        let attributes = attributes.to_str().unwrap();
        assert!(attributes.ends_with("; Path=/; HttpOnly; SameSite=Strict"));
    }

    #[test]
    fn wrong_secrets_open_nothing() {
        let door = door("127.0.0.1:8090");
        let host = ("host", "127.0.0.1:8090");
        let digits = door.token.digits();
        let zeros = "0".repeat(32);
        for path in [
            "/?token=".to_owned(),
            format!("/?token={zeros}"),
            format!("/?token={digits}0"),
            format!("/?token={}", &digits[..31]),
            format!("/?x={digits}"),
            format!("/v1/status?token={digits}"),
        ] {
            assert_eq!(refused(&judge(&door, "GET", &path, &[host])), 401, "{path}");
        }
        let post = format!("/?token={digits}");
        assert_eq!(refused(&judge(&door, "POST", &post, &[host])), 401);
        for cookie in [
            format!("ikv-fabric-8090={zeros}"),
            format!("ikv-fabric-8091={digits}"),
            format!("ikv-fabric-8090=\"{digits}\""),
            digits.to_owned(),
        ] {
            let entry = judge(&door, "GET", "/", &[host, ("cookie", &cookie)]);
            assert_eq!(refused(&entry), 401, "{cookie}");
        }
    }

    #[test]
    fn only_the_pages_own_names_are_answered() {
        for (at, good, bad) in [
            (
                "127.0.0.1:8090",
                &[
                    "127.0.0.1:8090",
                    "localhost:8090",
                    "LOCALHOST:9000",
                    "127.0.0.1",
                ][..],
                &[
                    "evil.example:8090",
                    "127.0.0.1.evil.example:8090",
                    "127.0.0.2:8090",
                    "localhost.evil.example",
                    "localhost:",
                    "evil@127.0.0.1:8090",
                    "[::1]:8090",
                    "0.0.0.0:8090",
                    "",
                ][..],
            ),
            (
                "[::1]:8090",
                &["[::1]:8090", "localhost"],
                &["127.0.0.1", "[::2]:8090"],
            ),
        ] {
            let door = door(at);
            let cookie = cookie(&door);
            let with = |host| judge(&door, "GET", "/", &[("host", host), ("cookie", &cookie)]);
            for host in good {
                assert_eq!(with(host), Entry::Enter, "{at}: {host}");
            }
            for host in bad {
                assert_eq!(refused(&with(host)), 403, "{at}: {host}");
            }
        }
        let door = door("127.0.0.1:8090");
        let cookie = cookie(&door);
        let cookie = ("cookie", &*cookie);
        assert_eq!(refused(&judge(&door, "GET", "/", &[cookie])), 403);
        let two = [("host", "localhost"), ("host", "evil.example"), cookie];
        assert_eq!(refused(&judge(&door, "GET", "/", &two)), 403);
        let host = ("host", "127.0.0.1:8090");
        let absolute = judge(&door, "GET", "http://evil.example/", &[host, cookie]);
        assert_eq!(refused(&absolute), 403);
    }

    #[test]
    fn other_pages_ask_for_nothing() {
        let door = door("127.0.0.1:8090");
        let cookie = cookie(&door);
        let ask = |path: &str, name: &str, value: &str| {
            let headers = [
                ("host", "localhost:8090"),
                ("cookie", &cookie),
                (name, value),
            ];
            judge(&door, "PUT", path, &headers)
        };
        let own = ask("/v1/x", "origin", "http://localhost:8090");
        assert_eq!(own, Entry::Enter);
        for origin in [
            "http://127.0.0.1:8090",
            "http://localhost:9999",
            "https://localhost:8090",
            "http://evil.example",
            "null",
            "",
        ] {
            assert_eq!(refused(&ask("/v1/x", "origin", origin)), 403, "{origin}");
        }
        for site in ["same-site", "cross-site", "else"] {
            let entry = ask("/v1/x", "sec-fetch-site", site);
            assert_eq!(refused(&entry), 403, "{site}");
        }
        for site in ["same-origin", "none"] {
            assert_eq!(ask("/v1/x", "sec-fetch-site", site), Entry::Enter, "{site}");
        }
    }

    #[test]
    fn ipv6_addresses_have_brackets_in_the_link() {
        assert!(
            door("[::1]:80")
                .link()
                .starts_with("http://[::1]:80/?token=")
        );
    }
}
