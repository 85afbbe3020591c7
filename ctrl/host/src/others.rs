//! Which fabric made what is on this host: one that runs on another socket, or one that was killed.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::journal::Identity;
use crate::links::{self, Link};
use crate::lock::{Lock, StatePaths};
use crate::netlink::Netlink;
use crate::plan::TABLE;

/// A fabric whose devices or tables are in this network namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OtherFabric {
    pid: u32,
    /// The device group of its devices.
    group: u32,
    running: bool,
    /// `None` if it does not run, or is another user's.
    socket: Option<PathBuf>,
}

impl OtherFabric {
    /// The fabric of this identity, as it is now.
    pub fn of(identity: &Identity) -> Self {
        let running = identity.is_running();
        Self {
            pid: identity.pid,
            group: identity.group(),
            running,
            socket: running.then(|| socket_of(identity.pid)).flatten(),
        }
    }

    /// Whether it runs now.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// The commands that take away what is in the way.
    pub fn remedy(&self) -> String {
        let Self {
            pid, group, socket, ..
        } = self;
        match (self.running, socket) {
            (true, Some(socket)) => format!(
                "`ikv-fabric --socket {} status` shows it, `kill {pid}` ends it",
                socket.display()
            ),
            (true, None) => format!("`kill {pid}` ends it"),
            (false, _) => format!(
                "`ikv-fabric --socket ITS-SOCKET clean`, or by hand: ip link del group {group}; nft \
                 delete table inet {TABLE}; nft delete table netdev {TABLE}"
            ),
        }
    }
}

impl fmt::Display for OtherFabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.running, &self.socket) {
            (true, Some(socket)) => write!(
                f,
                "the fabric that runs at {}, pid {}",
                socket.display(),
                self.pid
            ),
            (true, None) => write!(f, "the fabric that runs with pid {}", self.pid),
            (false, _) => write!(f, "a fabric that was killed, pid {}", self.pid),
        }
    }
}

/// The fabrics whose devices are among `links`.
pub fn among(links: &[Link]) -> BTreeSet<OtherFabric> {
    let of = |link: &Link| Identity::of_alias(&link.alias);
    let identities = links.iter().filter_map(of);
    let own = std::process::id();
    // One fabric has hundreds of devices.
    let mut seen = BTreeSet::new();
    let identities = identities.filter(|it| it.pid != own && seen.insert((it.pid, it.started)));
    identities.map(|it| OtherFabric::of(&it)).collect()
}

/// The fabrics whose devices are in the network namespace of the calling thread.
///
/// # Errors
/// When the kernel refuses to list its devices.
pub fn here() -> io::Result<BTreeSet<OtherFabric>> {
    Ok(among(&links::list(&mut Netlink::open()?)?))
}

/// The API socket of a running fabric: it keeps its lock file open, which stands beside the socket.
fn socket_of(pid: u32) -> Option<PathBuf> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let open = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    // Other files are locks by their names, too: that of the image while it is built, say.
    let holds = |socket: &PathBuf| {
        let holder = Lock::holder(&StatePaths::beside(socket));
        holder.is_some_and(|holder| holder == pid.to_string())
    };
    open.filter_map(|path| beside_lock(&path)).find(holds)
}

/// The socket whose lock file this is.
fn beside_lock(lock: &Path) -> Option<PathBuf> {
    let name = lock.file_name()?.to_str()?;
    let stem = match name {
        "lock" => "control",
        _ => name.strip_suffix(".lock")?,
    };
    let socket = lock.with_file_name(format!("{stem}.sock"));
    (StatePaths::beside(&socket).lock == lock).then_some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, alias: &str) -> Link {
        Link {
            index: 1,
            name: name.into(),
            alias: alias.into(),
            group: 0,
            master: None,
            mtu: 1500,
            up: true,
            carrier: true,
            tun: true,
        }
    }

    #[test]
    fn whose_something_is_stands_in_alias_and_chain() {
        let identity = Identity {
            pid: 4711,
            started: 86_420,
        };
        let alias = format!("{} rack1:u3:1", identity.tag());
        assert_eq!(Identity::of_alias(&alias), Some(identity.clone()));
        assert_eq!(Identity::of_alias(&identity.tag()), Some(identity.clone()));
        assert_eq!(Identity::of_chain(&identity.chain()), Some(identity));
        for alias in ["", "eth0", "ikv-fabric", "ikv-fabric x.1", "ikv-fabric 1"] {
            assert_eq!(Identity::of_alias(alias), None, "{alias}");
        }
    }

    #[test]
    fn a_killed_fabric_is_told_once_and_how_to_remove_what_it_left() {
        // Pids end at 2^22.
        let alias = |name: &str| link(name, "ikv-fabric 4194305.1 host");
        let found = among(&[link("lo", ""), alias("ikhn"), alias("ikvm1-3-1")]);
        let found: Vec<_> = found.into_iter().collect();
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].to_string(),
            "a fabric that was killed, pid 4194305"
        );
        let remedy = found[0].remedy();
        assert!(remedy.contains("ip link del group 1765801985"), "{remedy}");
    }

    #[test]
    fn a_running_fabric_is_told_with_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("one.sock");
        let lock = Lock::acquire(&StatePaths::beside(&socket)).unwrap();
        assert_eq!(socket_of(std::process::id()).as_deref(), Some(&*socket));
        let own = OtherFabric::of(&Identity::current().unwrap());
        let said = own.to_string();
        assert!(
            said.contains(&format!("runs at {}", socket.display())),
            "{said}"
        );
        assert!(own.remedy().contains("status"), "{}", own.remedy());
        lock.release().unwrap();
    }

    #[test]
    fn sockets_beside_lock_files() {
        let of = |lock: &str| beside_lock(Path::new(lock));
        assert_eq!(of("/run/x/lock"), Some("/run/x/control.sock".into()));
        assert_eq!(of("/run/x/b.lock"), Some("/run/x/b.sock".into()));
        assert_eq!(of("/run/x/block"), None);
        assert_eq!(of("socket:[123]"), None);
    }
}
