//! The page of a running fabric: the aisle with every cable, in a browser on the fabric's own host.
//!
//! | module | what is in it |
//! |---|---|
//! | `token` | the secret in the link |
//! | `door` | who may come in: a pure function of a request's head |
//! | `connections` | how many connections there may be, and for how long |
//! | `assets` | the page's files, which are part of the program |
//! | `server` | [`Page`]: all of it together |
//!
//! A request passes `connections` and `door`. What it asks for is then a file of `assets`, or a route of
//! [`api`]: the page is one more client of that API and has no routes of its own.
//!
//! # Who may come in
//! The link has a token of 128 random bits. The first visit trades it for a cookie, which no script
//! can read and no other site can send (`HttpOnly`, `SameSite=Strict`), and every other request needs
//! that cookie. It listens on loopback addresses only. `Host` must be the page's address or `localhost`, so that a name which an attacker's DNS
//! turns into 127.0.0.1 opens nothing; and `Origin` must be the page itself, so that no other page, not
//! even one on another port of the same host, can ask for a change.
//!
//! # Limits
//! 64 connections of those who have the cookie, and 64 of those who have not shown it yet. One more of
//! the latter ends the oldest of them. So whoever has the cookie comes in, however many others knock. The
//! head of a request has 16 KiB at most and 10 s to arrive; a client that reads nothing for 30 s is
//! disconnected. Bodies have the API's limits, and are read only of those who have the cookie.

mod assets;
mod connections;
mod door;
mod server;
mod token;

pub use server::{ListenError, Page};
