//! Front ends at a socket: well-behaved, leaving, and coming back.
#![allow(missing_docs, clippy::unwrap_used)]

mod front_end;

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use front_end::*;
use ikv_dataplane::vhost_sockets::{Role, SocketEvent};

#[test]
fn a_front_end_brings_up_its_rings_and_frames_pass() {
    let bench = bench();
    let guest = Guest::new();
    let mut front = bench.connect();
    front.bring_up(&guest);
    assert_eq!(bench.event(), bench.plugged());
    for index in 0..100 {
        ping_pong(&bench, &guest, index);
    }
    drop(front);
    assert_eq!(bench.event(), bench.unplugged());
    bench.stop();
}

#[test]
fn without_protocol_features_rings_are_enabled_from_the_start() {
    let bench = bench();
    let guest = Guest::new();
    let mut front = bench.connect();
    front.ask(request::GET_FEATURES, &[]);
    front.send(request::SET_FEATURES, &words(&[VERSION_1]), &[]);
    let body = table(&[Guest::REGION]);
    front.send(request::SET_MEM_TABLE, &body, &[guest.file.as_fd()]);
    front.start(&guest, 0, 0);
    front.start(&guest, 1, 0);
    ping_pong(&bench, &guest, 0);
    bench.stop();
}

#[test]
fn what_is_asked_is_answered() {
    let bench = bench();
    let mut front = bench.connect();
    front.agree(PROTOCOL_FEATURES | VERSION_1);
    assert_eq!(front.ask(request::GET_QUEUE_NUM, &[]), 8);
    assert_eq!(front.ask(request::GET_MAX_MEM_SLOTS, &[]), 32);
    assert_eq!(
        front.acknowledged(request::SET_STATUS, &words(&[7]), &[]),
        0
    );
    assert_eq!(front.ask(request::GET_STATUS, &[]), 7);
    let mut mtu = |mtu| front.acknowledged(request::NET_SET_MTU, &words(&[mtu]), &[]);
    assert_eq!([mtu(1500), mtu(1501), mtu(67), mtu(1 << 32)], [0, 1, 1, 1]);
    // A packed ring's state has its wrap counter, whatever half of it the front end gave.
    front.send(request::SET_FEATURES, &words(&[VERSION_1 | 1 << 34]), &[]);
    assert_eq!(front.stop(0), 0x8000_8000);
    front.send(request::SET_VRING_BASE, &state(0, 0x8005), &[]);
    assert_eq!(front.stop(0), 0x8005_8005);
    bench.stop();
}

/// Ring reset and resize, and a guest that reboots: all stop a ring and start it again.
#[test]
fn a_ring_goes_on_where_it_stopped_or_begins_anew() {
    let bench = bench();
    let guest = Guest::new();
    let mut front = bench.connect();
    front.bring_up(&guest);
    assert_eq!(bench.event(), bench.plugged());
    for index in 0..5 {
        ping_pong(&bench, &guest, index);
    }
    assert_eq!([front.stop(0), front.stop(1)], [5, 5]);
    assert_eq!(bench.event(), bench.unplugged());
    guest.transmit(&[9; 60]);
    assert_eq!(bench.host.receive(std::time::Duration::ZERO), None);
    front.start(&guest, 0, 5);
    front.start(&guest, 1, 5);
    assert_eq!(bench.event(), bench.plugged());
    assert!(
        bench.host.receive(SOON).is_some(),
        "what waited in the ring"
    );

    front.stop(0);
    front.stop(1);
    let anew = Guest::new();
    assert_eq!(front.share(&anew), 0);
    front.start(&anew, 0, 0);
    front.start(&anew, 1, 0);
    ping_pong(&bench, &anew, 0);
    bench.stop();
}

