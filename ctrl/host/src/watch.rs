//! Watches our links: who plugs in, and who meddles.
//!
//! Debian's `/etc/qemu-ifup` (QEMU without `script=no`) puts the tap on the bridge of the
//! default route, and some network managers do the like. A link of ours is taken off at once,
//! and set up again if somebody set it down; everything is reported.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;

use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use super::links::{self, Link};
use super::netlink::{Netlink, Packets};

/// `RTNLGRP_LINK` of rtnetlink(7).
const LINK_GROUP: u32 = 1;
/// Room for the messages of a burst, as when 282 links come up at once.
const RECEIVE_BUFFER_BYTES: usize = 1024 * 1024;
const DATAGRAM_BYTES: usize = 64 * 1024;

/// What happened to one of our links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// A VM, or whoever opens a tap, took the link's far end.
    Plugged {
        /// The link.
        name: String,
    },
    /// The far end was closed. The kernel may tell up to a second later.
    Unplugged {
        /// The link.
        name: String,
    },
    /// Somebody put the link on a bridge or bond.
    Enslaved {
        /// The link.
        name: String,
        /// The bridge or bond.
        master: String,
        /// It was taken off again, or why not.
        freed: Result<(), String>,
    },
    /// Somebody set the link down.
    WentDown {
        /// The link.
        name: String,
        /// It was set up again, or why not.
        raised: Result<(), String>,
    },
    /// Somebody changed the largest payload.
    MtuChanged {
        /// The link.
        name: String,
        /// Bytes.
        mtu: u32,
    },
    /// Somebody gave the link another name; nobody can plug in by the old one.
    Renamed {
        /// The name it had.
        name: String,
        /// The name it has.
        to: String,
    },
    /// The link was removed, or moved to another network namespace.
    Deleted {
        /// The link.
        name: String,
    },
    /// A link of this name is there again, with another index.
    Created {
        /// The link.
        name: String,
        /// Its index.
        index: u32,
    },
}

/// What the links looked like last; tells differences and knows nothing of sockets.
#[derive(Debug, Default)]
struct Seen {
    names: HashSet<String>,
    links: HashMap<u32, Link>,
}

/// A difference, before anything was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Plugged,
    Unplugged,
    Enslaved { master: u32 },
    WentDown,
    MtuChanged { mtu: u32 },
    Renamed { to: String },
    Created,
}

impl Seen {
    /// Compares a link with what it was; links that are not ours are none of our business.
    fn observe(&mut self, now: Link) -> Vec<Change> {
        let Some(before) = self.links.get(&now.index) else {
            if !self.names.contains(&now.name) {
                return Vec::new();
            }
            let mut changes = vec![Change::Created];
            changes.extend(now.master.map(|master| Change::Enslaved { master }));
            if now.carrier {
                changes.push(Change::Plugged);
            }
            self.links.insert(now.index, now);
            return changes;
        };
        let mut changes = Vec::new();
        if now.name != before.name {
            changes.push(Change::Renamed {
                to: now.name.clone(),
            });
        }
        if let Some(master) = now.master
            && now.master != before.master
        {
            changes.push(Change::Enslaved { master });
        }
        if before.up && !now.up {
            changes.push(Change::WentDown);
        }
        // While a link is made, its MTU is set before it is up.
        if before.up && now.mtu != before.mtu {
            changes.push(Change::MtuChanged { mtu: now.mtu });
        }
        match (before.carrier, now.carrier) {
            (false, true) => changes.push(Change::Plugged),
            (true, false) => changes.push(Change::Unplugged),
            _ => {}
        }
        self.links.insert(now.index, now);
        changes
    }

    fn forget(&mut self, index: u32) -> Option<Link> {
        self.links.remove(&index)
    }

    /// What is in `links` no more.
    fn missing(&mut self, links: &[Link]) -> Vec<Link> {
        let present: HashSet<u32> = links.iter().map(|link| link.index).collect();
        let gone: Vec<u32> = self
            .links
            .keys()
            .filter(|index| !present.contains(index))
            .copied()
            .collect();
        gone.into_iter()
            .filter_map(|index| self.forget(index))
            .collect()
    }
}

