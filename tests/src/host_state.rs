//! Everything in a namespace that a fabric could change, to compare it before and after.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::{Netns, shell};

/// Sysctls whose values change by themselves, or that can only be written.
const RESTLESS: [&str; 2] = ["netfilter/nf_conntrack_count", "ipv4/route/flush"];

/// The most differences that a message lists.
const SHOWN: usize = 12;

/// The state of a namespace's network, and optionally of a folder and of the processes of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostState(Vec<(&'static str, BTreeSet<String>)>);

impl HostState {
    /// The state of the namespace, of the processes in it, and of `folder`, in which the fabric
    /// keeps its socket, lock and journal. The folder need not exist yet.
    pub fn of(netns: &Netns, folder: &Path) -> Self {
        let mut state = netns.enter(Self::of_network);
        state.0.push(("files", files(folder)));
        state.0.push(("processes", processes(netns, folder)));
        state
    }

    /// The network of the namespace that this thread is in.
    pub fn of_network() -> Self {
        let ip = |arguments: &str| lines(&shell(&format!("ip {arguments}")));
        // A rule that was removed and added again has another handle; counters keep counting.
        let rules = lines(&shell("nft --handle --stateless list ruleset"));
        HostState(vec![
            ("links", links()),
            ("addresses", ip("-d -o address show")),
            ("IPv4 routes", ip("-4 route show table all")),
            ("IPv6 routes", ip("-6 route show table all")),
            ("IPv4 rules", ip("-4 rule show")),
            ("IPv6 rules", ip("-6 rule show")),
            ("nftables", rules),
            ("neighbours", neighbours()),
            ("sysctls", sysctls()),
        ])
    }

    /// The lines of one part: `links`, `sysctls` …
    ///
    /// # Panics
    /// When no part has that name.
    pub fn part(&self, name: &str) -> &BTreeSet<String> {
        let found = self.0.iter().find(|(part, _)| *part == name);
        &found.expect("a part of the state").1
    }

    /// All differences, a line each: `+` for what is new, `-` for what is gone.
    pub fn differences(&self, after: &HostState) -> Vec<String> {
        let mut found = Vec::new();
        for ((part, before), (_, after)) in self.0.iter().zip(&after.0) {
            let gone = before.difference(after).map(|line| ("-", line));
            let new = after.difference(before).map(|line| ("+", line));
            found.extend(
                gone.chain(new)
                    .map(|(sign, line)| format!("{sign} {part}: {line:.300}")),
            );
        }
        found
    }

    /// Asserts that both states are the same.
    ///
    /// # Panics
    /// With the differences, if they are not.
    #[track_caller]
    pub fn assert_unchanged(&self, after: &HostState, since: &str) {
        let differences = self.differences(after);
        let shown = &differences[..differences.len().min(SHOWN)];
        assert!(
            differences.is_empty(),
            "the host is not as before, {since}: {} differences, such as\n{}",
            differences.len(),
            shown.join("\n")
        );
    }
}

/// Leaves out the timers of bridges, which run.
fn links() -> BTreeSet<String> {
    let text = shell("ip -d -o link show");
    let steady = text.lines().map(|line| {
        let mut words = line.split_whitespace();
        let mut steady = Vec::new();
        while let Some(word) = words.next() {
            if word.ends_with("_timer") {
                words.next();
            } else {
                steady.push(word);
            }
        }
        steady.join(" ")
    });
    steady.collect()
}

/// Entries on the fabric's devices, and permanent ones. The kernel makes others as it needs them.
fn neighbours() -> BTreeSet<String> {
    let mut entries = lines(&shell("ip neigh show"));
    entries.retain(|entry| entry.contains(" dev ik") || entry.ends_with("PERMANENT"));
    entries
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// All sysctls of this thread's namespace, which `/proc/sys/net` shows.
fn sysctls() -> BTreeSet<String> {
    let root = Path::new("/proc/sys/net");
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let key = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
            if !RESTLESS.contains(&&*key) {
                // Some cannot be read: their error is their value.
                let value = fs::read_to_string(&path).unwrap_or_else(|error| error.to_string());
                found.insert(format!("{key} = {}", value.trim_end()));
            }
        }
    }
    found
}

fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut paths = vec![folder.to_owned()];
    while let Some(path) = paths.pop() {
        let Ok(meta) = path.symlink_metadata() else {
            continue;
        };
        let name = path.display();
        let (mode, user, group) = (meta.mode(), meta.uid(), meta.gid());
        found.insert(format!("{name} {mode:o} {user}:{group}"));
        if meta.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            paths.extend(entries.map(|entry| entry.path()));
        }
    }
    found
}

/// Processes in the namespace, and processes that have the folder in their arguments.
fn processes(netns: &Netns, folder: &Path) -> BTreeSet<String> {
    let namespace = fs::metadata(netns.path()).map(|meta| meta.ino()).ok();
    let folder = folder.display().to_string();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let process = entry.path();
        let inside =
            fs::metadata(process.join("ns/net")).is_ok_and(|ns| Some(ns.ino()) == namespace);
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if inside || line.contains(&folder) {
            found.insert(format!("{} {line}", entry.file_name().display()));
        }
    }
    found
}