#[test]
fn memory_changes_while_rings_run() {
    let bench = bench();
    let guest = Guest::new();
    let mut front = bench.connect();
    front.bring_up(&guest);
    ping_pong(&bench, &guest, 0);
    assert_eq!(front.share(&guest), 0);
    ping_pong(&bench, &guest, 1);

    let module = memory_file(1 << 16);
    let region = words(&[0, 0x8000_0000, 1 << 16, 0x10_0000, 0]);
    let files = [module.as_fd()];
    assert_eq!(front.acknowledged(request::ADD_MEM_REG, &region, &files), 0);
    ping_pong(&bench, &guest, 2);
    assert_eq!(front.acknowledged(request::REM_MEM_REG, &region, &[]), 0);
    ping_pong(&bench, &guest, 3);
    // Masked and unmasked interrupts replace the descriptor.
    for index in 4..40 {
        let (which, call) = (words(&[1]), [guest.calls[1].as_fd()]);
        front.acknowledged(request::SET_VRING_CALL, &which, &call);
        ping_pong(&bench, &guest, index);
    }
    assert_eq!(bench.event(), bench.plugged());
    assert_eq!(
        bench.sockets.event(),
        None,
        "the guest was plugged in all the time"
    );
    bench.stop();
}

/// QEMU 7.2 adds the same memory, and removes it, once for each queue pair that uses it.
#[test]
fn each_queue_pair_may_add_and_remove_the_same_memory() {
    let bench = bench();
    let guest = Guest::new();
    let mut front = bench.connect();
    front.agree(PROTOCOL_FEATURES | VERSION_1);
    let [address, bytes, user, offset] = Guest::REGION;
    let whole = words(&[0, address, bytes, user, offset]);
    let module = memory_file(1 << 16);
    let other = words(&[0, 0x8000_0000, 1 << 16, 0x10_0000, 0]);
    for pair in 0..8 {
        let files = [guest.file.as_fd()];
        assert_eq!(front.acknowledged(request::ADD_MEM_REG, &whole, &files), 0);
        if pair == 0 {
            for ring in [0, 1] {
                front.start(&guest, ring, 0);
                assert_eq!(front.enable(ring, 1), 0);
            }
        }
        ping_pong(&bench, &guest, pair);
    }
    for request in [request::ADD_MEM_REG, request::REM_MEM_REG] {
        for _pair in 0..8 {
            let files = [module.as_fd()];
            let files = &files[..usize::from(request == request::ADD_MEM_REG)];
            assert_eq!(front.acknowledged(request, &other, files), 0);
        }
    }
    ping_pong(&bench, &guest, 8);
    bench.stop();
}

/// The last device may have been killed between giving buffers back and interrupting their driver.
#[test]
fn a_driver_that_may_have_missed_its_interrupt_gets_one() {
    let bench = bench();
    let guest = Guest::new();
    let interrupted = |ring: usize| rustix::io::read(&guest.calls[ring], &mut [0; 8]).is_ok();
    let mut front = bench.connect();
    front.bring_up(&guest);
    ping_pong(&bench, &guest, 0);
    drop(front);
    for ring in [0, 1] {
        until("the interrupts of the frames", || {
            interrupted(ring).then_some(())
        });
    }
    let mut front = bench.connect();
    front.bring_up(&guest);
    for ring in [0, 1] {
        until("an interrupt", || interrupted(ring).then_some(()));
    }
    ping_pong(&bench, &guest, 1);
    bench.stop();
}

#[test]
fn one_front_end_at_a_time() {
    let bench = bench();
    let guest = Guest::new();
    let mut front = bench.connect();
    front.bring_up(&guest);
    assert_eq!(bench.event(), bench.plugged());
    for _ in 0..5 {
        assert!(bench.connect().is_hung_up());
    }
    assert!(matches!(bench.event(), SocketEvent::Refused { .. }));
    assert_eq!(bench.sockets.event(), None, "reported once");
    ping_pong(&bench, &guest, 0);
    // A front end that connects right after another one left finds the socket free.
    for _ in 0..50 {
        drop(front);
        front = bench.connect();
        assert_ne!(front.ask(request::GET_FEATURES, &[]), 0);
    }
    bench.stop();
}

