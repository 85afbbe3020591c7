//! Watches our links: reports what plugs in and out, and what other programs change.
//!
//! Debian's `/etc/qemu-ifup` (QEMU without `script=no`) puts the tap on the bridge of the
//! default route, and some network managers do the same. A link of ours is taken off the bridge at
//! once, and set up again if another program set it down. Everything is reported.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;

use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use crate::links::{self, Link};
use crate::netlink::{Netlink, Packets};

/// `RTNLGRP_LINK` of rtnetlink(7).
const LINK_GROUP: u32 = 1;
/// Holds a burst of messages, as when 282 links come up at once.
const RECEIVE_BUFFER_BYTES: usize = 1024 * 1024;
const DATAGRAM_BYTES: usize = 64 * 1024;

/// What happened to one of our links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// A VM, or another program that opens a tap, took the link's far end.
    Plugged {
        /// The link's name.
        name: String,
    },
    /// The far end was closed. The kernel may report this up to a second later.
    Unplugged {
        /// The link's name.
        name: String,
    },
    /// Another program put the link on a bridge or bond.
    Enslaved {
        /// The link's name.
        name: String,
        /// The bridge or bond.
        master: String,
        /// Whether it was taken off again; otherwise the reason.
        freed: Result<(), String>,
    },
    /// Another program set the link down.
    WentDown {
        /// The link's name.
        name: String,
        /// Whether it was set up again; otherwise the reason.
        raised: Result<(), String>,
    },
    /// Another program changed the largest payload of a frame (the MTU).
    MtuChanged {
        /// The link's name.
        name: String,
        /// The new MTU in bytes.
        mtu: u32,
    },
    /// Another program renamed the link, so a VM cannot plug in by the old name.
    Renamed {
        /// The old name.
        name: String,
        /// The new name.
        to: String,
    },
    /// The link was removed, or moved to another network namespace.
    Deleted {
        /// The link's name.
        name: String,
    },
    /// A link of this name exists again, with another index.
    Created {
        /// The link's name.
        name: String,
        /// Its new index.
        index: u32,
    },
}

/// The last known state of our links. It finds differences and knows nothing of sockets.
#[derive(Debug, Default)]
struct KnownLinks {
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

impl KnownLinks {
    /// Records the link and returns what changed. A link that is not ours makes no change.
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

    /// Forgets our links that are not in `links`, and returns them.
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
    known: KnownLinks,
    events: VecDeque<LinkEvent>,
}

impl LinkWatch {
    /// Watches the links of these names in the calling thread's network namespace. Their present state
    /// makes no events, except for a link that is on a bridge.
    ///
    /// # Errors
    /// When the system is out of sockets, or the caller is outside of a tokio runtime.
    pub fn open(names: impl IntoIterator<Item = String>) -> io::Result<Self> {
        let mut subscription = TokioSocket::new(NETLINK_ROUTE)?;
        let socket = subscription.socket_mut();
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.add_membership(LINK_GROUP)?;
        socket.set_rx_buf_sz(RECEIVE_BUFFER_BYTES)?;
        // Read after subscribing: a change in between arrives as a message.
        let mut control = Netlink::open()?;
        let links = links::list(&mut control)?;
        let known = KnownLinks {
            names: names.into_iter().collect(),
            links: HashMap::new(),
        };
        let mut watch = Self {
            socket: subscription,
            control,
            known,
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

    /// Watches links of these names too. Their present state makes events.
    ///
    /// # Errors
    /// When the links cannot be read.
    pub fn add(&mut self, names: impl IntoIterator<Item = String>) -> io::Result<()> {
        // Messages that wait describe how the links were made, which must not make events.
        loop {
            let mut buffer = Vec::with_capacity(DATAGRAM_BYTES);
            // Past tokio, which learns what waits only when its loop runs.
            let received = self.socket.socket_ref().recv(&mut buffer, 0).map(drop);
            if (received.as_ref()).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) {
                break;
            }
            self.handle(received, &buffer)?;
        }
        self.known.names.extend(names);
        for link in links::list(&mut self.control)? {
            self.observe(link);
        }
        Ok(())
    }

    /// Stops watching the links of these names.
    pub fn remove(&mut self, names: &[String]) {
        self.known.names.retain(|name| !names.contains(name));
        let stays = |link: &mut Link| !names.contains(&link.name);
        self.known.links.retain(|_, link| stays(link));
    }

    /// The kernel's number of one of our links.
    pub fn index(&self, name: &str) -> Option<u32> {
        self.link(name).map(|link| link.index)
    }

    /// Whether a VM or another program holds the far end of one of our links.
    pub fn plugged(&self, name: &str) -> bool {
        self.link(name).is_some_and(|link| link.carrier)
    }

    fn link(&self, name: &str) -> Option<&Link> {
        self.known.links.values().find(|link| link.name == name)
    }

    /// The next thing that happens. May be dropped and called again without loss.
    ///
    /// # Errors
    /// When the socket fails. When messages were lost, the links are read again instead.
    pub async fn next(&mut self) -> io::Result<LinkEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let mut buffer = Vec::with_capacity(DATAGRAM_BYTES);
            let received = self.socket.recv(&mut buffer).await;
            self.handle(received, &buffer)?;
        }
    }

