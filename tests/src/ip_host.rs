//! A small machine with an IP stack of its own (smoltcp) in this process, on a [`Station`].

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

/// What the DHCP server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Address with prefix.
    pub address: Ipv4Cidr,
    /// Default gateway.
    pub router: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
}

/// Ident of our echo requests.
const IDENT: u16 = 0x696b;

/// Between two echo requests to one that has not answered.
const AGAIN: Duration = Duration::from_secs(1);

/// The machine.
pub struct IpHost {
    station: Station,
    interface: Interface,
}

impl IpHost {
    /// Boots on a station, with no address yet.
    pub fn new(mut station: Station) -> Self {
        let config = Config::new(EthernetAddress(station.mac).into());
        let interface = Interface::new(config, &mut station, smoltcp::time::Instant::now());
        IpHost { station, interface }
    }

    /// Gets a lease and takes its address and router.
    ///
    /// # Panics
    /// When there is none within `limit`.
    pub fn lease(&mut self, limit: Duration) -> Lease {
        let mut sockets = SocketSet::new(vec![]);
        let handle = sockets.add(dhcpv4::Socket::new());
        let deadline = Instant::now() + limit;
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

    /// Which of `targets` do not answer to echo requests within `limit`.
    pub fn silent(&mut self, targets: &[Ipv4Addr], limit: Duration) -> BTreeSet<Ipv4Addr> {
        let buffer =
            || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 32], vec![0; 4096]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket
            .bind(icmp::Endpoint::Ident(IDENT))
            .expect("nobody else has it");
        let mut sockets = SocketSet::new(vec![]);
        let handle = sockets.add(socket);
        let mut silent: BTreeSet<Ipv4Addr> = targets.iter().copied().collect();
        let deadline = Instant::now() + limit;
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
    // A full buffer means that the first requests still wait for ARP: later, then.
    if let Ok(place) = socket.send(request.buffer_len(), to.into()) {
        request.emit(
            &mut Icmpv4Packet::new_unchecked(place),
            &ChecksumCapabilities::default(),
        );
    }
}
