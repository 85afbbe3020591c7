//! Renders the configuration files of one switch from a plain [`SwitchConf`].
//!
//! # What is in it, and what may use it
//!
//! Pure functions of their input: the crate does no I/O and knows of the fabric only what the
//! switch itself must know. It depends on no other crate of this workspace, and any crate may
//! use it; the fabric converts its topology to [`SwitchConf`].
//!
//! # How data passes through
//!
//! [`render`] checks what the types alone cannot ([`RenderError`]), derives peers, bridges,
//! VLAN sub-interfaces and announcements, and fills the templates in `templates/`:
//!
//! | file | read by |
//! |---|---|
//! | `etc/frr/frr.conf`, `etc/frr/vtysh.conf` | zebra, bgpd; vtysh |
//! | `etc/dnsmasq.conf` (only with DHCP) | dnsmasq |
//! | `etc/ikv/sysctl.conf` | init, before the NICs' driver is loaded |
//! | `etc/ikv/nics` (`MAC NAME` a line) | init, which renames the NICs |
//! | `etc/ikv/network.batch` | `ip -batch`, after the renames |
//! | `etc/hostname`, `etc/hosts` | every program |
//!
//! [`change`] compares two configurations of a running switch. It returns the lines for `ip` and
//! vtysh that lead from one to the other, or the reason why the switch has to be booted again.
//!
//! [`not_accepted`] compares frr.conf with what FRR shows as its running configuration.
//!
//! zebra and bgpd each read frr.conf with `-f`, take the statements that they understand and log
//! the others as unknown. So neither a start nor a restart needs `vtysh -b`. bgpd must not start
//! before zebra listens on `zserv.api`: its next attempt to connect comes only after 10 s. In FRR 10
//! mgmtd reads the same file under the name `zebra.conf` and hands zebra its share.

mod accepted;
mod change;
mod check;
mod conf;
mod names;
mod render;
mod statement;

pub use accepted::not_accepted;
pub use change::{Change, Unchangeable, change};
pub use check::RenderError;
pub use conf::{
    BootFiles, Dhcp, Fixed, FromServers, Link, Nic, Node, SwitchConf, Timers, VlanNetwork,
};
pub use names::{BootFile, DhcpOption, Domain, HostName, IfName, Mac, NameError, VlanId};
pub use render::{File, SYSCTL, render};
