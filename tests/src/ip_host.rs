//! A machine in this process with an IP stack of its own (smoltcp) on a [`Station`].

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{dhcpv4, icmp};
use smoltcp::wire::{
    EthernetAddress, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, Ipv4Address, Ipv4Cidr,
};

use crate::Station;
use crate::patience::deadline;

/// A lease of the DHCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The machine's address with its prefix.
    pub address: Ipv4Cidr,
    /// Default gateway, if the server named one.
    pub router: Option<Ipv4Addr>,
    /// Name servers, in the server's order.
    pub dns: Vec<Ipv4Addr>,
}

/// Identifier of our ICMP echo requests.
const IDENT: u16 = 0x696b;

/// Interval between echo requests to a target that has not answered.
const AGAIN: Duration = Duration::from_secs(1);

/// A machine that gets a lease and pings.
pub struct IpHost {
    station: Station,
    interface: Interface,
}

impl IpHost {
    /// Makes a machine on a station, without an address.
    pub fn new(mut station: Station) -> Self {
        let config = Config::new(EthernetAddress(station.mac).into());
        let interface = Interface::new(config, &mut station, smoltcp::time::Instant::now());
        IpHost { station, interface }
    }

    /// Gets a lease and configures its address and router.
    ///
    /// # Panics
    /// When none is given within `limit`.
    pub fn lease(&mut self, limit: Duration) -> Lease {
        let mut sockets = SocketSet::new(vec![]);
        let handle = sockets.add(dhcpv4::Socket::new());
        let deadline = deadline(limit);
        let lease = loop {
            assert!(Instant::now() < deadline, "no DHCP lease within {limit:?}");
            self.poll(&mut sockets);
            if let Some(dhcpv4::Event::Configured(given)) =
                sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll()
            {
                break Lease {
                    address: given.address,
                    router: given.router,
                    dns: given.dns_servers.iter().copied().collect(),
                };
            }
        };
        self.interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::Ipv4(lease.address))
                .expect("room for one");
        });
        if let Some(router) = lease.router {
            self.interface
                .routes_mut()
                .add_default_ipv4_route(router)
                .expect("room for one");
        }
        lease
    }

    /// The `targets` that do not answer echo requests within `limit`.
    pub fn silent(&mut self, targets: &[Ipv4Addr], limit: Duration) -> BTreeSet<Ipv4Addr> {
        let buffer =
            || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 32], vec![0; 4096]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket
            .bind(icmp::Endpoint::Ident(IDENT))
            .expect("a new socket is not bound");
        let mut sockets = SocketSet::new(vec![]);
        let handle = sockets.add(socket);
        let mut silent: BTreeSet<Ipv4Addr> = targets.iter().copied().collect();
        let deadline = deadline(limit);
        let mut next = Instant::now();
        while !silent.is_empty() && Instant::now() < deadline {
            let socket = sockets.get_mut::<icmp::Socket<'_>>(handle);
            while let Ok((_, IpAddress::Ipv4(from))) = socket.recv() {
                silent.remove(&from);
            }
            if Instant::now() >= next {
                next = Instant::now() + AGAIN;
                for target in &silent {
                    echo(socket, *target);
                }
            }
            self.poll(&mut sockets);
        }
        silent
    }

    fn poll(&mut self, sockets: &mut SocketSet<'_>) {
        let now = smoltcp::time::Instant::now();
        self.interface.poll(now, &mut self.station, sockets);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn echo(socket: &mut icmp::Socket<'_>, to: Ipv4Address) {
    let request = Icmpv4Repr::EchoRequest {
        ident: IDENT,
        seq_no: 1,
        data: b"ikv",
    };
    // While the first requests wait for ARP, the buffer may be full: the next attempt sends more.
    if let Ok(buffer) = socket.send(request.buffer_len(), to.into()) {
        request.emit(
            &mut Icmpv4Packet::new_unchecked(buffer),
            &ChecksumCapabilities::default(),
        );
    }
}
