//! The interfaces: which lines of network.batch to run, and what takes back the others.

use super::{Difference, Unchangeable, at_start};
use crate::conf::Nic;

/// Lines for `ip -batch`. `gone` are the NICs that are taken away afterwards.
pub(super) fn change(lines: &Difference<&str>, gone: &[Nic]) -> Result<Vec<String>, Unchangeable> {
    let refused = |line: &str| at_start("etc/ikv/network.batch", line);
    let remade = |device: &str| lines.added.iter().filter_map(made).any(|new| new == device);
    let leaves = |device: &str| gone.iter().any(|nic| nic.name.as_str() == device);
    let deleted: Vec<_> = lines.removed.iter().filter_map(made).collect();
    let mut batch = Vec::new();
    // Last made, first deleted; what hangs on a deleted device goes with it.
    for line in lines.removed.iter().rev() {
        let (device, verb) = words(line);
        match verb {
            "link add" if !remade(device) => batch.push(format!("link del dev {device}")),
            "address add" if deleted.contains(&device) && !remade(device) => {}
            "link set" if leaves(device) => batch.push(format!("link set dev {device} down")),
            _ => return Err(refused(line)),
        }
    }
    batch.extend(lines.added.iter().map(|line| (*line).to_owned()));
    Ok(batch)
}

/// The device that a line makes.
fn made<'a>(line: &&'a str) -> Option<&'a str> {
    line.starts_with("link add ").then(|| words(line).0)
}

/// The device that a line is about, and what it does to it.
fn words(line: &str) -> (&str, &str) {
    let after = |key: &str| line.split_once(key).map(|(_, rest)| rest);
    let key = if line.starts_with("link add ") {
        " name "
    } else {
        " dev "
    };
    let device = after(key).unwrap_or_default().split(' ').next();
    let verb = line
        .match_indices(' ')
        .nth(1)
        .map_or(line, |(at, _)| &line[..at]);
    (device.unwrap_or_default(), verb)
}
