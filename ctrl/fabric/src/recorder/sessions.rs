//! Tracks which BGP sessions are established, from their frames alone: [`Sessions`], a function of
//! frames and time.

use std::collections::HashMap;
use std::net::IpAddr;

use etherparse::TransportSlice;

use decode::Packet;
use decode::bgp::{Message, Notification};

/// The most sessions that are remembered: frames that a switch invents must not exhaust memory. Those
/// of a server do not come here ([`super::bgp_tap`]).
const MOST: usize = 4096;

const SECOND: u64 = 1_000_000_000;

/// How long a connection that is over, or that never stood, is remembered after its last frame, in ns.
/// TCP sends an unanswered segment again for longer, but by then another connection stands.
const REMEMBERED: u64 = 600 * SECOND;

/// The cable that a session runs over, and both ends of its connection with their ports, the lower
/// one first. A session that is established again has another connection.
type Name = (usize, [(IpAddr, u16); 2]);

/// The sessions whose frames were seen.
///
/// What TCP still sends on a connection that is over makes no session: a KEEPALIVE without an answer
/// comes again once the cable is mended, together with the NOTIFICATION that ended the connection.
#[derive(Debug)]
pub(super) struct Sessions {
    heard: HashMap<Name, Heard>,
    /// The hold time to assume if the session's OPEN was not seen, in s.
    hold_time: u16,
}

#[derive(Debug, Default)]
struct Heard {
    /// When a frame of each end was last seen, in ns.
    last: [Option<u64>; 2],
    /// The hold time that each end proposed in its OPEN, in s.
    hold: [Option<u16>; 2],
    /// When the last frame of either was seen, in ns.
    seen: u64,
    /// The connection was closed or lost. Only an OPEN begins another one with the same ports.
    over: bool,
}

impl Heard {
    fn stood(&self) -> bool {
        !self.over && self.last.iter().all(Option::is_some)
    }
}

/// A session that was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) cable: usize,
    pub(super) why: String,
}

impl Sessions {
    /// `hold_time`, in s, is assumed for sessions whose OPEN was not seen.
    pub(super) fn new(hold_time: u16) -> Self {
        Sessions {
            heard: HashMap::new(),
            hold_time,
        }
    }

