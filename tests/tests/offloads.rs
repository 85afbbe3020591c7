//! What a lane makes of a frame for a receiver that does not take it as it is, compared byte by
//! byte with what the kernel makes of it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

use dataplane::port::{Memory, MemoryHost, Packet, Tap, memory, memory_taking};
use dataplane::sys::tap::TapOffloads;
use dataplane::{
    Cable, CableHandle, DropReason, Offloads, Panel, PanelOptions, Port, Side, VnetHeader,
};
use ikv_tests::patience::{SOON, wait_until};
use ikv_tests::{Netns, Nic, SuperFrame, have_root, make_tap};

type Frames = Vec<([u8; 10], Vec<u8>)>;

/// A frame sent after the one under test: when it arrives, all pieces have arrived.
const MARKER: [u8; 14] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];

/// Two taps and a bridge between them, where the kernel segments frames.
struct KernelPath {
    from: Nic,
    to: Nic,
}

impl KernelPath {
    fn new(netns: &Netns) -> Self {
        netns.ip("link add name kbr type bridge mcast_snooping 0");
        for name in ["ka", "kb"] {
            let _held = make_tap(name);
            netns.ip(&format!("link set {name} mtu 65000 addrgenmode none"));
            netns.ip(&format!("link set {name} master kbr up"));
        }
        netns.ip("link set kbr addrgenmode none");
        netns.ip("link set kbr up");
        let [from, to] = ["ka", "kb"].map(Nic::plain);
        KernelPath { from, to }
    }

    fn pass(&self, frame: &SuperFrame) -> Frames {
        let (header, bytes) = frame.build();
        self.from.send(header, &bytes);
        self.from.send([0; 10], &MARKER);
        until_marker(|| self.to.receive())
    }
}

/// A cable between two memory ports, where a lane segments frames.
struct OurPath {
    panel: Panel,
    cable: CableHandle,
    from: MemoryHost,
    to: MemoryHost,
}

impl OurPath {
    fn new(takes: Offloads) -> Self {
        let panel = Panel::start(&PanelOptions::default(), || {}).unwrap();
        let (a, from): (Memory, _) = memory(64).unwrap();
        let (b, to) = memory_taking(takes, 4096).unwrap();
        let cable = Cable::new(Port::Memory(a), Port::Memory(b));
        let cable = panel.add(cable).wait().unwrap();
        OurPath {
            panel,
            cable,
            from,
            to,
        }
    }

    fn pass(&self, frame: &SuperFrame) -> Frames {
        let (header, bytes) = frame.build();
        assert!(self.from.send(VnetHeader(header), &bytes));
        assert!(self.from.send(VnetHeader::default(), &MARKER));
        until_marker(|| {
            let (header, frame) = self.to.receive(SOON).expect("a frame");
            (header.0, frame)
        })
    }
}

fn until_marker(mut next: impl FnMut() -> ([u8; 10], Vec<u8>)) -> Frames {
    let mut frames = Vec::new();
    loop {
        let (mut header, frame) = next();
        if frame == MARKER {
            return frames;
        }
        header[2..4].fill(0); // hdr_len is a hint, which drivers fill in differently
        frames.push((header, frame));
    }
}

fn assert_same(ours: &Frames, kernels: &Frames, what: &str) {
    let sizes = |frames: &Frames| {
        frames
            .iter()
            .map(|(_, frame)| frame.len())
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(ours), sizes(kernels), "{what}");
    for (number, (ours, kernels)) in ours.iter().zip(kernels).enumerate() {
        assert_eq!(ours.0, kernels.0, "{what}: header of frame {number}");
        let differs = ours.1.iter().zip(&kernels.1).position(|(a, b)| a != b);
        assert!(
            differs.is_none(),
            "{what}: frame {number} differs first at {differs:?}\nours    {:02x?}\nkernel's {:02x?}",
            &ours.1[..ours.1.len().min(120)],
            &kernels.1[..kernels.1.len().min(120)],
        );
    }
}