/// A subscription to everything that happens to our links.
pub struct LinkWatch {
    socket: TokioSocket,
    control: Netlink,
    seen: Seen,
    events: VecDeque<LinkEvent>,
}

impl LinkWatch {
    /// Watches the links of these names in the calling thread's network namespace. What they
    /// are now is known afterwards and makes no events, but for those on a bridge.
    ///
    /// # Errors
    /// When the system is out of sockets, or the caller is outside of a tokio runtime.
    pub fn open(names: impl IntoIterator<Item = String>) -> io::Result<Self> {
        let mut subscription = TokioSocket::new(NETLINK_ROUTE)?;
        let socket = subscription.socket_mut();
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.add_membership(LINK_GROUP)?;
        socket.set_rx_buf_sz(RECEIVE_BUFFER_BYTES)?;
        // Subscribed first, read then: nothing falls between.
        let mut control = Netlink::open()?;
        let links = links::list(&mut control)?;
        let seen = Seen {
            names: names.into_iter().collect(),
            links: HashMap::new(),
        };
        let mut watch = Self {
            socket: subscription,
            control,
            seen,
            events: VecDeque::new(),
        };
        for link in links {
            watch.observe(link);
        }
        watch
            .events
            .retain(|event| matches!(event, LinkEvent::Enslaved { .. }));
        Ok(watch)
    }

