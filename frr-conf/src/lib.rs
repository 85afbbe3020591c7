//! A plain [`SwitchConf`] in, the files of a switch out. No I/O, no knowledge of the fabric
//! beyond what the switch itself must know.
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
//! | `etc/hostname`, `etc/hosts` | everyone |
//!
//! [`change`] says what makes a running switch another one, as lines for `ip` and vtysh, or why only
//! a start can.
//!
//! zebra and bgpd each read frr.conf with `-f` and take from it what is theirs (they log the
//! rest as unknown); no `vtysh -b` is needed, also after a restart. bgpd must not start before
//! zebra listens on `zserv.api`, or it tries again only after 10 s.

mod change;
mod check;
mod conf;
mod names;
mod render;

pub use change::{Change, Unchangeable, change};
pub use check::RenderError;
pub use conf::{BootFiles, Dhcp, Link, Nic, Node, SwitchConf, Timers, VlanNetwork};
pub use names::{BootFile, Domain, HostName, IfName, Mac, NameError, VlanId};
pub use render::{File, SYSCTL, render};
