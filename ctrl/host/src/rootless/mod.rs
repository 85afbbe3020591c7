//! A fabric without root: the process moves into a user namespace and a network namespace of its
//! own, where it may do everything that this crate does.
//!
//! ```text
//!   host                          ┊ the fabric's namespaces
//!   user ── ikv-fabric run ───────┊──> uid 0 here: ikhn, taps, route, NAT, forwarding
//!   pasta: the user's own sockets ┊<── link `world`, the default route
//! ```
//!
//! [`enter`] does it, before the process has a second thread, in the same process: signals, terminal,
//! exit status and pid stay what they are. It needs no mount namespace, because nothing of ours reads
//! `/sys`. Programs that must act from outside (newuidmap, pasta) are prepared before and started
//! after. The namespaces vanish with their last process, and everything in them does.
//!
//! [`inside`] finds the namespaces of a running fabric for the programs that must go in.

mod helper;
mod ids;
pub mod inside;
mod way_out;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use ipnet::Ipv4Net;
use rustix::process::{getegid, geteuid};

use crate::netlink::Netlink;
use crate::program::{self, Program};
use crate::{address, links, packages};
use helper::Helper;
use way_out::WayOut;
pub use way_out::{WORLD, WayOutState};

/// What a fabric without root should have, with Debian's packages. It runs without: see [`Rootless`].
pub const PROGRAMS: &[Program] = &[
    Program::of("pasta", "passt"),
    Program::of("newuidmap", "uidmap"),
    Program::of("newgidmap", "uidmap"),
];

/// Which ids of the host the ids in this process's user namespace are (user_namespaces(7)).
const UID_MAP: &str = "/proc/self/uid_map";
const GID_MAP: &str = "/proc/self/gid_map";

/// A process in namespaces of its own.
#[derive(Debug)]
pub struct Rootless {
    ids: u32,
    why_one_id: Option<String>,
    home: PathBuf,
    host_addresses: Vec<Ipv4Addr>,
    way_out: Mutex<Result<WayOut, String>>,
}

/// Why a process could not move into namespaces of its own.
#[derive(Debug, thiserror::Error)]
pub enum RootlessError {
    /// The kernel refused them.
    #[error(
        "without root a fabric needs a user namespace, which this machine refuses: {0}; {remedy}, or \
         use `sudo ikv-fabric run`", remedy = remedy()
    )]
    Refused(String),
    /// A user's or group's number could not be given.
    #[error("{path}: {source}; use `sudo ikv-fabric run`")]
    Map {
        /// The map's file.
        path: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The loopback device could not be set up.
    #[error("the loopback device of the new network namespace: {0}; use `sudo ikv-fabric run`")]
    Loopback(io::Error),
}

static ENTERED: OnceLock<Rootless> = OnceLock::new();

/// What [`enter`] made; `None` if this process is in the namespaces that it was started in.
pub fn entered() -> Option<&'static Rootless> {
    ENTERED.get()
}

/// Moves this process into namespaces of its own, as their root. Blocks for the two short programs
/// that give it more than one uid and gid.
///
/// # Errors
/// When the machine refuses user namespaces; then nothing has changed. It must have one thread only.
pub fn enter() -> Result<&'static Rootless, RootlessError> {
    let user = User::of_this_process();
    let pid = std::process::id().to_string();
    let mapper = user.prepare_maps(&pid);
    let mut way_out = WayOut::prepare(&pid);
    let host_addresses = addresses_of_host();
    dataplane::sys::netns::leave_as_user().map_err(|error| refused(&error))?;
    let why_one_id = mapper.and_then(map_many).err();
    map_one(UID_MAP, user.uid)?;
    map_one(GID_MAP, user.gid)?;
    let mut netlink = Netlink::open().map_err(RootlessError::Loopback)?;
    // The kernel gives the loopback device of every namespace the number 1.
    links::raise_one(&mut netlink, 1).map_err(RootlessError::Loopback)?;
    if let Ok(way_out) = &mut way_out {
        way_out.start();
    }
    let ids = [UID_MAP, GID_MAP].map(|map| ids::held(&read(Path::new(map))));
    let rootless = Rootless {
        ids: ids[0].min(ids[1]),
        why_one_id,
        home: user.home,
        host_addresses,
        way_out: Mutex::new(way_out),
    };
    Ok(ENTERED.get_or_init(|| rootless))
}

