//! A cgroup for a child process, so that it cannot take more memory or start more tasks than it needs:
//! [`Cgroups`].
//!
//! A cgroup is made below the one that the fabric itself is in (version 1) or beside it (version 2,
//! where a cgroup that has processes can have no limited children), so whatever limits the fabric's
//! surroundings limits its children, too. Its name says which process made it: no journal is needed to
//! find what a killed fabric has left, and only an empty cgroup can be removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::journal::Identity;

/// What is limited.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// The start of the name of each cgroup of a fabric.
const PREFIX: &str = "ikv-fabric.";

/// The deepest cgroups that are searched for ours.
const MAX_DEPTH: usize = 12;

/// Where this process can make cgroups that limit memory and tasks.
#[derive(Debug, Clone)]
pub struct Cgroups {
    /// The folder below which each cgroup is made; the same one twice for version 2.
    parents: [PathBuf; 2],
    unified: bool,
    identity: Identity,
}

/// The cgroup of one child. It is removed when this is dropped; if the child has not ended by then, by
/// [`remove_unused`].
#[derive(Debug)]
pub struct Cgroup(Vec<PathBuf>);

/// A mounted cgroup file system.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// Which cgroup is at `at`.
    root: PathBuf,
    at: PathBuf,
    /// `None`: version 2.
    controllers: Option<Vec<String>>,
}

impl Cgroups {
    /// Finds out where cgroups can be made. It changes nothing.
    ///
    /// # Errors
    /// Why none can be made here, in words.
    pub fn find() -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|e| format!("{path}: {e}"));
        let mounts = mounts(&read("/proc/self/mountinfo")?);
        let own = read("/proc/self/cgroup")?;
        let identity = Identity::current().map_err(|e| e.to_string())?;
        let version_1 = CONTROLLERS.map(|controller| version_1(&mounts, &own, controller));
        let (parents, unified) = if let [Some(memory), Some(pids)] = version_1 {
            ([memory, pids], false)
        } else {
            let parent = version_2(&mounts, &own)?;
            ([parent.clone(), parent], true)
        };
        for parent in &parents {
            access(parent, Access::WRITE_OK | Access::EXEC_OK)
                .map_err(|e| format!("{}: {}", parent.display(), io::Error::from(e)))?;
        }
        Ok(Self {
            parents,
            unified,
            identity,
        })
    }

    /// Puts a process into a cgroup of its own, with everything that it will start.
    ///
    /// # Errors
    /// When the kernel refuses, with the file or folder.
    pub fn confine(&self, name: &str, pid: u32, memory: u64, tasks: u32) -> io::Result<Cgroup> {
        let Identity { pid: own, started } = self.identity;
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = name.chars().map(plain).collect();
        let name = format!("{PREFIX}{own}.{started}.{name}");
        let mut made = Cgroup(Vec::new());
        let limits = [
            (
                if self.unified {
                    "memory.max"
                } else {
                    "memory.limit_in_bytes"
                },
                memory,
            ),
            ("pids.max", tasks.into()),
        ];
        for (parent, (file, limit)) in self.parents.iter().zip(limits) {
            let folder = parent.join(&name);
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(at(&folder, &error));
                }
                _ => made.0.push(folder.clone()),
            }
            write(&folder.join(file), limit)?;
            write(&folder.join("cgroup.procs"), pid.into())?;
        }
        Ok(made)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for folder in &self.0 {
            // It fails for as long as a process is in there.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn write(path: &Path, value: u64) -> io::Result<()> {
    fs::write(path, value.to_string()).map_err(|error| at(path, &error))
}

/// Removes the empty cgroups of this process and of fabrics that have ended.
pub fn remove_unused() {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mount in mounts(&text) {
        let limits = |all: &Vec<String>| all.iter().any(|one| CONTROLLERS.contains(&&**one));
        if mount.controllers.as_ref().is_none_or(limits) {
            remove_below(&mount.at, MAX_DEPTH);
        }
    }
}

fn remove_below(folder: &Path, depth: usize) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        match entry.file_name().to_str().and_then(maker) {
            Some(maker) if maker.pid != std::process::id() && maker.is_running() => {}
            Some(_) => {
                let _ = fs::remove_dir(entry.path());
            }
            None if depth > 0 => remove_below(&entry.path(), depth - 1),
            None => {}
        }
    }
}

