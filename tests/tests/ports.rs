//! Taps and packet sockets in namespaces: a cable between them passes every frame unchanged.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Instant;

use dataplane::port::{Packet, Tap};
use dataplane::sys::tap::TapOffloads;
use dataplane::{
    Cable, CableHandle, DropReason, LaneSnapshot, MAX_FRAME, Panel, PanelOptions, Port, PortError,
    Side,
};
use ikv_tests::patience::{self, SOON};
use ikv_tests::{Netns, Nic, SuperFrame, have_root, make_tap};

/// A cable between the devices of two persistent taps, as `run` makes them for VMs.
struct Wire {
    panel: Panel,
    cable: CableHandle,
}

fn wire(netns: &Netns) -> Wire {
    for name in ["ta", "tb"] {
        let _held = make_tap(name);
        set_up(netns, name);
    }
    let panel = Panel::start(
        &PanelOptions {
            workers: 1,
            ..Default::default()
        },
        || {},
    )
    .unwrap();
    let ports = ["ta", "tb"].map(|name| Port::Packet(Packet::open(name).unwrap()));
    let [a, b] = ports;
    let cable = panel.add(Cable::new(a, b)).wait().unwrap();
    Wire { panel, cable }
}

/// Runs `test` in a namespace with a wire between two NICs, which take these offloads.
fn with_wire(
    label: &str,
    [a, b]: [TapOffloads; 2],
    test: impl FnOnce(&Netns, &Wire, [Nic; 2]) + Send,
) {
    if !have_root() {
        return;
    }
    let netns = Netns::new(label);
    netns.enter(|| {
        let wire = wire(&netns);
        test(&netns, &wire, [Nic::plug("ta", a), Nic::plug("tb", b)]);
        wire.panel.stop();
    });
}

/// Sets a device up, in a second request: the kernel sets it up before it reads addrgenmode of the
/// same request.
fn set_up(netns: &Netns, name: &str) {
    netns.ip(&format!(
        "link set {name} mtu 9000 addrgenmode none arp off"
    ));
    netns.ip(&format!("link set {name} up"));
}

/// Does not print 64 KiB when they differ.
fn assert_same(received: &[u8], sent: &[u8], what: &str) {
    let differs = received.iter().zip(sent).position(|(a, b)| a != b);
    assert!(
        received == sent,
        "{what}: {} bytes became {}; first difference: {differs:?}",
        sent.len(),
        received.len()
    );
}

impl Wire {
    fn wait(&self, from: Side, until: impl Fn(&LaneSnapshot) -> bool) -> LaneSnapshot {
        let deadline = Instant::now() + SOON;
        loop {
            let seen = self.cable.lanes[from as usize].snapshot();
            assert_eq!(seen.frames_in, seen.frames_out + seen.held + seen.dropped());
            if until(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "still {seen:?}");
            std::thread::yield_now();
        }
    }
}

fn frame(destination: [u8; 6], rest: &[u8], length: usize) -> Vec<u8> {
    let mut frame = destination.to_vec();
    frame.extend([2, 0, 0, 0, 0, 1]);
    frame.extend(rest);
    frame.extend((frame.len()..length).map(|at| (at % 251) as u8));
    frame
}

fn every_kind_of_frame() -> Vec<(&'static str, Vec<u8>)> {
    let to_b = [2, 0, 0, 0, 0, 2];
    vec![
        ("shortest", frame(to_b, &[0x88, 0xb5], 14)),
        ("plain", frame(to_b, &[0x88, 0xb5], 60)),
        (
            "broadcast ARP",
            frame([0xff; 6], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], 60),
        ),
        (
            "LLDP",
            frame([1, 0x80, 0xc2, 0, 0, 0x0e], &[0x88, 0xcc, 2, 7, 4], 120),
        ),
        (
            "LACP",
            frame([1, 0x80, 0xc2, 0, 0, 2], &[0x88, 9, 1, 1], 124),
        ),
        (
            "STP",
            frame([1, 0x80, 0xc2, 0, 0, 0], &[0, 38, 0x42, 0x42, 3], 60),
        ),
        (
            "pause",
            frame([1, 0x80, 0xc2, 0, 0, 1], &[0x88, 8, 0, 1, 0xff, 0xff], 60),
        ),
        (
            "802.1X",
            frame([1, 0x80, 0xc2, 0, 0, 3], &[0x88, 0x8e, 1, 1], 60),
        ),
        ("VLAN 10", frame(to_b, &[0x81, 0, 0, 10, 8, 0, 0x45, 0], 64)),
        (
            "VLAN 4094, priority 7, DEI",
            frame(to_b, &[0x81, 0, 0xff, 0xfe, 0x88, 0xb5], 64),
        ),
        (
            "priority tag only",
            frame(to_b, &[0x81, 0, 0xa0, 0, 0x88, 0xb5], 64),
        ),
        (
            "service tag",
            frame(to_b, &[0x88, 0xa8, 0, 20, 0x88, 0xb5], 64),
        ),
        (
            "two tags",
            frame(to_b, &[0x88, 0xa8, 0, 20, 0x81, 0, 0, 10, 0x88, 0xb5], 72),
        ),
        ("full size", frame(to_b, &[0x88, 0xb5], 1514)),
        ("jumbo", frame(to_b, &[0x88, 0xb5], 9014)),
        (
            "jumbo with a tag",
            frame(to_b, &[0x81, 0, 0, 10, 0x88, 0xb5], 9018),
        ),
    ]
}