/// The offloads that a receiver takes: every combination that the kernel accepts for a tap.
fn receivers() -> Vec<(TapOffloads, Offloads)> {
    let mut receivers = vec![(TapOffloads::default(), Offloads::NONE)];
    for bits in 0..16 {
        let has = |bit: u32| bits >> bit & 1 == 1;
        let (tso4, tso6, tso_ecn, uso) = (has(0), has(1), has(2), has(3));
        if tso_ecn && !tso4 && !tso6 {
            continue;
        }
        let mut takes = Offloads::CSUM;
        for (agreed, offload) in [
            (tso4, Offloads::TSO4),
            (tso6, Offloads::TSO6),
            (tso_ecn, Offloads::ECN),
            (uso, Offloads::USO),
        ] {
            if agreed {
                takes = takes | offload;
            }
        }
        let tap = TapOffloads {
            checksum: true,
            tso4,
            tso6,
            tso_ecn,
            uso,
        };
        receivers.push((tap, takes));
    }
    receivers
}

/// Frames with every kind of offload, in sizes around every limit.
fn senders() -> Vec<SuperFrame> {
    let mut senders = Vec::new();
    for (six, udp) in [(false, false), (true, false), (false, true), (true, true)] {
        let base = SuperFrame {
            six,
            udp,
            ..SuperFrame::tcp4(0)
        };
        let sizes = [
            (Some(1448), 1449),
            (Some(1448), 2896),
            (Some(1448), 10_001),
            (Some(1448), 64_000),
            (Some(8948), 60_001),
            (Some(536), 536 * 100),
            (Some(101), 333), // pieces with odd boundaries, which are copied
            (Some(333), 1001),
            (Some(1448), 1400), // one piece
            (None, 0),
            (None, 1),
            (None, 1400),
            (None, 1447),
            (None, 8000),
        ];
        for (size, payload) in sizes {
            let frame = SuperFrame {
                size,
                payload,
                ..base
            };
            senders.push(frame);
            if !udp {
                senders.push(SuperFrame { cwr: true, ..frame });
            }
        }
        let frame = SuperFrame {
            payload: 5000,
            ..base
        };
        for tags in 0..=2 {
            for ip_options in [false, true] {
                senders.push(SuperFrame {
                    tags,
                    ip_options,
                    tcp_options: false,
                    ..frame
                });
                senders.push(SuperFrame {
                    tags,
                    ip_options,
                    cwr: !udp,
                    ..frame
                });
            }
        }
    }
    senders
}

fn needs(frame: &SuperFrame) -> Offloads {
    let cut = match (frame.size, frame.udp, frame.six) {
        (None, _, _) => return Offloads::CSUM,
        (_, true, _) => Offloads::USO,
        (_, false, false) => Offloads::TSO4,
        (_, false, true) => Offloads::TSO6,
    };
    let ecn = if frame.cwr {
        Offloads::ECN
    } else {
        Offloads::NONE
    };
    Offloads::CSUM | cut | ecn
}

/// Whether the kernel changes a frame that the receiver would take: it segments frames with two
/// tags although the offloads allow them, and clears the GSO type of a frame that fits into one
/// piece. A lane passes both unchanged.
fn is_changed_by_the_kernel(frame: &SuperFrame) -> bool {
    frame.tags == 2
        || frame
            .size
            .is_some_and(|size| frame.payload <= usize::from(size))
}

#[test]
fn lanes_segment_frames_as_the_kernel_does() {
    if !have_root() {
        return;
    }
    let netns = Netns::new("cutter");
    netns.enter(|| {
        let kernel = KernelPath::new(&netns);
        let mut compared = 0;
        for (tap, takes) in receivers() {
            kernel.to.agree(tap);
            let ours = OurPath::new(takes);
            let mut expected = 0;
            for frame in senders() {
                let from_us = ours.pass(&frame);
                expected += from_us.len() as u64 + 1;
                let what = format!("{frame:?} to {takes:?}");
                let passes = takes.contains(needs(&frame));
                if passes {
                    let (mut header, bytes) = frame.build();
                    header[2..4].fill(0);
                    assert_same(&from_us, &vec![(header, bytes)], &what);
                }
                if !(passes && is_changed_by_the_kernel(&frame)) {
                    assert_same(&from_us, &kernel.pass(&frame), &what);
                }
                compared += 1;
            }
            // Frames count once they were sent; a segmented frame counts as its pieces.
            let lane = &ours.cable.lanes[Side::A as usize];
            wait_until("all frames to be counted", SOON, || {
                lane.snapshot().frames_out == expected
            });
            let seen = lane.snapshot();
            assert_eq!((seen.frames_in, seen.dropped()), (expected, 0));
            ours.panel.stop();
        }
        assert!(compared > 500, "only {compared}");
    });
}