/// The process that made the cgroup of this name. `None` if it is not a fabric's.
fn maker(name: &str) -> Option<Identity> {
    let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '.');
    let (pid, started) = (parts.next()?, parts.next()?);
    Some(Identity {
        pid: pid.parse().ok()?,
        started: started.parse().ok()?,
    })
}

/// The cgroup file systems in the text of /proc/self/mountinfo.
fn mounts(mountinfo: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (mount, source) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, at) = (mount.next()?.into(), mount.next()?.into());
        let mut source = source.split(' ');
        let controllers = match source.next()? {
            "cgroup2" => None,
            "cgroup" => Some(source.nth(1)?.split(',').map(Into::into).collect()),
            _ => return None,
        };
        Some(Mount {
            root,
            at,
            controllers,
        })
    };
    mountinfo.lines().filter_map(parse).collect()
}

/// The path that /proc/self/cgroup names on the first line for which `wanted` holds.
fn path_of(own: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<&Path> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        wanted(number, controllers).then_some(Path::new(path))
    })
}

fn version_1(mounts: &[Mount], own: &str, controller: &str) -> Option<PathBuf> {
    let has = |mount: &&Mount| {
        let all = mount.controllers.iter().flatten();
        all.into_iter().any(|one| one == controller)
    };
    let mount = mounts.iter().find(has)?;
    let path = path_of(own, |_, all| all.split(',').any(|one| one == controller))?;
    Some(mount.at.join(path.strip_prefix(&mount.root).ok()?))
}

fn version_2(mounts: &[Mount], own: &str) -> Result<PathBuf, String> {
    let mount = mounts.iter().find(|mount| mount.controllers.is_none());
    let path = path_of(own, |number, _| number == "0");
    let (Some(mount), Some(path)) = (mount, path) else {
        return Err("no cgroup file system is mounted".into());
    };
    let below = path.strip_prefix(&mount.root);
    let below = below.map_err(|_| "the fabric's own cgroup is not mounted".to_owned())?;
    let parent = mount.at.join(below.parent().unwrap_or(below));
    let file = parent.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let enabled: Vec<_> = enabled.split_whitespace().collect();
    match CONTROLLERS.iter().find(|one| !enabled.contains(one)) {
        Some(missing) => Err(format!("{} lacks {missing}", file.display())),
        None => Ok(parent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION_1: &str = "\
29 23 0:25 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory
30 23 0:26 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
31 23 0:27 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
32 23 0:28 / /tmp rw - tmpfs tmpfs rw";

    #[test]
    fn version_1_is_used_where_it_has_the_controllers() {
        let mounts = mounts(VERSION_1);
        assert_eq!(mounts.len(), 3);
        let own = "9:name=systemd:/\n8:pids:/\n4:memory:/a/b\n0::/c";
        let found = CONTROLLERS.map(|one| version_1(&mounts, own, one));
        let expected = ["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/pids/"];
        assert_eq!(found, expected.map(|path| Some(path.into())));
        assert_eq!(version_1(&mounts, own, "cpu"), None);
    }

    #[test]
    fn version_2_makes_them_beside_the_fabrics_own() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().display();
        let mounts = mounts(&format!("31 23 0:27 / {at} rw - cgroup2 cgroup2 rw"));
        let slice = root.path().join("user.slice");
        fs::create_dir(&slice).unwrap();
        let control = slice.join("cgroup.subtree_control");
        fs::write(&control, "cpu memory pids\n").unwrap();
        let own = "0::/user.slice/session-1.scope";
        assert_eq!(version_2(&mounts, own), Ok(slice));
        fs::write(&control, "cpu memory\n").unwrap();
        let error = version_2(&mounts, own).unwrap_err();
        assert_eq!(error, format!("{} lacks pids", control.display()));
        assert!(version_2(&[], own).is_err());
    }

    #[test]
    fn the_name_says_who_made_it() {
        let expected = Identity {
            pid: 4711,
            started: 86_420,
        };
        assert_eq!(maker("ikv-fabric.4711.86420.leaf1"), Some(expected));
        for other in ["ikv-fabric.service", "user.slice", "ikv-fabric.1.x.leaf1"] {
            assert_eq!(maker(other), None, "{other}");
        }
    }
}
