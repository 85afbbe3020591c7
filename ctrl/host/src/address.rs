//! IPv4 addresses and routes: adds and removes those of our links, and lists those of the host.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::links::{self, absent};
use crate::netlink::{Netlink, Request};

/// A route of the host, with what is needed to find overlaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoute {
    /// The destination.
    pub destination: Ipv4Net,
    /// The device it leads through. Empty for `unreachable` and the like.
    pub link: String,
    /// The routing table; 254 is `main`.
    pub table: u32,
}

/// The index of a device in the network namespace of the calling thread (a socket ioctl).
///
/// # Errors
/// When the namespace has no device of that name.
pub fn index_of(link: &str) -> io::Result<u32> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    Ok(rustix::net::netdevice::name_to_index(socket, link)?)
}

/// Gives `link` an address.
///
/// # Errors
/// `ENODEV` without the device, `EEXIST` if it has the address.
pub(crate) fn add_address(netlink: &mut Netlink, link: &str, address: Ipv4Net) -> io::Result<()> {
    // EXCL: an address that exists is another program's and must not become ours to remove.
    let message = address_message(index_of(link)?, address);
    netlink.change(Request {
        message: RouteNetlinkMessage::NewAddress(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    })
}

/// Removes an address from `link`. It counts as removed if it, or the device, no longer exists.
///
/// # Errors
/// What the kernel answered.
pub(crate) fn delete_address(
    netlink: &mut Netlink,
    link: &str,
    address: Ipv4Net,
) -> io::Result<()> {
    gone(index_of(link).and_then(|index| {
        let message = address_message(index, address);
        netlink.change(RouteNetlinkMessage::DelAddress(message))
    }))
}

/// The outcome of a removal: what no longer exists counts as removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if absent(&error) { Ok(()) } else { Err(error) })
}

fn address_message(index: u32, address: Ipv4Net) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address.addr())),
        AddressAttribute::Address(IpAddr::V4(address.addr())),
        AddressAttribute::Broadcast(address.broadcast()),
    ];
    message
}

/// Routes `range` through `via` on `link`.
///
/// # Errors
/// `EEXIST` if there is a route to the range, `ENETUNREACH` if `via` is not on the link.
pub(crate) fn add_route(
    netlink: &mut Netlink,
    range: Ipv4Net,
    via: Ipv4Addr,
    link: &str,
) -> io::Result<()> {
    let message = route_message(range, via, index_of(link)?);
    netlink.change(Request {
        message: RouteNetlinkMessage::NewRoute(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    })
}

/// Removes exactly that route. It counts as removed if it, or the device, no longer exists.
///
/// # Errors
/// What the kernel answered.
pub(crate) fn delete_route(
    netlink: &mut Netlink,
    range: Ipv4Net,
    via: Ipv4Addr,
    link: &str,
) -> io::Result<()> {
    gone(index_of(link).and_then(|index| {
        let message = route_message(range, via, index);
        netlink.change(RouteNetlinkMessage::DelRoute(message))
    }))
}

/// Makes an address unreachable from this namespace, and for those whom it forwards for.
///
/// # Errors
/// What the kernel answered.
pub(crate) fn shut(netlink: &mut Netlink, address: Ipv4Addr) -> io::Result<()> {
    let message = route_to(address.into(), RouteType::Unreachable);
    let shut = netlink.change(Request {
        message: RouteNetlinkMessage::NewRoute(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    });
    match shut {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn route_message(range: Ipv4Net, via: Ipv4Addr, index: u32) -> RouteMessage {
    let mut message = route_to(range, RouteType::Unicast);
    message.attributes.extend([
        RouteAttribute::Gateway(RouteAddress::Inet(via)),
        RouteAttribute::Oif(index),
    ]);
    message
}

fn route_to(range: Ipv4Net, kind: RouteType) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: AddressFamily::Inet,
        destination_prefix_length: range.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Universe,
        kind,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet(
        range.network(),
    ))];
    message
}

/// The IPv4 routes of all tables, without the kernel's entries for local and broadcast addresses.
///
/// # Errors
/// What the kernel answered.
pub fn list_routes(netlink: &mut Netlink) -> io::Result<Vec<HostRoute>> {
    let names = names(netlink)?;
    let mut get = RouteMessage::default();
    get.header.address_family = AddressFamily::Inet;
    let entries = netlink.dump(&RouteNetlinkMessage::GetRoute(get))?;
    Ok(entries
        .iter()
        .filter_map(|entry| match entry {
            RouteNetlinkMessage::NewRoute(route) => host_route(route, &names),
            _ => None,
        })
        .collect())
}

/// The number of the device through which the host sends to an address. `None` if it sends nothing
/// there. It asks the kernel, which knows every table and rule.
///
/// # Errors
/// When the socket fails.
pub(crate) fn way_to(netlink: &mut Netlink, address: Ipv4Addr) -> io::Result<Option<u32>> {
    let mut get = RouteMessage::default();
    get.header.address_family = AddressFamily::Inet;
    get.header.destination_prefix_length = 32;
    get.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet(address))];
    let answer = match netlink.ask(RouteNetlinkMessage::GetRoute(get)) {
        Ok(RouteNetlinkMessage::NewRoute(route)) => route,
        // What the kernel says for an unreachable, prohibited or blackhole route, and for none.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::InvalidInput
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
        Ok(_) => return Ok(None),
    };
    Ok(answer
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        }))
}

/// The names of all devices by their numbers.
fn names(netlink: &mut Netlink) -> io::Result<HashMap<u32, String>> {
    let links = links::list(netlink)?.into_iter();
    Ok(links.map(|link| (link.index, link.name)).collect())
}

fn host_route(route: &RouteMessage, names: &HashMap<u32, String>) -> Option<HostRoute> {
    if matches!(
        route.header.kind,
        RouteType::Local | RouteType::Broadcast | RouteType::Multicast
    ) {
        return None;
    }
    let mut found = HostRoute {
        destination: Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0).ok()?,
        link: String::new(),
        table: u32::from(route.header.table),
    };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(network)) => {
                found.destination =
                    Ipv4Net::new(*network, route.header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Oif(index) => {
                found.link = names.get(index).cloned().unwrap_or_default();
            }
            RouteAttribute::Table(table) => found.table = *table,
            _ => {}
        }
    }
    Some(found)
}

/// The IPv4 addresses of the host with the names of their devices.
///
/// # Errors
/// What the kernel answered.
pub fn list_addresses(netlink: &mut Netlink) -> io::Result<Vec<(String, Ipv4Net)>> {
    let names = names(netlink)?;
    let mut get = AddressMessage::default();
    get.header.family = AddressFamily::Inet;
    let entries = netlink.dump(&RouteNetlinkMessage::GetAddress(get))?;
    let mut found = Vec::new();
    for entry in entries {
        let RouteNetlinkMessage::NewAddress(message) = entry else {
            continue;
        };
        let local = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(local)) => Some(*local),
                _ => None,
            });
        let network = local.and_then(|local| Ipv4Net::new(local, message.header.prefix_len).ok());
        if let Some(network) = network {
            found.push((
                names
                    .get(&message.header.index)
                    .cloned()
                    .unwrap_or_default(),
                network,
            ));
        }
    }
    Ok(found)
}