#[test]
fn every_kind_of_frame_passes_unchanged() {
    with_wire("kinds", [TapOffloads::default(); 2], |_, wire, [a, b]| {
        for (kind, frame) in every_kind_of_frame() {
            for (from, to) in [(&a, &b), (&b, &a)] {
                from.send([0; 10], &frame);
                let (header, received) = to.receive();
                assert_same(&received, &frame, kind);
                assert_eq!(header, [0; 10], "{kind}");
            }
        }
        let frames = every_kind_of_frame().len() as u64;
        let bytes = every_kind_of_frame()
            .iter()
            .map(|(_, frame)| frame.len() as u64)
            .sum::<u64>();
        for side in [Side::A, Side::B] {
            let seen = wire.wait(side, |seen| seen.frames_out == frames);
            assert_eq!((seen.bytes_in, seen.dropped()), (bytes, 0));
        }
    });
}

/// The kernel takes a tag out of the frame, and the port puts it back: the length counts with it. As a
/// plain frame, and with a checksum to be finished at its end for a receiver that leaves that to us.
#[test]
fn a_tagged_frame_that_is_too_long_is_counted_and_the_next_one_passes() {
    let takes = [TapOffloads::TCP, TapOffloads::default()];
    with_wire("toolong", takes, |_, wire, [a, b]| {
        let tagged = |length| frame([0xff; 6], &[0x81, 0, 0, 10, 0x88, 0xb5], length);
        let mut too_long = 0;
        for length in MAX_FRAME..=MAX_FRAME + 4 {
            let mut unfinished = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            unfinished[6..8].copy_from_slice(&40_000u16.to_le_bytes());
            let field = (length - 2 - 40_000) as u16;
            unfinished[8..].copy_from_slice(&field.to_le_bytes());
            for header in [[0; 10], unfinished] {
                a.send(header, &tagged(length));
                a.send([0; 10], &tagged(64));
                b.receive_until("the next frame", SOON, |seen| seen.len() == 64);
                too_long += u64::from(length > MAX_FRAME);
            }
        }
        let seen = wire.wait(Side::A, |seen| seen.frames_in == 20);
        // One that is not too long for us may still be so for the device at the other end.
        let refused = seen.drops[DropReason::TooLong as usize];
        assert!(refused >= too_long, "{seen:?}");
    });
}

/// A TCP segment over IPv4 with `payload` bytes, whose checksum and segmentation into pieces of
/// 1448 bytes are left to the NIC.
fn super_frame(payload: usize, vlan: bool) -> ([u8; 10], Vec<u8>) {
    let frame = SuperFrame {
        tags: usize::from(vlan),
        tcp_options: false,
        ..SuperFrame::tcp4(payload)
    };
    frame.build()
}

#[test]
fn super_frames_pass_whole_to_receivers_that_take_them() {
    with_wire("gso", [TapOffloads::TCP; 2], |_, _, [a, b]| {
        for vlan in [false, true] {
            // Devices take frames below gso_max_size, 64 KiB.
            let (header, frame) = super_frame(65_535 - 18 - 40, vlan);
            a.send(header, &frame);
            let (received_header, received) = b.receive();
            assert_same(&received, &frame, if vlan { "tagged" } else { "untagged" });
            assert_eq!(received_header, header, "vlan: {vlan}");
        }
    });
}

#[test]
fn super_frames_are_segmented_for_other_receivers() {
    with_wire(
        "cut",
        [TapOffloads::TCP, TapOffloads::default()],
        |_, _, [a, b]| {
            for vlan in [false, true] {
                let (header, frame) = super_frame(1448 * 3 + 100, vlan);
                a.send(header, &frame);
                let ip = if vlan { 18 } else { 14 };
                let mut payload = Vec::new();
                for length in [1448, 1448, 1448, 100] {
                    let (header, piece) = b.receive();
                    assert_eq!((header[0] & 1, header[1]), (0, 0), "an offload is left");
                    assert_eq!(piece.len(), ip + 40 + length);
                    let parsed = etherparse::SlicedPacket::from_ethernet(&piece).unwrap();
                    let Some(etherparse::TransportSlice::Tcp(tcp)) = parsed.transport else {
                        panic!("no TCP in {piece:?}")
                    };
                    let sum = tcp.to_header().calc_checksum_ipv4_raw(
                        [10, 0, 0, 1],
                        [10, 0, 0, 2],
                        tcp.payload(),
                    );
                    assert_eq!(sum.unwrap(), tcp.checksum());
                    payload.extend_from_slice(tcp.payload());
                }
                assert_same(&payload, &frame[ip + 40..], "payload");
            }
        },
    );
}