    /// Watches links of these names too. What they are now makes events.
    ///
    /// # Errors
    /// When the links cannot be read.
    pub fn add(&mut self, names: impl IntoIterator<Item = String>) -> io::Result<()> {
        // What was told before is older than what they are now: how they were made is no news.
        loop {
            let mut buffer = Vec::with_capacity(DATAGRAM_BYTES);
            // By the socket itself: tokio hears of what waits only when it has a turn.
            let received = self.socket.socket_ref().recv(&mut buffer, 0).map(drop);
            if (received.as_ref()).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) {
                break;
            }
            self.take(received, &buffer)?;
        }
        self.seen.names.extend(names);
        for link in links::list(&mut self.control)? {
            self.observe(link);
        }
        Ok(())
    }

    /// Watches the links of these names no more: whatever happens to them makes no event.
    pub fn remove(&mut self, names: &[String]) {
        self.seen.names.retain(|name| !names.contains(name));
        let stays = |link: &mut Link| !names.contains(&link.name);
        self.seen.links.retain(|_, link| stays(link));
    }

    /// The index of one of our links.
    pub fn index(&self, name: &str) -> Option<u32> {
        self.link(name).map(|link| link.index)
    }

    /// Whether somebody holds the far end of one of our links.
    pub fn plugged(&self, name: &str) -> bool {
        self.link(name).is_some_and(|link| link.carrier)
    }

    fn link(&self, name: &str) -> Option<&Link> {
        self.seen.links.values().find(|link| link.name == name)
    }

    /// The next thing that happens. May be dropped and called again without loss.
    ///
    /// # Errors
    /// When the socket fails; lost messages are no error, the links are read anew then.
    pub async fn next(&mut self) -> io::Result<LinkEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let mut buffer = Vec::with_capacity(DATAGRAM_BYTES);
            let received = self.socket.recv(&mut buffer).await;
            self.take(received, &buffer)?;
        }
    }

    fn take(&mut self, received: io::Result<()>, buffer: &[u8]) -> io::Result<()> {
        match received {
            Ok(()) => self.digest(buffer),
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
                self.read_anew()
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn digest(&mut self, datagram: &[u8]) -> io::Result<()> {
        for packet in Packets(datagram) {
            let NetlinkPayload::InnerMessage(message) = packet?.payload else {
                continue;
            };
            match message {
                RouteNetlinkMessage::NewLink(message) if about_the_link(&message) => {
                    self.observe(Link::from_message(&message));
                }
                RouteNetlinkMessage::DelLink(message) if about_the_link(&message) => {
                    if let Some(link) = self.seen.forget(message.header.index) {
                        self.events
                            .push_back(LinkEvent::Deleted { name: link.name });
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read_anew(&mut self) -> io::Result<()> {
        let links = links::list(&mut self.control)?;
        for link in self.seen.missing(&links) {
            self.events
                .push_back(LinkEvent::Deleted { name: link.name });
        }
        for link in links {
            self.observe(link);
        }
        Ok(())
    }

    fn observe(&mut self, link: Link) {
        let index = link.index;
        let name = self
            .seen
            .links
            .get(&index)
            .map_or(&link.name, |before| &before.name)
            .clone();
        for change in self.seen.observe(link) {
            let name = name.clone();
            let event = match change {
                Change::Plugged => LinkEvent::Plugged { name },
                Change::Unplugged => LinkEvent::Unplugged { name },
                Change::MtuChanged { mtu } => LinkEvent::MtuChanged { name, mtu },
                Change::Renamed { to } => LinkEvent::Renamed { name, to },
                Change::Created => LinkEvent::Created { name, index },
                // A link that is being removed goes down first; its end comes with the next message.
                Change::WentDown => match links::raise_one(&mut self.control, index) {
                    Err(e) if links::absent(&e) => continue,
                    raised => LinkEvent::WentDown {
                        name,
                        raised: raised.map_err(|e| e.to_string()),
                    },
                },
                Change::Enslaved { master } => {
                    let master = self.name_of(master);
                    match links::free_from_master(&mut self.control, index) {
                        Err(e) if links::absent(&e) => continue,
                        freed => {
                            let freed = freed.map_err(|e| e.to_string());
                            LinkEvent::Enslaved {
                                name,
                                master,
                                freed,
                            }
                        }
                    }
                }
            };
            self.events.push_back(event);
        }
    }

    fn name_of(&mut self, index: u32) -> String {
        links::list(&mut self.control)
            .ok()
            .and_then(|links| links.into_iter().find(|link| link.index == index))
            .map_or_else(|| format!("link {index}"), |link| link.name)
    }
}

/// A bridge reports its ports with messages of its own family, also their removal from it.
fn about_the_link(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tap(index: u32) -> Link {
        Link {
            index,
            name: "ikvm1-3-1".into(),
            alias: String::new(),
            group: 0,
            master: None,
            mtu: 9000,
            up: true,
            carrier: false,
            tun: true,
        }
    }

    fn seen() -> Seen {
        let mut seen = Seen {
            names: ["ikvm1-3-1".to_owned()].into(),
            links: HashMap::new(),
        };
        assert_eq!(seen.observe(tap(7)), [Change::Created]);
        seen
    }

    #[test]
    fn the_same_again_is_no_change() {
        assert_eq!(seen().observe(tap(7)), []);
    }

    #[test]
    fn each_difference_is_told_once() {
        let mut seen = seen();
        let enslaved = Link {
            master: Some(3),
            carrier: true,
            ..tap(7)
        };
        assert_eq!(
            seen.observe(enslaved.clone()),
            [Change::Enslaved { master: 3 }, Change::Plugged]
        );
        assert_eq!(seen.observe(enslaved), []);
        let down = Link {
            up: false,
            mtu: 1500,
            ..tap(7)
        };
        assert_eq!(
            seen.observe(down.clone()),
            [
                Change::WentDown,
                Change::MtuChanged { mtu: 1500 },
                Change::Unplugged
            ]
        );
        assert_eq!(seen.observe(down), []);
        assert_eq!(
            seen.observe(Link {
                mtu: 1500,
                ..tap(7)
            }),
            []
        );
    }

    #[test]
    fn others_links_are_left_alone() {
        let mut seen = seen();
        let other = Link {
            name: "eth0".into(),
            master: Some(3),
            ..tap(8)
        };
        assert_eq!(seen.observe(other), []);
        assert_eq!(seen.forget(8), None);
    }

    #[test]
    fn a_link_that_vanished_while_messages_were_lost_is_missed() {
        let mut seen = seen();
        assert_eq!(seen.missing(&[tap(7)]), []);
        assert_eq!(seen.missing(&[tap(9)]), [tap(7)]);
        assert_eq!(seen.observe(tap(9)), [Change::Created]);
    }
}