    fn handle(&mut self, received: io::Result<()>, buffer: &[u8]) -> io::Result<()> {
        match received {
            Ok(()) => self.parse(buffer),
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
                // The receive buffer overflowed: messages were lost.
                self.read_again()
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn parse(&mut self, datagram: &[u8]) -> io::Result<()> {
        for packet in Packets(datagram) {
            let NetlinkPayload::InnerMessage(message) = packet?.payload else {
                continue;
            };
            match message {
                RouteNetlinkMessage::NewLink(message) if about_the_link(&message) => {
                    self.observe(Link::from_message(&message));
                }
                RouteNetlinkMessage::DelLink(message) if about_the_link(&message) => {
                    if let Some(link) = self.known.forget(message.header.index) {
                        self.events
                            .push_back(LinkEvent::Deleted { name: link.name });
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read_again(&mut self) -> io::Result<()> {
        let links = links::list(&mut self.control)?;
        for link in self.known.missing(&links) {
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
            .known
            .links
            .get(&index)
            .map_or(&link.name, |before| &before.name)
            .clone();
        for change in self.known.observe(link) {
            let name = name.clone();
            let event = match change {
                Change::Plugged => LinkEvent::Plugged { name },
                Change::Unplugged => LinkEvent::Unplugged { name },
                Change::MtuChanged { mtu } => LinkEvent::MtuChanged { name, mtu },
                Change::Renamed { to } => LinkEvent::Renamed { name, to },
                Change::Created => LinkEvent::Created { name, index },
                // A link that is being removed goes down first; its removal is the next message.
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

/// A bridge also sends messages about its ports, of its own family. When a port leaves the bridge,
/// such a message looks as if the link was deleted.
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

    fn known() -> KnownLinks {
        let mut known = KnownLinks {
            names: ["ikvm1-3-1".to_owned()].into(),
            links: HashMap::new(),
        };
        assert_eq!(known.observe(tap(7)), [Change::Created]);
        known
    }

    #[test]
    fn an_unchanged_link_makes_no_change() {
        assert_eq!(known().observe(tap(7)), []);
    }

    #[test]
    fn each_difference_is_reported_once() {
        let mut known = known();
        let enslaved = Link {
            master: Some(3),
            carrier: true,
            ..tap(7)
        };
        assert_eq!(
            known.observe(enslaved.clone()),
            [Change::Enslaved { master: 3 }, Change::Plugged]
        );
        assert_eq!(known.observe(enslaved), []);
        let down = Link {
            up: false,
            mtu: 1500,
            ..tap(7)
        };
        assert_eq!(
            known.observe(down.clone()),
            [
                Change::WentDown,
                Change::MtuChanged { mtu: 1500 },
                Change::Unplugged
            ]
        );
        assert_eq!(known.observe(down), []);
        assert_eq!(
            known.observe(Link {
                mtu: 1500,
                ..tap(7)
            }),
            []
        );
    }

    #[test]
    fn links_of_other_programs_make_no_change() {
        let mut known = known();
        let other = Link {
            name: "eth0".into(),
            master: Some(3),
            ..tap(8)
        };
        assert_eq!(known.observe(other), []);
        assert_eq!(known.forget(8), None);
    }

    #[test]
    fn a_link_that_vanished_while_messages_were_lost_is_found_missing() {
        let mut known = known();
        assert_eq!(known.missing(&[tap(7)]), []);
        assert_eq!(known.missing(&[tap(9)]), [tap(7)]);
        assert_eq!(known.observe(tap(9)), [Change::Created]);
    }
}