impl Rootless {
    /// How many uids and gids there are, from 0 on. 1: only the user's own, which is 0 here.
    pub fn ids(&self) -> u32 {
        self.ids
    }

    /// Why there is only one id, with the remedy.
    pub fn why_one_id(&self) -> &str {
        self.why_one_id.as_deref().unwrap_or_default()
    }

    /// The user's home folder.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Keeps the fabric's guests from what listens on the host's own addresses: pasta would carry
    /// them there, as it carries its user's programs. Addresses in `range` are the fabric's here.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn shut_host(&self, range: Ipv4Net) -> io::Result<()> {
        let mut netlink = Netlink::open()?;
        let outside = |address: &&Ipv4Addr| !range.contains(*address);
        let mut shut = self.host_addresses.iter().filter(outside);
        shut.try_for_each(|host| address::shut(&mut netlink, *host))
    }

    /// Whether the fabric has a way out to the world now.
    pub fn way_out(&self) -> WayOutState {
        match &mut *self.lock() {
            Ok(way_out) => way_out.state(),
            Err(why) => WayOutState::None(why.clone()),
        }
    }

    /// Ends the way out. It would end with this process, but this waits until it has.
    pub fn close_way_out(&self) {
        *self.lock() = Err("the fabric ends".into());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Result<WayOut, String>> {
        self.way_out
            .lock()
            .expect("no holder of this lock can panic")
    }
}

/// The user who runs this process.
struct User {
    uid: u32,
    gid: u32,
    /// Empty for a uid without an account.
    name: String,
    home: PathBuf,
}

impl User {
    fn of_this_process() -> Self {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let account = Command::new("getent")
            .args(["passwd", "--", &uid.to_string()])
            .output();
        let account = account.map_or(String::new(), |output| {
            String::from_utf8_lossy(&output.stdout).into_owned()
        });
        let mut fields = account.trim_end().split(':');
        let name = fields.next().unwrap_or_default().to_owned();
        let listed = fields.nth(4).filter(|home| !home.is_empty());
        let home = std::env::var_os("HOME").map(PathBuf::from);
        Self {
            uid,
            gid,
            name,
            home: home
                .filter(|home| home.is_absolute())
                .or_else(|| listed.map(PathBuf::from))
                .unwrap_or_else(|| "/nonexistent".into()),
        }
    }

    /// The commands that map this user's id and the subordinate ones, without the process to do it for.
    ///
    /// # Errors
    /// What is missing, with the remedy.
    fn maps(&self) -> Result<[Vec<String>; 2], String> {
        let command = |program: &str, file: &str, own: u32| {
            let Some(path) = program::find(program) else {
                let install = packages::install(&["uidmap"]);
                return Err(format!("{program} is not installed: `{install}`"));
            };
            let range = ids::subordinate(&read(Path::new(file)), &self.name, self.uid);
            let range = range.ok_or_else(|| {
                let numbers = match &*self.name {
                    "" => format!("{}:100000:65536", self.uid),
                    name => format!("{name}:100000:65536"),
                };
                format!(
                    "{file} gives this user no ids: a line such as {numbers} does, with numbers that \
                     no other user has"
                )
            })?;
            let path = path.to_string_lossy().into_owned();
            Ok(std::iter::once(path).chain(ids::map(own, &range)).collect())
        };
        Ok([
            command("newuidmap", "/etc/subuid", self.uid)?,
            command("newgidmap", "/etc/subgid", self.gid)?,
        ])
    }