#[test]
fn a_change_of_a_receivers_offloads_is_respected() {
    with_wire("agree", [TapOffloads::TCP; 2], |_, wire, [a, b]| {
        let (header, frame) = super_frame(1448 * 3, false);
        let pieces_of_one = || {
            a.send(header, &frame);
            let mut payload = 0;
            let mut pieces = 0;
            while payload < 1448 * 3 {
                payload += b.receive().1.len() - 54;
                pieces += 1;
            }
            pieces
        };
        assert_eq!(pieces_of_one(), 1);
        b.agree(TapOffloads::default());
        for _ in 0..200 {
            assert_eq!(pieces_of_one(), 3, "a super-frame was not segmented");
        }
        b.agree(TapOffloads::TCP);
        patience::wait_until("whole super-frames again", SOON, || pieces_of_one() == 1);
        let seen = wire.wait(Side::A, |seen| seen.frames_out > 600);
        assert_eq!(seen.dropped(), 0);
    });
}

#[test]
fn a_full_queue_does_not_switch_offloads_off() {
    with_wire("full", [TapOffloads::TCP; 2], |_, wire, [a, b]| {
        let (header, frame) = super_frame(1448 * 3, false);
        let mut sent = 0;
        loop {
            a.send(header, &frame);
            sent += 1;
            let seen = wire.wait(Side::A, |seen| seen.frames_in >= sent);
            if seen.drops[DropReason::ReceiverFull as usize] > 0 {
                break;
            }
            assert!(sent < 10_000, "the queue never fills");
        }
        for _ in 1..sent {
            assert_eq!(b.receive().1.len(), frame.len());
        }
        a.send(header, &frame);
        assert_eq!(
            b.receive().1.len(),
            frame.len(),
            "a super-frame was segmented"
        );
    });
}

#[test]
fn frames_to_an_unplugged_tap_are_counted() {
    let offloads = [TapOffloads::default(); 2];
    with_wire("plug", offloads, |netns, wire, [a, b]| {
        drop(b);
        let hello = frame([0xff; 6], &[0x88, 0xb5], 60);
        for round in 1..=3 {
            // The kernel may take a second to take the carrier of a closed tap.
            let gone = Instant::now() + SOON;
            while netns.ip("link show tb").contains("LOWER_UP") {
                assert!(Instant::now() < gone, "tb keeps its carrier");
            }
            for _ in 0..5 {
                a.send([0; 10], &hello);
            }
            let seen = wire.wait(Side::A, |seen| seen.frames_in == round * 6 - 1);
            assert_eq!(
                seen.drops[DropReason::Unplugged as usize],
                round * 5,
                "{seen:?}"
            );
            let b = Nic::plug("tb", TapOffloads::default());
            a.send([0; 10], &hello);
            assert_eq!(b.receive().1, hello, "round {round}");
        }
    });
}

#[test]
fn a_device_works_again_after_down_and_up() {
    with_wire("updown", [TapOffloads::default(); 2], |netns, _, [a, b]| {
        let hello = frame([0xff; 6], &[0x88, 0xb5], 60);
        a.send([0; 10], &hello);
        b.receive();
        netns.ip("link set ta down");
        netns.ip("link set ta up");
        a.send([0; 10], &hello);
        assert_eq!(b.receive().1, hello);
        b.send([0; 10], &hello);
        assert_eq!(a.receive().1, hello);
    });
}

#[test]
fn a_cable_connects_a_tap_and_a_packet_socket() {
    if !have_root() {
        return;
    }
    let netns = Netns::new("host");
    netns.enter(|| {
        let panel = Panel::start(
            &PanelOptions {
                workers: 1,
                ..Default::default()
            },
            || {},
        )
        .unwrap();
        let ours = Port::Tap(Tap::open("host0").unwrap());
        let held = make_tap("vm0");
        set_up(&netns, "vm0");
        drop(held);
        netns.ip("addr add 10.7.0.1/24 dev host0");
        netns.ip("link set host0 mtu 9000 up");
        panel
            .add(Cable::new(ours, Port::Packet(Packet::open("vm0").unwrap())))
            .wait()
            .unwrap();
        let vm = Nic::plug("vm0", TapOffloads::default());

        let asks = [
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 7, 0, 2, 0, 0, 0, 0, 0, 0, 10, 7, 0, 1,
        ];
        let mut request = vec![0xff; 6];
        request.extend([2, 0, 0, 0, 0, 9, 8, 6]);
        request.extend(asks);
        vm.send([0; 10], &request);
        loop {
            let (_, answer) = vm.receive();
            if answer[12..14] == [8, 6] && answer[20..22] == [0, 2] {
                assert_eq!(answer[28..32], [10, 7, 0, 1]);
                break;
            }
        }
        panel.stop();
    });
}

#[test]
fn a_missing_device_is_an_error_with_its_name() {
    if !have_root() {
        return;
    }
    let netns = Netns::new("none");
    netns.enter(|| {
        let error = Packet::open("nosuch0").unwrap_err();
        assert!(
            matches!(&error, PortError::NoSuchDevice { name } if name == "nosuch0"),
            "{error}"
        );
        assert!(Packet::open("a-name-that-is-too-long").is_err());
    });
}
