//! Everything of a host that a fabric might change, as text to compare.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::Netns;

/// What is asked, by name.
const QUESTIONS: [(&str, &str); 7] = [
    ("links", "ip link show"),
    ("addresses", "ip address show"),
    ("IPv4 routes", "ip -4 route show table all"),
    ("IPv6 routes", "ip -6 route show table all"),
    ("rules", "ip rule show"),
    ("nftables", "nft list ruleset"),
    (
        "sysctls",
        "grep -rs ^ /proc/sys/net --exclude=*count --exclude=*stat* --exclude=*random*",
    ),
];

/// A host's state at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostState(BTreeMap<&'static str, String>);

impl HostState {
    /// Of a namespace, and of the folder in which a fabric keeps its files.
    pub fn of(netns: &Netns, folder: &Path) -> Self {
        let mut state: BTreeMap<_, _> = QUESTIONS
            .iter()
            .map(|(name, line)| (*name, answer(netns, line)))
            .collect();
        state.insert("files", files(folder).join("\n"));
        state.insert("switches' processes", switch_processes(folder).join("\n"));
        HostState(state)
    }

    /// What is not as in `before`, one line each; empty if all is the same.
    pub fn differences(&self, before: &HostState) -> Vec<String> {
        let mut differences = Vec::new();
        for (name, now) in &self.0 {
            let then = &before.0[name];
            let mut tell = |sign, from: &str, other: &str| {
                let gone = from
                    .lines()
                    .filter(|line| !other.lines().any(|o| o == *line));
                differences.extend(gone.map(|line| format!("{name}: {sign} {line}")));
            };
            tell('-', then, now);
            tell('+', now, then);
        }
        differences
    }
}

fn answer(netns: &Netns, line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut command = netns.command(words.next().expect("a program"));
    // grep's status tells of files that may not be read, too.
    let output = command.args(words).output().expect("ip can be started");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        found.push(path.display().to_string());
        if path.is_dir() {
            found.extend(files(&path));
        }
    }
    found.sort();
    found
}

/// The QEMUs of a fabric's switches, by process number: each is marked in its environment
/// with its run folder, which lies in `folder`.
pub(crate) fn switch_processes(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        let text = String::from_utf8_lossy(&environment);
        let mark = |line: &str| line.starts_with("IKV_FABRIC_VM=") && line.contains(&folder);
        if text.split('\0').any(mark) {
            found.push(process.file_name().to_string_lossy().into_owned());
        }
    }
    found
}
