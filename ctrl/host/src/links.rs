//! Network devices: what exists, and the taps of the patch panel made and removed in bulk.

use std::io;
use std::os::fd::OwnedFd;

use dataplane::sys::tap::{self, TapFlags};
use model::mac::Mac;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};

use super::HostError;
use super::netlink::{Netlink, Request};
use crate::journal::Identity;
use crate::plan::TapPlan;

/// Frames that may wait in a tap until QEMU reads them.
const TX_QUEUE_FRAMES: u32 = 1000;

/// A network device as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number of it.
    pub index: u32,
    /// Its name now.
    pub name: String,
    /// The free text set on it; ours start with [`Identity::tag`].
    pub alias: String,
    /// The device group (`ip link … group N`).
    pub group: u32,
    /// The index of the bridge or bond it is enslaved to.
    pub master: Option<u32>,
    /// Largest payload of a frame in bytes.
    pub mtu: u32,
    /// Set up by the administrator (`IFF_UP`).
    pub up: bool,
    /// Something is plugged in (`IFF_LOWER_UP`); reported as false while down.
    pub carrier: bool,
    /// It is a tun or tap device.
    pub tun: bool,
}

impl Link {
    pub(super) fn from_message(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            alias: String::new(),
            group: 0,
            master: None,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            tun: false,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
                LinkAttribute::Group(group) => link.group = *group,
                LinkAttribute::Controller(master) => link.master = Some(*master),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::LinkInfo(info) => {
                    link.tun = info.contains(&LinkInfo::Kind(InfoKind::Tun));
                }
                _ => {}
            }
        }
        link
    }
}

/// All devices of this network namespace.
///
/// # Errors
/// When the kernel refuses the dump.
pub fn list(netlink: &mut Netlink) -> io::Result<Vec<Link>> {
    let entries = netlink.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    Ok(entries
        .iter()
        .filter_map(|entry| match entry {
            RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(message)),
            _ => None,
        })
        .collect())
}

/// Creates persistent taps and marks them as ours; they stay down until [`raise`].
///
/// # Errors
/// The first tap that could not be made or set; those before it exist then.
pub fn create_taps(
    netlink: &mut Netlink,
    taps: &[TapPlan],
    owner: Option<u32>,
    mtu: u32,
    identity: &Identity,
) -> Result<(), HostError> {
    for plan in taps {
        create_persistent(&plan.name, owner).map_err(|e| HostError::tap(&plan.name, e))?;
    }
    let requests = taps
        .iter()
        .map(|plan| {
            let mut message = marked(&plan.name, &plan.alias, mtu, identity);
            // Without NOARP the host would answer for its other addresses on this device.
            message.header.flags = LinkFlags::Noarp;
            message.header.change_mask = LinkFlags::Noarp;
            message
                .attributes
                .push(LinkAttribute::TxQueueLen(TX_QUEUE_FRAMES));
            message.attributes.extend(no_link_local());
            Request::from(RouteNetlinkMessage::SetLink(message))
        })
        .collect();
    let answers = netlink.batch(requests).map_err(HostError::Netlink)?;
    for (plan, answer) in taps.iter().zip(answers) {
        answer.map_err(|e| HostError::link("set up", &plan.name, e))?;
    }
    Ok(())
}

fn create_persistent(name: &str, owner: Option<u32>) -> io::Result<()> {
    let flags = TapFlags {
        vnet_hdr: true,
        exclusive: true,
        nonblocking: false,
    };
    let fd = tap::open_tap(name, flags)?;
    if let Some(uid) = owner {
        tap::set_owner(&fd, uid)?;
    }
    tap::set_persistent(&fd, true)
}

/// Creates the host's own tap and returns its descriptor, the cable end. The device goes away
/// with the descriptor. It stays down until [`raise`].
///
/// # Errors
/// When the tap cannot be made or set.
pub fn create_host_tap(
    netlink: &mut Netlink,
    name: &str,
    mac: Mac,
    mtu: u32,
    link_local: bool,
    identity: &Identity,
) -> Result<OwnedFd, HostError> {
    let flags = TapFlags {
        vnet_hdr: true,
        exclusive: true,
        nonblocking: true,
    };
    let fd = tap::open_tap(name, flags).map_err(|e| HostError::tap(name, e))?;
    let mut message = marked(name, "host", mtu, identity);
    message
        .attributes
        .push(LinkAttribute::Address(mac.0.to_vec()));
    message
        .attributes
        .push(LinkAttribute::TxQueueLen(TX_QUEUE_FRAMES));
    if !link_local {
        message.attributes.extend(no_link_local());
    }
    netlink
        .change(RouteNetlinkMessage::SetLink(message))
        .map_err(|e| HostError::link("set up", name, e))?;
    Ok(fd)
}