/// A veth device leaves it to its other end to cut TCP in a tunnel, and the kernel takes no such super-frame
/// from a packet socket: as container networks have it, over a cable between two hosts' devices.
#[test]
fn tcp_in_a_tunnel_passes_between_network_devices() {
    if !have_root() {
        return;
    }
    for option in ["noudpcsum", "udpcsum"] {
        let [middle, left, right] = ["middle", "left", "right"].map(Netns::new);
        for (netns, port, own, peer) in [(&left, "pa", 1, 2), (&right, "pb", 2, 1)] {
            let name = netns.name();
            middle.ip(&format!(
                "link add {port} type veth peer name e0 netns {name}"
            ));
            middle.ip(&format!("link set {port} addrgenmode none"));
            middle.ip(&format!("link set {port} up"));
            netns.ip(&format!("addr add 10.1.0.{own}/24 dev e0"));
            netns.ip("link set e0 up");
            netns.ip(&format!(
                "link add t0 type vxlan id 7 remote 10.1.0.{peer} dstport 4789 dev e0 {option}"
            ));
            netns.ip(&format!("addr add 10.2.0.{own}/24 dev t0"));
            netns.ip("link set t0 up");
        }
        let panel = Panel::start(&PanelOptions::default(), || {}).unwrap();
        let [a, b] = middle.enter(|| ["pa", "pb"].map(|name| Packet::open(name).unwrap()));
        let cable = Cable::new(Port::Packet(a), Port::Packet(b));
        let cable = panel.add(cable).wait().unwrap();
        let sent: Vec<u8> = (0..8 << 20).map(|at| (at * 7 % 253) as u8).collect();
        let address = "10.2.0.2:5000";
        let listener = right.enter(|| TcpListener::bind(address).unwrap());
        let received = std::thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                all
            });
            let mut stream = left.enter(|| TcpStream::connect(address).unwrap());
            stream.write_all(&sent).unwrap();
            drop(stream);
            receiver.join().unwrap()
        });
        assert!(received == sent, "{option}: another stream");
        let seen = cable.lanes[Side::A as usize].snapshot();
        assert_eq!(seen.drops[DropReason::Malformed as usize], 0, "{seen:?}");
        panel.stop();
    }
}

/// The kernel refuses a super-frame of more than 128 datagrams.
#[test]
fn what_a_tap_refuses_whole_is_cut_for_it() {
    if !have_root() {
        return;
    }
    let netns = Netns::new("datagrams");
    netns.enter(|| {
        let panel = Panel::start(&PanelOptions::default(), || {}).unwrap();
        let tap = Tap::open("host0").unwrap();
        netns.ip("link set host0 address 02:00:00:00:00:02");
        netns.ip("addr add 10.0.0.2/24 dev host0");
        netns.ip("link set host0 up");
        let (memory_port, host) = memory(64).unwrap();
        let cable = Cable::new(Port::Memory(memory_port), Port::Tap(tap));
        let cable = panel.add(cable).wait().unwrap();
        let socket = UdpSocket::bind("10.0.0.2:5000").unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let sent = SuperFrame {
            udp: true,
            size: Some(100),
            ..SuperFrame::tcp4(13_050)
        };
        let (header, frame) = sent.build();
        assert!(host.send(VnetHeader(header), &frame));
        let mut received: Vec<u8> = Vec::new();
        while received.len() < sent.payload {
            let mut datagram = [0; 200];
            let len = socket.recv(&mut datagram).expect("a datagram");
            received.extend(&datagram[..len]);
        }
        assert!(received == frame[frame.len() - sent.payload..]);
        let lane = &cable.lanes[Side::A as usize];
        wait_until("all datagrams to be counted", SOON, || {
            lane.snapshot().frames_out == 131
        });
        assert_eq!(lane.snapshot().dropped(), 0);
        panel.stop();
    });
}
