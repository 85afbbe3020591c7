//! Transfers between two hosts: TCP at full speed, UDP at a given rate.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use smoltcp::socket::{tcp, udp};

use super::host::{Host, poll_or_wait};

/// Bytes that a TCP connection buffers at either end. They fit into one ring as frames, so that the
/// connection overflows no queue on its path.
const WINDOW: usize = 192 << 10;

/// How long a connection may take to be established.
const CONNECT: Duration = Duration::from_secs(2);

/// Flows of a UDP transfer, each from a port of its own: ECMP chooses among equal paths by ports,
/// and the transfer is to use all of them.
const FLOWS: usize = 8;

/// The payload of a datagram in bytes.
const DATAGRAM: usize = 1400;

/// How long to wait for datagrams after the last was sent.
const LATE: Duration = Duration::from_millis(500);

/// The most datagrams that are sent at once. After a delay, the sender does not catch up faster.
const BURST: u64 = 32;

/// The longest wait for a frame in a turn, so that datagrams are sent when they are due.
const PACE: Duration = Duration::from_millis(1);

/// A direction: sender and receiver, by their indices in the list of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) from: usize,
    pub(super) to: usize,
}

/// The part of a UDP transfer that arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Datagrams {
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Payload received per second of sending, in bits per second.
    pub(super) bits_per_second: f64,
}

/// Sends by TCP for `time`, at full speed. Returns the payload that was received, in bits per second;
/// `None` if no connection was established.
pub(super) fn tcp(
    hosts: &mut [Host],
    Pair { from, to }: Pair,
    time: Duration,
    stop: &AtomicBool,
) -> io::Result<Option<f64>> {
    let Some(address) = hosts[to].address() else {
        return Ok(None);
    };
    let socket = || {
        let buffer = || tcp::SocketBuffer::new(vec![0; WINDOW]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        // Slow start and congestion avoidance, as a VM's TCP has them.
        socket.set_congestion_control(tcp::CongestionControl::Reno);
        socket
    };
    let port = hosts[to].port();
    let (mut server, client) = (socket(), socket());
    server
        .listen(port)
        .expect("the socket is new and the port is not 0");
    let server = hosts[to].sockets.add(server);
    let client = hosts[from].sockets.add(client);
    let mut rate = None;
    if hosts[from].connect(client, (address, port)) {
        let began = Instant::now();
        while !hosts[from]
            .sockets
            .get_mut::<tcp::Socket<'_>>(client)
            .may_send()
            && began.elapsed() < CONNECT
            && !stop.load(Ordering::Relaxed)
        {
            poll_or_wait(hosts, CONNECT.saturating_sub(began.elapsed()))?;
        }
        let began = Instant::now();
        let mut bytes = 0;
        while hosts[from]
            .sockets
            .get_mut::<tcp::Socket<'_>>(client)
            .may_send()
            && began.elapsed() < time
            && !stop.load(Ordering::Relaxed)
        {
            let sending = hosts[from].sockets.get_mut::<tcp::Socket<'_>>(client);
            if sending.can_send() {
                // Only the number of bytes matters, so the old contents of the buffer are sent.
                let _ = sending.send(|buffer| (buffer.len(), ()));
            }
            let receiving = hosts[to].sockets.get_mut::<tcp::Socket<'_>>(server);
            while receiving.can_recv() {
                bytes += receiving
                    .recv(|found| (found.len(), found.len()))
                    .unwrap_or(0);
            }
            poll_or_wait(hosts, PACE)?;
        }
        let seconds = began.elapsed().as_secs_f64();
        rate = (bytes > 0).then(|| bytes as f64 * 8.0 / seconds);
    }
    for (host, handle) in [(from, client), (to, server)] {
        hosts[host]
            .sockets
            .get_mut::<tcp::Socket<'_>>(handle)
            .abort();
        // This sends the RST, so that the other end does not wait for more.
        hosts[host].poll();
        hosts[host].sockets.remove(handle);
    }
    Ok(rate)
}

/// Sends datagrams at a rate, in bits per second, for `time`.
pub(super) fn udp(
    hosts: &mut [Host],
    Pair { from, to }: Pair,
    rate: f64,
    time: Duration,
    stop: &AtomicBool,
) -> io::Result<Datagrams> {
    let Some(address) = hosts[to].address() else {
        return Ok(Datagrams::default());
    };
    let port = hosts[to].port();
    let sink = hosts[to].sockets.add(bound(port, 512));
    let sources = [(); FLOWS].map(|()| {
        let port = hosts[from].port();
        hosts[from].sockets.add(bound(port, BURST as usize))
    });
    let mut seen = Datagrams::default();
    let per_second = rate / 8.0 / DATAGRAM as f64;
    let began = Instant::now();
    let mut last = began;
    while !stop.load(Ordering::Relaxed) {
        let elapsed = began.elapsed();
        if elapsed < time {
            let due = (per_second * elapsed.as_secs_f64()) as u64 + 1;
            let burst = due.saturating_sub(seen.sent).min(BURST);
            for _ in 0..burst {
                let source = sources[seen.sent as usize % FLOWS];
                let socket = hosts[from].sockets.get_mut::<udp::Socket<'_>>(source);
                if socket.send(DATAGRAM, (address, port)).is_err() {
                    break;
                }
                seen.sent += 1;
            }
        } else if seen.received >= seen.sent || elapsed > time + LATE {
            break;
        }
        poll_or_wait(hosts, PACE)?;
        let socket = hosts[to].sockets.get_mut::<udp::Socket<'_>>(sink);
        while socket.recv().is_ok() {
            seen.received += 1;
            last = Instant::now();
        }
    }
    let seconds = last.duration_since(began).max(time).as_secs_f64();
    seen.bits_per_second = (seen.received * 8 * DATAGRAM as u64) as f64 / seconds;
    hosts[to].sockets.remove(sink);
    for source in sources {
        hosts[from].sockets.remove(source);
    }
    Ok(seen)
}

fn bound(port: u16, datagrams: usize) -> udp::Socket<'static> {
    let buffer = || {
        let meta = vec![udp::PacketMetadata::EMPTY; datagrams];
        udp::PacketBuffer::new(meta, vec![0; datagrams * DATAGRAM])
    };
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket
        .bind(port)
        .expect("the socket is new and the port is not 0");
    socket
}
