//! A cable between a tap and a guest: frames pass between the kernel and the guest's buffers, with
//! the offloads that the guest accepted.
#![allow(missing_docs, clippy::unwrap_used)]

use std::os::unix::net::UnixListener;

use dataplane::port::Tap;
use dataplane::sys::tap::TapOffloads;
use dataplane::vhost_sockets::{Role, SocketSpec, VhostUserSockets};
use dataplane::{Cable, CableHandle, Panel, PanelOptions, Port, Side};
use guest::{Guest, GuestOptions, Ring, features};
use ikv_tests::patience::{SOON, wait_until};
use ikv_tests::{Netns, Nic, SuperFrame, have_root, make_tap};

const ROUNDS: usize = 60;

/// nic – tap `ka` – bridge – tap `kb` – cable – guest.
struct Path {
    nic: Nic,
    guest: Guest,
    panel: Panel,
    sockets: VhostUserSockets,
    cable: CableHandle,
}

impl Path {
    fn new(netns: &Netns, options: &GuestOptions) -> Self {
        // The kernel must not send frames of its own.
        for scope in ["all", "default"] {
            let off = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
            std::fs::write(off, "1").unwrap();
        }
        netns.ip("link add name kbr type bridge mcast_snooping 0");
        drop(make_tap("ka"));
        let port = Port::Tap(Tap::open("kb").unwrap());
        for name in ["ka", "kb"] {
            netns.ip(&format!("link set {name} master kbr up"));
        }
        netns.ip("link set kbr up");

        let panel = Panel::start(&PanelOptions::default(), || {}).unwrap();
        let cable = panel.add(Cable::new(port, None)).wait().unwrap();
        let sockets = VhostUserSockets::start(panel.clone(), || {}).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("b");
        let spec = SocketSpec {
            name: "b".into(),
            cable: cable.id,
            side: Side::B,
            role: Role::Server(UnixListener::bind(&socket).unwrap()),
            mtu: None,
        };
        sockets.add(spec).wait().unwrap();
        let mut guest = Guest::connect(&socket, options).unwrap();
        guest.queue(0).post().unwrap();
        let nic = Nic::plug("ka", TapOffloads::TCP);
        wait_until("the bridge to forward", SOON, || {
            let forwards = |tap| {
                netns
                    .ip(&format!("-d link show {tap}"))
                    .contains("forwarding")
            };
            forwards("ka") && forwards("kb")
        });
        Path {
            nic,
            guest,
            panel,
            sockets,
            cable,
        }
    }

    /// Header and bytes of the guest's next frame.
    fn received(&mut self) -> ([u8; 12], Vec<u8>) {
        let mut frame = None;
        wait_until("a frame for the guest", SOON, || {
            let queue = self.guest.queue(0);
            let took = queue.receive(1, |frame_in| {
                frame = Some((frame_in.header(), frame_in.to_vec()));
            });
            took.unwrap() == 1
        });
        frame.unwrap()
    }

    fn end(self) {
        let [to_guest, to_tap] = &self.cable.lanes;
        for lane in [to_guest, to_tap] {
            let seen = lane.snapshot();
            assert_eq!(seen.frames_in, seen.frames_out + seen.held + seen.dropped());
            assert_eq!(seen.dropped(), 0, "{seen:?}");
        }
        self.sockets.stop();
        self.panel.stop();
    }
}

fn options(ring: Ring, features: u64) -> GuestOptions {
    GuestOptions {
        ring,
        mergeable: true,
        features,
        queue_size: 1024,
        send_capacity: 65_000,
        ..GuestOptions::default()
    }
}

fn frames() -> [SuperFrame; 4] {
    let mut small = SuperFrame::tcp4(30);
    small.size = None;
    [
        small,
        SuperFrame::tcp4(3_000),
        SuperFrame::tcp4(60_000),
        SuperFrame::tcp4(1_500),
    ]
}

#[test]
fn super_frames_arrive_whole_in_guests_that_take_them() {
    if !have_root() {
        return;
    }
    for ring in [Ring::Split, Ring::Packed] {
        let netns = Netns::new("direct");
        netns.enter(|| {
            let mut path = Path::new(&netns, &options(ring, features::OFFLOADS));
            for round in 0..ROUNDS {
                for (index, frame) in frames().iter().enumerate() {
                    let (header, bytes) = frame.build();
                    path.nic.send(header, &bytes);
                    let (got_header, got) = path.received();
                    assert_eq!(got, bytes, "{ring:?} round {round} frame {index}");
                    assert_eq!(got_header[..2], header[..2], "flags and kind");
                    assert_eq!(got_header[4..10], header[4..10], "sizes and offsets");
                }
            }
            path.end();
        });
    }
}

#[test]
fn a_guest_without_offloads_gets_segments_with_checksums() {
    if !have_root() {
        return;
    }
    for ring in [Ring::Split, Ring::Packed] {
        let netns = Netns::new("undone");
        netns.enter(|| {
            let mut path = Path::new(&netns, &options(ring, 0));
            for _ in 0..ROUNDS {
                for frame in frames() {
                    let (header, bytes) = frame.build();
                    path.nic.send(header, &bytes);
                    let headers = bytes.len() - frame.payload;
                    let mut payload = Vec::new();
                    while payload.len() < frame.payload {
                        let (got_header, got) = path.received();
                        assert_eq!(got_header[..10], [0; 10], "an offload is left");
                        assert!(got.len() <= headers + 1448);
                        payload.extend_from_slice(&got[headers..]);
                    }
                    assert_eq!(payload, bytes[headers..]);
                }
            }
            path.end();
        });
    }
}

#[test]
fn super_frames_leave_a_guest_unchanged() {
    if !have_root() {
        return;
    }
    for ring in [Ring::Split, Ring::Packed] {
        let netns = Netns::new("back");
        netns.enter(|| {
            let mut path = Path::new(&netns, &options(ring, features::OFFLOADS));
            for _ in 0..ROUNDS {
                for frame in frames() {
                    let (header, bytes) = frame.build();
                    let mut long = [0; 12];
                    long[..10].copy_from_slice(&header);
                    let queue = path.guest.queue(1);
                    let sent = queue.send(1, |outgoing| {
                        outgoing.header(&long);
                        outgoing.frame(&bytes);
                    });
                    assert_eq!(sent.unwrap(), 1);
                    let (got_header, got) = path.nic.receive();
                    assert_eq!(got, bytes);
                    assert_eq!(got_header[..2], header[..2], "flags and kind");
                }
            }
            path.end();
        });
    }
}
