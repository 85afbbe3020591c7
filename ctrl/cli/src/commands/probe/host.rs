//! A host: an IP stack (smoltcp) behind a [`Nic`].

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use guest::wait_for_frames;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{dhcpv4, icmp, tcp};
use smoltcp::wire::{
    EthernetAddress, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, Ipv4Address, Ipv4Cidr,
};

use super::device::Nic;

/// The identifier of the echo requests: "ik" in ASCII.
const IDENT: u16 = 0x696b;

/// How long to wait for an answer before a DHCP message is sent again.
const AGAIN: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(1);

/// The most echo requests, and answers, that may wait in the host.
const ECHOES: usize = 256;

/// The first of the ports that transfers use, one after the other.
const FIRST_PORT: u16 = 49_152;

/// The lease from the DHCP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) address: Ipv4Cidr,
    pub(super) gateway: Option<Ipv4Addr>,
    /// The time from plugging in to the lease.
    pub(super) after: Duration,
}

/// A host with one NIC.
pub(super) struct Host {
    pub(super) nic: Nic,
    interface: Interface,
    /// Its own sockets, and those of the transfers.
    pub(super) sockets: SocketSet<'static>,
    dhcp: SocketHandle,
    echo: SocketHandle,
    /// `None` until the DHCP server has given an address.
    pub(super) lease: Option<Lease>,
    plugged: Instant,
    next_port: u16,
}

impl Host {
    /// Plugs in without an address, and begins to ask for one.
    pub(super) fn new(mut nic: Nic, mac: EthernetAddress) -> Host {
        let plugged = Instant::now();
        let mut config = Config::new(mac.into());
        // It determines transaction ids and sequence numbers. Two hosts, or two starts of the program,
        // must not use the same ones: answers to one would pass for answers to the other.
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let seed = mac
            .0
            .iter()
            .fold(0, |seed, octet| seed << 8 | u64::from(*octet));
        config.random_seed = (since.as_nanos() as u64) ^ seed;
        let interface = Interface::new(config, &mut nic, smoltcp::time::Instant::ZERO);
        let mut sockets = SocketSet::new(Vec::new());
        let mut dhcp = dhcpv4::Socket::new();
        let mut retry = dhcp.get_retry_config();
        retry.discover_timeout = AGAIN;
        retry.initial_request_timeout = AGAIN;
        dhcp.set_retry_config(retry);
        let buffer = || {
            icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; ECHOES], vec![0; 64 << 10])
        };
        let mut echo = icmp::Socket::new(buffer(), buffer());
        echo.bind(icmp::Endpoint::Ident(IDENT))
            .expect("a socket that is not bound yet");
        Host {
            nic,
            interface,
            dhcp: sockets.add(dhcp),
            echo: sockets.add(echo),
            sockets,
            lease: None,
            plugged,
            next_port: FIRST_PORT,
        }
    }

    pub(super) fn address(&self) -> Option<Ipv4Addr> {
        self.lease.map(|lease| lease.address.address())
    }

    /// Sends an echo request; `false` if too many wait already.
    pub(super) fn ping(&mut self, to: Ipv4Address, number: u16) -> bool {
        let request = Icmpv4Repr::EchoRequest {
            ident: IDENT,
            seq_no: number,
            data: b"ikv-fabric probe",
        };
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.echo);
        let Ok(buffer) = socket.send(request.buffer_len(), to.into()) else {
            return false;
        };
        request.emit(
            &mut Icmpv4Packet::new_unchecked(buffer),
            &ChecksumCapabilities::default(),
        );
        true
    }

    /// The echo answers that arrived: their senders and sequence numbers.
    pub(super) fn answers(&mut self) -> Vec<(Ipv4Addr, u16)> {
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.echo);
        let mut answers = Vec::new();
        while let Ok((bytes, IpAddress::Ipv4(from))) = socket.recv() {
            let Ok(packet) = Icmpv4Packet::new_checked(bytes) else {
                continue;
            };
            let parsed = Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default());
            if let Ok(Icmpv4Repr::EchoReply { seq_no, .. }) = parsed {
                answers.push((from, seq_no));
            }
        }
        answers
    }

    /// Opens a TCP connection from a port that was not used recently; `false` without an address.
    pub(super) fn connect(&mut self, handle: SocketHandle, to: (Ipv4Addr, u16)) -> bool {
        let from = self.port();
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.connect(self.interface.context(), to, from).is_ok()
    }

    /// A port that no transfer used recently.
    pub(super) fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
        port
    }

    /// Receives and sends what is pending; `false` if there was nothing to do.
    pub(super) fn poll(&mut self) -> bool {
        let now = self.now();
        self.interface.poll(now, &mut self.nic, &mut self.sockets);
        let dhcp = self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.dhcp);
        match dhcp.poll() {
            Some(dhcpv4::Event::Configured(given)) => {
                let (address, gateway) = (given.address, given.router);
                self.configure(address, gateway);
            }
            Some(dhcpv4::Event::Deconfigured) => self.deconfigure(),
            None => {}
        }
        self.nic.has_moved()
    }

    pub(super) fn configure(&mut self, address: Ipv4Cidr, gateway: Option<Ipv4Addr>) {
        self.deconfigure();
        self.interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::Ipv4(address)).expect("room for one");
        });
        if let Some(gateway) = gateway {
            self.interface
                .routes_mut()
                .add_default_ipv4_route(gateway)
                .expect("room for one");
        }
        self.lease = Some(Lease {
            address,
            gateway,
            after: self.plugged.elapsed(),
        });
    }

    fn deconfigure(&mut self) {
        self.lease = None;
        self.interface
            .update_ip_addrs(|addresses| addresses.truncate(0));
        self.interface.routes_mut().remove_default_ipv4_route();
    }

    /// How long the host has nothing to do unless a frame arrives; `None` means until one arrives.
    fn idle(&mut self) -> Option<Duration> {
        let now = self.now();
        let delay = self.interface.poll_delay(now, &self.sockets)?;
        Some(Duration::from_micros(delay.total_micros()))
    }

    fn now(&self) -> smoltcp::time::Instant {
        smoltcp::time::Instant::from_micros(self.plugged.elapsed().as_micros() as i64)
    }
}

/// Polls every host once. If none had anything to do, waits for a frame, for at most `limit`.
pub(super) fn poll_or_wait(hosts: &mut [Host], limit: Duration) -> io::Result<()> {
    let mut moved = false;
    for host in &mut *hosts {
        moved |= host.poll();
    }
    if moved {
        return Ok(());
    }
    let idle = hosts.iter_mut().filter_map(Host::idle).min();
    let limit = idle.map_or(limit, |idle| idle.min(limit));
    if limit.is_zero() {
        return Ok(());
    }
    let guests = hosts.iter_mut().filter_map(|host| host.nic.guest.as_mut());
    wait_for_frames(guests, limit).map(drop)
}
