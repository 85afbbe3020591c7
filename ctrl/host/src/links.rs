//! Network devices: lists them, and makes and removes the taps of the patch panel in bulk.

use std::io;
use std::os::fd::OwnedFd;

use dataplane::sys::tap::{self, TapFlags};
use model::mac::Mac;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};

use crate::error::HostError;
use crate::journal::Identity;
use crate::netlink::{Netlink, Request};
use crate::plan::{TapForm, TapOpener, TapPlan};

/// Frames that may wait in a tap until QEMU reads them.
const TX_QUEUE_FRAMES: u32 = 1000;

/// A network device as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it, unique in its network namespace.
    pub index: u32,
    /// Its present name; devices can be renamed.
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
    pub(crate) fn from_message(message: &LinkMessage) -> Self {
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

/// Creates persistent taps and marks them as ours. They stay down until [`raise`].
///
/// # Errors
/// The first tap that could not be created or set up; those before it then exist.
pub(crate) fn create_taps(
    netlink: &mut Netlink,
    taps: &[TapPlan],
    form: TapForm,
    identity: &Identity,
) -> Result<(), HostError> {
    for plan in taps {
        create_persistent(&plan.name, form.opener, form.multi_queue)
            .map_err(|e| HostError::tap(&plan.name, e))?;
    }
    let requests = taps
        .iter()
        .map(|plan| {
            let mut message = marked(&plan.name, &plan.alias, form.mtu, identity);
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

fn create_persistent(name: &str, opener: TapOpener, multi_queue: bool) -> io::Result<()> {
    let flags = TapFlags {
        vnet_hdr: true,
        exclusive: true,
        nonblocking: false,
        multi_queue,
    };
    let fd = tap::open_tap(name, flags)?;
    match opener {
        TapOpener::Root => {}
        TapOpener::User(uid) => tap::set_owner(&fd, uid)?,
        TapOpener::Group(gid) => tap::set_group(&fd, gid)?,
    }
    tap::set_persistent(&fd, true)
}

/// Creates the host's own tap and returns its descriptor, the end of a cable. The kernel removes the
/// device when the descriptor is closed. It stays down until [`raise`].
///
/// # Errors
/// When the tap cannot be created or set up.
pub(crate) fn create_host_tap(
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
        multi_queue: false,
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

/// A message about one device.
fn about(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// The message, asking to set the device up.
fn up(mut message: LinkMessage) -> LinkMessage {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

/// A message that gives a device our mark: group and alias.
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

/// Keeps IPv6 link-local addresses off a device for good: with one, the routers on the cable would
/// take the host for a neighbour.
fn no_link_local() -> Option<LinkAttribute> {
    // A kernel without IPv6 refuses the attribute.
    std::path::Path::new("/proc/sys/net/ipv6")
        .exists()
        .then(|| {
            let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
            LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])])
        })
}

/// Sets all our devices up, by one message to their group.
///
/// # Errors
/// What the kernel answered.
pub(crate) fn raise(netlink: &mut Netlink, identity: &Identity) -> Result<(), HostError> {
    let mut message = up(LinkMessage::default());
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
pub(crate) fn raise_one(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    netlink.change(RouteNetlinkMessage::SetLink(up(about(index))))
}

/// Takes one device off its bridge or bond.
///
/// # Errors
/// `ENODEV` if it is gone.
pub(crate) fn free_from_master(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    let mut message = about(index);
    message.attributes.push(LinkAttribute::Controller(0));
    netlink.change(RouteNetlinkMessage::SetLink(message))
}

/// Removes the devices that carry our mark, even if they were renamed. `unmarked` are names under
/// which devices may have been created that do not carry the mark yet.
///
/// # Errors
/// What the kernel answered. A device that is already gone counts as removed.
pub(crate) fn delete_ours(
    netlink: &mut Netlink,
    identity: &Identity,
    unmarked: &[String],
) -> Result<(), HostError> {
    delete_where(netlink, identity.group(), |link| {
        identity.marks(&link.alias) || just_made(link, unmarked)
    })
}

/// Removes those of our devices that have these names, all at once. `unmarked` are names under which
/// we have just made devices that do not carry our mark yet. Their guards may go once this has
/// returned.
///
/// # Errors
/// What the kernel answered. A device that is already gone counts as removed.
pub(crate) fn delete_named(
    netlink: &mut Netlink,
    identity: &Identity,
    names: &[String],
    unmarked: &[String],
) -> Result<(), HostError> {
    delete_where(netlink, identity.leaving_group(), |link| {
        names.contains(&link.name) && identity.marks(&link.alias) || just_made(link, unmarked)
    })
}

/// Whether a device looks as one that we were making under one of these names: no other program's
/// device in use does.
fn just_made(link: &Link, names: &[String]) -> bool {
    link.tun && link.alias.is_empty() && !link.up && names.contains(&link.name)
}

/// Removes devices by moving them to `group` and removing that: the kernel waits once (about 16 ms)
/// for all of them instead of once for each.
fn delete_where(
    netlink: &mut Netlink,
    group: u32,
    doomed: impl Fn(&Link) -> bool,
) -> Result<(), HostError> {
    let links = list(netlink).map_err(HostError::Netlink)?;
    let (doomed, others): (Vec<_>, Vec<_>) = links.iter().partition(|link| doomed(link));
    if doomed.is_empty() {
        return Ok(());
    }
    if others.iter().any(|link| link.group == group) {
        // Another program uses our group number, so removing the group would take its devices too.
        let requests = doomed.iter().map(|link| delete_message(link.index, None));
        return all_gone(netlink, requests.collect());
    }
    let strays = doomed.iter().filter(|link| link.group != group);
    let moves = strays.map(|link| {
        let mut message = about(link.index);
        message.attributes.push(LinkAttribute::Group(group));
        Request::from(RouteNetlinkMessage::SetLink(message))
    });
    all_gone(netlink, moves.collect())?;
    all_gone(netlink, vec![delete_message(0, Some(group))])
}

fn delete_message(index: u32, group: Option<u32>) -> Request {
    let mut message = about(index);
    message.attributes.extend(group.map(LinkAttribute::Group));
    RouteNetlinkMessage::DelLink(message).into()
}

/// Sends changes of devices that are to be removed: it does not matter if one is gone already.
fn all_gone(netlink: &mut Netlink, requests: Vec<Request>) -> Result<(), HostError> {
    for answer in netlink.batch(requests).map_err(HostError::Netlink)? {
        match answer {
            Err(error) if !absent(&error) => return Err(HostError::Netlink(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the kernel says that what was to be changed does not exist.
pub(crate) fn absent(error: &io::Error) -> bool {
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
