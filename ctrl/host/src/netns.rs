//! Tells network namespaces apart, so that a journal is not undone in another one.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What identifies a network namespace among all that existed since the machine started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsId {
    /// Identifies the machine's start (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// The inode of `/proc/thread-self/ns/net`. The kernel reuses it once the namespace is gone.
    pub inode: u64,
    /// The kernel's own number for it, which is never reused; `None` before Linux 5.14.
    pub cookie: Option<u64>,
}

/// Where a namespace that a journal names is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// It is the one this thread is in.
    Here,
    /// It exists, and this path leads into it (`nsenter --net=PATH`).
    Elsewhere(PathBuf),
    /// The kernel has removed it, with its devices, routes and rules.
    Gone,
}

impl NetnsId {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        // Only a socket option reveals the cookie.
        let cookie = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
            .ok()
            .and_then(|socket| dataplane::sys::netns::cookie(&socket).ok());
        Ok(Self {
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")?
                .trim()
                .to_owned(),
            inode: fs::metadata("/proc/thread-self/ns/net")?.ino(),
            cookie,
        })
    }

    /// Looks for this namespace: here, in `/run/netns`, and among the processes.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub(crate) fn whereabouts(&self) -> io::Result<Whereabouts> {
        let here = Self::current()?;
        if *self == here {
            return Ok(Whereabouts::Here);
        }
        // Our own inode number with another cookie: the number was reused.
        if self.boot != here.boot || self.inode == here.inode {
            return Ok(Whereabouts::Gone);
        }
        let named = entries("/run/netns").into_iter();
        let processes = entries("/proc").into_iter().map(|path| path.join("ns/net"));
        let found = named
            .chain(processes)
            .find(|path| fs::metadata(path).is_ok_and(|found| found.ino() == self.inode));
        Ok(found.map_or(Whereabouts::Gone, Whereabouts::Elsewhere))
    }
}

fn entries(directory: impl AsRef<Path>) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .map(|entries| {
            entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .collect()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_namespace_is_here() {
        assert_eq!(
            NetnsId::current().unwrap().whereabouts().unwrap(),
            Whereabouts::Here
        );
    }

    #[test]
    fn an_earlier_boot_and_a_reused_inode_are_gone() {
        let here = NetnsId::current().unwrap();
        let earlier = NetnsId {
            boot: "another".into(),
            ..here.clone()
        };
        assert_eq!(earlier.whereabouts().unwrap(), Whereabouts::Gone);
        let reused = NetnsId {
            cookie: Some(u64::MAX),
            ..here
        };
        assert_eq!(reused.whereabouts().unwrap(), Whereabouts::Gone);
    }

    #[test]
    fn an_inode_without_a_namespace_is_gone() {
        let here = NetnsId::current().unwrap();
        let nowhere = NetnsId {
            inode: 1,
            cookie: Some(u64::MAX),
            ..here
        };
        assert_eq!(nowhere.whereabouts().unwrap(), Whereabouts::Gone);
    }
}