fn marked(name: &str, alias: &str, mtu: u32, identity: &Identity) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::Group(identity.group()),
        LinkAttribute::IfAlias(format!("{} {alias}", identity.tag())),
    ];
    message
}

/// No IPv6 link-local address, ever: with one, the host would be a neighbour on the cable.
fn no_link_local() -> Option<LinkAttribute> {
    // A kernel without IPv6 refuses the attribute, and needs none.
    std::path::Path::new("/proc/sys/net/ipv6")
        .exists()
        .then(|| {
            let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
            LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])])
        })
}

/// Sets all our devices up, in one message.
///
/// # Errors
/// What the kernel answered.
pub fn raise(netlink: &mut Netlink, identity: &Identity) -> Result<(), HostError> {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
        .attributes
        .push(LinkAttribute::Group(identity.group()));
    netlink
        .change(RouteNetlinkMessage::NewLink(message))
        .map_err(HostError::Netlink)
}

/// Sets one device up.
///
/// # Errors
/// `ENODEV` if it is gone.
pub fn raise_one(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    netlink.change(RouteNetlinkMessage::SetLink(message))
}

/// Takes one device off its bridge or bond.
///
/// # Errors
/// `ENODEV` if it is gone.
pub fn free_from_master(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::Controller(0));
    netlink.change(RouteNetlinkMessage::SetLink(message))
}

/// Removes the devices that carry our mark, whatever they are called now. `unmarked` names
/// those that may have been created without having been marked yet.
///
/// # Errors
/// What the kernel answered; a device that is gone is no error.
pub fn delete_ours(
    netlink: &mut Netlink,
    identity: &Identity,
    unmarked: &[String],
) -> Result<(), HostError> {
    let links = list(netlink).map_err(HostError::Netlink)?;
    let group = identity.group();
    let ours = |link: &Link| {
        identity.marks(&link.alias)
            || (link.tun && link.alias.is_empty() && !link.up && unmarked.contains(&link.name))
    };
    let (mine, others): (Vec<_>, Vec<_>) = links.iter().partition(|link| ours(link));
    if mine.is_empty() {
        return Ok(());
    }
    if others.iter().any(|link| link.group == group) {
        // Somebody else uses our group number: one by one, about 16 ms each.
        let requests = mine
            .iter()
            .map(|link| delete_message(link.index, None))
            .collect();
        return gone(netlink.batch(requests).map_err(HostError::Netlink)?);
    }
    let strays = mine.iter().filter(|link| link.group != group);
    let requests = strays
        .map(|link| {
            let mut message = LinkMessage::default();
            message.header.index = link.index;
            message.attributes.push(LinkAttribute::Group(group));
            Request::from(RouteNetlinkMessage::SetLink(message))
        })
        .collect();
    gone(netlink.batch(requests).map_err(HostError::Netlink)?)?;
    gone(vec![netlink.change(delete_message(0, Some(group)))])
}

/// Removes those of our devices that have these names, all at once; `unmarked` are names that we
/// have just made and not marked yet. Their guards may go once this has returned.
///
/// # Errors
/// When netlink fails; that some of them are gone already is none.
pub fn delete_named(
    netlink: &mut Netlink,
    identity: &Identity,
    names: &[String],
    unmarked: &[String],
) -> Result<(), HostError> {
    let links = list(netlink).map_err(HostError::Netlink)?;
    let doomed = |link: &&Link| {
        names.contains(&link.name) && identity.marks(&link.alias)
            || link.tun && link.alias.is_empty() && !link.up && unmarked.contains(&link.name)
    };
    let doomed: Vec<_> = links.iter().filter(doomed).collect();
    if doomed.is_empty() {
        return Ok(());
    }
    let group = identity.leaving_group();
    if links.iter().any(|link| link.group == group) {
        // Somebody else uses that number: one by one, about 16 ms each.
        let requests = doomed
            .iter()
            .map(|link| delete_message(link.index, None))
            .collect();
        return gone(netlink.batch(requests).map_err(HostError::Netlink)?);
    }
    let requests = doomed.iter().map(|link| {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.attributes.push(LinkAttribute::Group(group));
        Request::from(RouteNetlinkMessage::SetLink(message))
    });
    gone(
        netlink
            .batch(requests.collect())
            .map_err(HostError::Netlink)?,
    )?;
    gone(vec![netlink.change(delete_message(0, Some(group)))])
}

fn delete_message(index: u32, group: Option<u32>) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.extend(group.map(LinkAttribute::Group));
    RouteNetlinkMessage::DelLink(message).into()
}

fn gone(answers: Vec<io::Result<()>>) -> Result<(), HostError> {
    for answer in answers {
        match answer {
            Err(e) if !absent(&e) => return Err(HostError::Netlink(e)),
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn absent(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [
        Errno::NODEV,
        Errno::SRCH,
        Errno::NOENT,
        Errno::NXIO,
        Errno::ADDRNOTAVAIL,
    ]
    .iter()
    .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
