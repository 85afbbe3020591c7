//! The interfaces: which new lines of network.batch to run, and which lines undo the old ones.

use super::{Difference, Unchangeable, at_start};
use crate::conf::Nic;

/// Lines for `ip -batch`. The caller unplugs the NICs `gone` afterwards.
pub(super) fn change(lines: &Difference<&str>, gone: &[Nic]) -> Result<Vec<String>, Unchangeable> {
    let refused = |line: &str| at_start("etc/ikv/network.batch", line);
    let remade = |device: &str| {
        let mut created = lines.added.iter().filter_map(created_device);
        created.any(|new| new == device)
    };
    let leaves = |device: &str| gone.iter().any(|nic| nic.name.as_str() == device);
    let deleted: Vec<_> = lines.removed.iter().filter_map(created_device).collect();
    let mut batch = Vec::new();
    // In reverse order of creation. The kernel deletes a device's addresses with the device.
    for line in lines.removed.iter().rev() {
        let (device, verb) = device_and_verb(line);
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

/// The device that a line creates, if it creates one.
fn created_device<'a>(line: &&'a str) -> Option<&'a str> {
    line.starts_with("link add ")
        .then(|| device_and_verb(line).0)
}

/// The device that a line is about, and the command: its first two words, such as `link add`.
fn device_and_verb(line: &str) -> (&str, &str) {
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