    /// Processes a frame that entered `cable` at `time`, in ns. `delivered` is whether the cable
    /// passed it on.
    pub(super) fn see(
        &mut self,
        cable: usize,
        time: u64,
        frame: &[u8],
        delivered: bool,
    ) -> Option<Lost> {
        let packet = Packet::read(frame)?;
        let ip = packet.ip()?;
        let segment = ip.bgp()?;
        let Some(TransportSlice::Tcp(tcp)) = &ip.transport else {
            return None;
        };
        let from = (ip.source, tcp.source_port());
        let to = (ip.destination, tcp.destination_port());
        let from_lower = from <= to;
        let ends = if from_lower { [from, to] } else { [to, from] };
        let (name, end) = ((cable, ends), usize::from(!from_lower));
        for message in &segment.messages {
            match message {
                // Counts even if the cable drops it: its sender has closed the session already.
                Message::Notification(notification) => {
                    // Two speakers that connect to each other at the same time close one connection
                    // (RFC 4271 section 6.8): no session is lost.
                    let collision = (notification.code, notification.subcode) == (6, 7);
                    let stood = self.stood(&name);
                    if let Some(heard) = self.heard.get_mut(&name) {
                        heard.over = true;
                    }
                    if stood && !collision {
                        return Some(ended(cable, ip.source, notification));
                    }
                }
                Message::Open(open) if delivered => {
                    if let Some(heard) = self.begun(name) {
                        if heard.over {
                            *heard = Heard::default();
                        }
                        heard.hold[end] = Some(open.hold_time);
                        heard.seen = time;
                    }
                }
                Message::Keepalive | Message::Update(_) if delivered => {
                    let stood = self.stood(&name);
                    if let Some(heard) = self.going_on(name).filter(|heard| !heard.over) {
                        heard.last[end] = Some(time);
                        heard.seen = time;
                    }
                    if !stood && self.stood(&name) {
                        self.forget_older(&name);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// The entry of a connection that begins now.
    fn begun(&mut self, name: Name) -> Option<&mut Heard> {
        // A full table ignores new sessions rather than forgetting established ones.
        if self.heard.len() >= MOST && !self.heard.contains_key(&name) {
            return None;
        }
        Some(self.heard.entry(name).or_default())
    }

    /// The entry of a connection whose OPEN came before: before the recording, if no other connection
    /// between the two is known.
    fn going_on(&mut self, name: Name) -> Option<&mut Heard> {
        let is_first = || {
            let mut others = self.heard.keys();
            !others.any(|other| addresses(other) == addresses(&name))
        };
        if self.heard.contains_key(&name) || is_first() {
            self.begun(name)
        } else {
            None
        }
    }

    /// A cable was cut: its sessions end with it. Returns those that stood.
    pub(super) fn cut(&mut self, cable: usize) -> Vec<Lost> {
        let mut lost = Vec::new();
        for ((on, _), heard) in &mut self.heard {
            if *on == cable {
                if heard.stood() {
                    let why = "BGP: the session ended with its cable".into();
                    lost.push(Lost { cable, why });
                }
                heard.over = true;
            }
        }
        lost
    }

    /// Removes older connections between the same two addresses.
    fn forget_older(&mut self, name: &Name) {
        self.heard
            .retain(|other, _| other == name || addresses(other) != addresses(name));
    }

    fn stood(&self, name: &Name) -> bool {
        self.heard.get(name).is_some_and(Heard::stood)
    }

    /// Sessions of which one end has been silent for longer than the hold time. Each is returned
    /// once.
    pub(super) fn silent(&mut self, now: u64) -> Vec<Lost> {
        let default = self.hold_time;
        let mut lost = Vec::new();
        self.heard.retain(|(cable, ends), heard| {
            if !heard.stood() {
                return heard.seen + REMEMBERED >= now;
            }
            // The lower proposal is the negotiated hold time (RFC 4271 section 4.2).
            let negotiated = heard.hold.iter().flatten().min().copied();
            let hold = negotiated.unwrap_or(default);
            let silent =
                |last: &Option<u64>| last.is_some_and(|last| last + u64::from(hold) * SECOND < now);
            let Some(end) = heard.last.iter().position(silent) else {
                return true;
            };
            // A hold time of 0 disables keepalives (RFC 4271 section 4.4), so silence means
            // nothing.
            if hold == 0 {
                return true;
            }
            lost.push(Lost {
                cable: *cable,
                why: format!(
                    "BGP: nothing from {} for {hold} s, its hold time",
                    ends[end].0
                ),
            });
            heard.over = true;
            true
        });
        lost
    }
}

/// The cable and the two addresses, without the ports.
fn addresses((cable, ends): &Name) -> (usize, [IpAddr; 2]) {
    (*cable, ends.map(|(address, _)| address))
}

fn ended(cable: usize, by: IpAddr, notification: &Notification) -> Lost {
    Lost {
        cable,
        why: format!("BGP: {by} says {notification}"),
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const OPEN: &[u8] = &[4, 0xfd, 0xe9, 0, 9, 10, 0, 0, 1, 0];

    /// The link-local address of an end.
    fn address(end: u8) -> [u8; 16] {
        let mut address = [0; 16];
        (address[0], address[1], address[15]) = (0xfe, 0x80, end);
        address
    }

    fn frame(from: u8, kind: u8, body: &[u8]) -> Vec<u8> {
        on_connection(40000, from, kind, body)
    }

    /// End 1 has called end 2, from this port.
    fn on_connection(port: u16, from: u8, kind: u8, body: &[u8]) -> Vec<u8> {
        let to = 3 - from;
        let ports = [(179, port), (port, 179)];
        let (source, destination) = ports[usize::from(from == 1)];
        let length = (19 + body.len() as u16).to_be_bytes();
        let message = [&[0xff; 16][..], &length, &[kind], body].concat();
        let builder = PacketBuilder::ethernet2([from; 6], [to; 6])
            .ipv6(address(from), address(to), 1)
            .tcp(source, destination, 1, 100);
        let mut frame = Vec::new();
        builder.write(&mut frame, &message).unwrap();
        frame
    }

    fn standing() -> Sessions {
        let mut sessions = Sessions::new(16);
        for end in [1, 2] {
            let kept = sessions.see(7, SECOND, &frame(end, 4, &[]), true);
            assert_eq!(kept, None);
        }
        sessions
    }

    #[test]
    fn a_session_that_stood_is_lost_with_a_notification_once() {
        let mut sessions = standing();
        let notification = frame(2, 3, &[6, 2]);
        assert_eq!(
            sessions.see(8, SECOND, &notification, true),
            None,
            "another cable's"
        );
        let lost = sessions.see(7, 2 * SECOND, &notification, false).unwrap();
        assert_eq!(lost.cable, 7);
        assert!(
            lost.why.ends_with("Administrative Shutdown"),
            "{}",
            lost.why
        );
        assert_eq!(sessions.see(7, 2 * SECOND, &notification, true), None);
        assert_eq!(sessions.silent(100 * SECOND), []);
    }

    #[test]
    fn a_connection_that_gives_way_to_another_is_no_loss() {
        let mut sessions = standing();
        assert_eq!(sessions.see(7, SECOND, &frame(1, 3, &[6, 7]), true), None);
    }

    #[test]
    fn silence_beyond_the_hold_time_is() {
        let mut sessions = standing();
        assert_eq!(sessions.silent(17 * SECOND), []);
        // What a blackhole swallows keeps no session alive.
        sessions.see(7, 10 * SECOND, &frame(1, 4, &[]), false);
        sessions.see(7, 10 * SECOND, &frame(2, 4, &[]), true);
        let lost = sessions.silent(17 * SECOND + 1);
        assert_eq!(lost.len(), 1);
        assert!(
            lost[0].why.contains("nothing from fe80::1 "),
            "{}",
            lost[0].why
        );
        assert_eq!(sessions.silent(99 * SECOND), []);
    }

    #[test]
    fn a_session_that_was_made_anew_is_another() {
        let mut sessions = standing();
        let refused = on_connection(40001, 2, 3, &[5, 1]);
        assert_eq!(
            sessions.see(7, SECOND, &refused, true),
            None,
            "it never stood"
        );
        for (kind, body) in [(1, OPEN), (4, &[][..])] {
            for end in [1, 2] {
                let seen = on_connection(40001, end, kind, body);
                assert_eq!(sessions.see(7, 12 * SECOND, &seen, true), None);
            }
        }
        assert_eq!(sessions.silent(20 * SECOND), [], "the old one is forgotten");
        assert_eq!(sessions.silent(29 * SECOND).len(), 1);
    }

    /// What TCP sends again after a cable was cut and mended, as recorded in a fabric: the unanswered
    /// KEEPALIVEs of the old connection and its NOTIFICATION, before and after the new one stands.
    #[test]
    fn what_is_sent_again_on_a_connection_that_is_over_is_no_session() {
        let mut sessions = standing();
        assert_eq!(sessions.cut(8), [], "another cable");
        assert_eq!(sessions.cut(7).len(), 1);
        assert_eq!(sessions.cut(7), [], "once");
        assert_eq!(sessions.silent(19 * SECOND), []);
        let again = |sessions: &mut Sessions, at| {
            for (end, kind, body) in [
                (1, 4, &[][..]),
                (2, 4, &[]),
                (1, 3, &[6, 2]),
                (2, 3, &[6, 2]),
            ] {
                let seen = sessions.see(7, at, &frame(end, kind, body), true);
                assert_eq!(seen, None, "end {end}, type {kind}");
            }
        };
        again(&mut sessions, 20 * SECOND);
        for (at, kind, body) in [(21, 1, OPEN), (22, 4, &[][..])] {
            for end in [1, 2] {
                let seen = on_connection(40001, end, kind, body);
                assert_eq!(sessions.see(7, at * SECOND, &seen, true), None);
            }
        }
        again(&mut sessions, 24 * SECOND);
        // The new session keeps on; nothing of the old one expires.
        for at in (25..60).step_by(3) {
            for end in [1, 2] {
                let kept = on_connection(40001, end, 4, &[]);
                assert_eq!(sessions.see(7, at * SECOND, &kept, true), None);
            }
            assert_eq!(sessions.silent(at * SECOND), []);
        }
        assert_eq!(sessions.silent(99 * SECOND).len(), 1, "only the new one");
        assert_eq!(sessions.silent(700 * SECOND), []);
        assert!(sessions.heard.is_empty(), "they are forgotten");
    }

    #[test]
    fn an_end_that_speaks_alone_has_no_session() {
        let mut sessions = Sessions::new(16);
        sessions.see(7, SECOND, &frame(1, 4, &[]), true);
        assert_eq!(sessions.silent(30 * SECOND), []);
    }

    #[test]
    fn an_open_says_how_long() {
        let mut sessions = standing();
        sessions.see(7, SECOND, &frame(1, 1, OPEN), true);
        assert_eq!(sessions.silent(10 * SECOND), []);
        assert_eq!(sessions.silent(10 * SECOND + 1).len(), 1);
        let mut sessions = standing();
        let never = [&OPEN[..3], &[0, 0], &OPEN[5..]].concat();
        sessions.see(7, SECOND, &frame(1, 1, &never), true);
        assert_eq!(sessions.silent(999 * SECOND), []);
    }
}
