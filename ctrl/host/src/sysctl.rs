//! Kernel settings that the fabric changes, and those that the kernel changes along with them.
//!
//! Writing `net.ipv4.ip_forward` also writes the `forwarding` of every device and flips
//! `conf.all.accept_redirects` (`inet_forward_change` in the kernel's devinet.c). These are
//! recorded too: switching forwarding back off alone would leave a hardened host accepting redirects.
//!
//! `/proc/sys/net` shows the network namespace of the thread that opens a file in it.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The only part of /proc/sys that is ever written.
const ROOT: &str = "/proc/sys/net/";

/// One kernel setting and its value, as text without the line's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// `net.` key as a path below `/proc/sys/net/`: `ipv4/ip_forward`.
    pub key: String,
    /// The value before the fabric changed it.
    pub value: String,
}

/// A protocol that the host can forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `net.ipv4.ip_forward`
    Ipv4,
    /// `net.ipv6.conf.all.forwarding`: the host then ignores router advertisements.
    Ipv6,
}

impl Family {
    /// The setting that switches forwarding, as a path below `/proc/sys/net/`.
    pub fn switch(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4/ip_forward",
            Self::Ipv6 => "ipv6/conf/all/forwarding",
        }
    }

    fn devices(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4/conf",
            Self::Ipv6 => "ipv6/conf",
        }
    }

    /// The devices that forwarded by a setting of their own while forwarding was off, by what
    /// [`before_switching_on`](Self::before_switching_on) has found.
    pub(crate) fn forwarding_devices(self, before: &[Setting]) -> Vec<String> {
        let of_device = |setting: &Setting| {
            let rest = setting.key.strip_prefix(self.devices())?;
            let device = rest.strip_prefix('/')?.strip_suffix("/forwarding")?;
            let named = !["all", "default"].contains(&device);
            (named && setting.value == "1").then(|| device.to_owned())
        };
        before.iter().filter_map(of_device).collect()
    }

    /// The present values of what switching forwarding on changes: the switch itself first, then its
    /// side effects. Empty if forwarding is on already.
    ///
    /// # Errors
    /// When the kernel lacks the protocol.
    pub(crate) fn before_switching_on(self) -> io::Result<Vec<Setting>> {
        let switch = read(self.switch())?;
        if switch != "0" {
            return Ok(Vec::new());
        }
        let mut settings = vec![Setting {
            key: self.switch().to_owned(),
            value: switch,
        }];
        let mut devices: Vec<String> = fs::read_dir(Path::new(ROOT).join(self.devices()))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|device| device != "all")
            .collect();
        devices.sort_unstable();
        let mut keys: Vec<String> = devices
            .iter()
            .map(|d| format!("{}/{d}/forwarding", self.devices()))
            .collect();
        if self == Self::Ipv4 {
            keys.push("ipv4/conf/all/accept_redirects".to_owned());
        }
        for key in keys {
            // A device may go away between the listing and the reading.
            if let Ok(value) = read(&key) {
                settings.push(Setting { key, value });
            }
        }
        Ok(settings)
    }
}

/// The value of a setting below `/proc/sys/net/`.
///
/// # Errors
/// `NotFound` if the kernel does not have the setting.
pub fn read(key: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(key)?)?.trim_end().to_owned())
}

/// Changes a setting below `/proc/sys/net/`.
///
/// # Errors
/// `PermissionDenied` if the key leads elsewhere or the caller is not root of the namespace.
pub fn write(key: &str, value: &str) -> io::Result<()> {
    fs::write(path(key)?, value)
}

/// Puts `saved` back if its first setting still has the value `ours`. If another program changed it
/// meanwhile, everything is left as it is. Settings that no longer exist are skipped.
///
/// # Errors
/// When a setting that exists cannot be written.
pub fn restore(saved: &[Setting], ours: &str) -> io::Result<()> {
    let Some((switch, others)) = saved.split_first() else {
        return Ok(());
    };
    if read(&switch.key)? != ours {
        return Ok(());
    }
    write(&switch.key, &switch.value)?;
    for setting in others {
        if read(&setting.key).is_ok_and(|now| now != setting.value) {
            write(&setting.key, &setting.value)?;
        }
    }
    Ok(())
}

/// The setting's file. The key may come from a journal, which must not name a file outside of the tree.
fn path(key: &str) -> io::Result<std::path::PathBuf> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !key.split('/').all(plain) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("`{key}` does not name a setting below {ROOT}"),
        ));
    }
    Ok(Path::new(ROOT).join(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cannot_leave_the_tree() {
        for key in [
            "../kernel/core_pattern",
            "/etc/passwd",
            "ipv4//ip_forward",
            "",
            "ipv4/./x",
        ] {
            assert_eq!(
                read(key).unwrap_err().kind(),
                io::ErrorKind::PermissionDenied,
                "{key}"
            );
        }
    }

    #[test]
    fn a_setting_reads_as_text() {
        assert!(["0", "1"].contains(&read(Family::Ipv4.switch()).unwrap().as_str()));
    }
}