    /// Prepares newuidmap and newgidmap, which may map more than one's own id.
    ///
    /// # Errors
    /// What is missing, with the remedy.
    fn prepare_maps(&self, pid: &str) -> Result<[Helper; 2], String> {
        let prepare = |command: &[String]| {
            let (program, map) = command.split_first().expect("the program's name");
            let words = [&**program, pid].into_iter();
            let words: Vec<&str> = words.chain(map.iter().map(String::as_str)).collect();
            Helper::prepare(&words).map_err(|error| format!("{program}: {error}"))
        };
        let [uids, gids] = self.maps()?;
        Ok([prepare(&uids)?, prepare(&gids)?])
    }
}

/// The host's addresses, as far as netlink tells, except those that no packet on a link may have.
fn addresses_of_host() -> Vec<Ipv4Addr> {
    let listed = Netlink::open().and_then(|mut netlink| address::list_addresses(&mut netlink));
    let addresses = listed.unwrap_or_default().into_iter();
    let addresses = addresses.map(|(_, address)| address.addr());
    addresses.filter(|address| !address.is_loopback()).collect()
}

/// Lets the two programs map this process's ids.
fn map_many(mapper: [Helper; 2]) -> Result<(), String> {
    for mut helper in mapper {
        helper.start().map_err(|error| error.to_string())?;
        helper.finish()?;
    }
    Ok(())
}

/// Makes the user's own id 0 in this map, unless ids are mapped already.
fn map_one(path: &'static str, own: u32) -> Result<(), RootlessError> {
    if ids::held(&read(Path::new(path))) > 0 {
        return Ok(());
    }
    let failed = |source| RootlessError::Map { path, source };
    if path == GID_MAP {
        // The kernel asks for this: a user who could drop a group could get past files that keep
        // this group out.
        fs::write("/proc/self/setgroups", "deny").map_err(failed)?;
    }
    fs::write(path, format!("0 {own} 1")).map_err(failed)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Whether each program of a fabric of this user would have a uid of its own.
///
/// # Errors
/// What is missing, with the remedy.
pub fn has_many_ids() -> Result<(), String> {
    User::of_this_process().maps().map(drop)
}

/// Whether this process is the host's root, and not a user's in namespaces of their own.
pub fn is_root_of_host() -> bool {
    geteuid().is_root() && entered().is_none()
}

/// Whether what makes a way out is installed.
///
/// # Errors
/// What to install.
pub fn has_way_out() -> Result<(), String> {
    way_out::pasta().map(drop)
}

/// Whether users may make user namespaces here: tries it, in a child.
///
/// # Errors
/// What keeps them from it, with the remedy.
pub fn allowed() -> Result<(), (String, String)> {
    let tried = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--", "true"])
        .output();
    let why = match tried {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("unshare: {error}"),
    };
    Err((
        format!("without root a fabric needs a user namespace, which this machine refuses ({why})"),
        format!("{}, or `sudo ikv-fabric run`", remedy()),
    ))
}

/// The kernel's reason. Its number for a limit is that of a full disk.
fn refused(error: &io::Error) -> RootlessError {
    RootlessError::Refused(match error.kind() {
        io::ErrorKind::StorageFull => "no more of them are allowed".into(),
        _ => error.to_string(),
    })
}

/// Which setting refuses user namespaces, as the command that changes it.
fn remedy() -> String {
    let is = |key: &str, value: &str| {
        read(&Path::new("/proc/sys").join(key.replace('.', "/"))).trim() == value
    };
    let settings = [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "10000"),
        ("user.max_net_namespaces", "0", "10000"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ];
    let refusing = settings.iter().find(|(key, refuses, _)| is(key, refuses));
    refusing.map_or_else(
        || "allow user namespaces to users (a container or chroot may refuse them)".to_owned(),
        |(key, _, allows)| format!("`sudo sysctl {key}={allows}`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_an_account_or_a_home() {
        let user = User::of_this_process();
        assert!(user.home.is_absolute(), "{}", user.home.display());
        assert!(entered().is_none());
    }
}