#[test]
fn a_cut_cable_disconnects_and_not_accepting_does_not() {
    let bench = bench();
    let guest = Guest::new();
    let mut front = bench.connect();
    front.bring_up(&guest);
    assert_eq!(bench.event(), bench.plugged());
    bench
        .sockets
        .set_accepting(bench.socket, false)
        .wait()
        .unwrap();
    ping_pong(&bench, &guest, 0);

    bench
        .sockets
        .set_carrier(bench.socket, false)
        .wait()
        .unwrap();
    assert!(front.is_hung_up());
    assert_eq!(bench.event(), bench.unplugged());
    for _ in 0..5 {
        assert!(bench.connect().is_hung_up());
    }
    assert_eq!(bench.sockets.event(), None, "who cut the cable knows");

    bench
        .sockets
        .set_carrier(bench.socket, true)
        .wait()
        .unwrap();
    for _ in 0..5 {
        assert!(bench.connect().is_hung_up());
    }
    assert!(matches!(bench.event(), SocketEvent::Refused { .. }));
    assert_eq!(bench.sockets.event(), None, "reported once");

    bench
        .sockets
        .set_accepting(bench.socket, true)
        .wait()
        .unwrap();
    let guest = Guest::new();
    let mut front = bench.connect();
    front.bring_up(&guest);
    ping_pong(&bench, &guest, 0);
    bench.stop();
}

#[test]
fn the_fallback_port_comes_back() {
    let bench = bench();
    let (fallback, host) = ikv_dataplane::port::memory(8).unwrap();
    let (cable, side) = (bench.cable.id, ikv_dataplane::Side::B);
    let port = Some(ikv_dataplane::Port::Memory(fallback));
    bench.panel.exchange(cable, side, port).wait().unwrap();
    let guest = Guest::new();
    let mut front = bench.connect();
    front.bring_up(&guest);
    ping_pong(&bench, &guest, 0);
    drop(front);
    until("unplugged", || {
        (bench.sockets.event()? == bench.unplugged()).then_some(())
    });
    assert!(
        bench
            .host
            .send(ikv_dataplane::VnetHeader::default(), &[7; 60])
    );
    assert!(host.receive(SOON).is_some());
    bench.stop();
}

#[test]
fn as_a_client_it_connects_again_and_again() {
    let bench = bench_with(|path| Role::Client(path.into()));
    for _ in 0..3 {
        let listener = UnixListener::bind(&bench.path).unwrap();
        let mut front = FrontEnd::new(listener.accept().unwrap().0);
        std::fs::remove_file(&bench.path).unwrap();
        let guest = Guest::new();
        front.bring_up(&guest);
        assert_eq!(bench.event(), bench.plugged());
        ping_pong(&bench, &guest, 0);
        drop((front, listener));
        assert_eq!(bench.event(), bench.unplugged());
    }
    bench
        .sockets
        .set_carrier(bench.socket, false)
        .wait()
        .unwrap();
    let listener = UnixListener::bind(&bench.path).unwrap();
    bench
        .sockets
        .set_carrier(bench.socket, true)
        .wait()
        .unwrap();
    let mut front = FrontEnd::new(listener.accept().unwrap().0);
    assert_ne!(front.ask(request::GET_FEATURES, &[]), 0);
    bench
        .sockets
        .set_carrier(bench.socket, false)
        .wait()
        .unwrap();
    assert!(front.is_hung_up());
    bench.stop();
}

#[test]
fn a_socket_that_is_removed_ends_its_session_and_takes_no_other() {
    let bench = bench();
    let guest = Guest::new();
    let mut front = bench.connect();
    front.bring_up(&guest);
    assert_eq!(bench.event(), bench.plugged());
    ping_pong(&bench, &guest, 0);
    bench.sockets.remove(bench.socket).wait().unwrap();
    assert!(front.is_hung_up());
    assert_eq!(bench.event(), bench.unplugged());
    // Requests for what is gone do no harm.
    bench
        .sockets
        .set_carrier(bench.socket, false)
        .wait()
        .unwrap();
    bench
        .sockets
        .set_accepting(bench.socket, false)
        .wait()
        .unwrap();
    assert!(
        bench
            .sockets
            .set_fallback_port(bench.socket, None)
            .wait()
            .is_err()
    );
    until("the socket to be closed", || {
        std::os::unix::net::UnixStream::connect(&bench.path).err()
    });
    bench.stop();
}
