//! The files with which `ssh leaf3` asks no question: from the host, and from switch to switch by
//! name, loopback or link-local address.
//!
//! No certificate authority: every host key is known before the switch has booted, so plain
//! `known_hosts` lines bind each name and address to exactly one key. OpenSSH looks a link-local
//! address up as typed, with its scope (`fe80::1%ens5`); the pattern `fe80::1%*` matches any scope
//! (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};

use crate::keys::{FabricKeys, KeyPair};
use crate::seed::SeedFile;

/// The longest file of keys that is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// The names and addresses of a switch for SSH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Node name.
    pub name: String,
    /// The address to which `ssh NAME` connects: the loopback.
    pub address: IpAddr,
    /// Further addresses (`internet` on the host link, the DHCP and VLAN gateways).
    pub others: Vec<IpAddr>,
    /// Link-local addresses of the ports that lead to other switches.
    pub link_locals: Vec<Ipv6Addr>,
}

/// Why a list of authorized keys was refused.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizedKeysError {
    /// An entry is neither a key nor a file that can be read.
    #[error("[ssh] authorized_keys: cannot read {0}: {1}; give a key or an absolute path")]
    File(PathBuf, std::io::Error),
    /// A line is not one of authorized_keys(5).
    // What the line holds is nobody's business: the file may be a link to anything.
    #[error(
        "[ssh] authorized_keys: {origin}, line {line}, has no public key: correct the line, or name \
         other files in ssh.authorized_keys"
    )]
    Line {
        /// The file, or `the configuration`.
        origin: String,
        /// The line's number, from 1.
        line: usize,
    },
}

/// Expands the configuration's `authorized_keys`, each a key line or the path of a file of them,
/// into checked lines.
///
/// # Errors
/// See [`AuthorizedKeysError`].
pub fn authorized_keys(entries: &[String]) -> Result<Vec<String>, AuthorizedKeysError> {
    let mut lines = Vec::new();
    for entry in entries {
        let (origin, text) = if has_key(entry) {
            ("the configuration".into(), entry.clone())
        } else {
            let path = Path::new(entry);
            let text = read(path).map_err(|error| AuthorizedKeysError::File(path.into(), error))?;
            (entry.clone(), text)
        };
        let lines_of = text.lines().map(str::trim).zip(1..);
        for (line, number) in lines_of.filter(|(l, _)| !l.is_empty() && !l.starts_with('#')) {
            if !has_key(line) {
                let line = number;
                return Err(AuthorizedKeysError::Line { origin, line });
            }
            lines.push(line.into());
        }
    }
    Ok(lines)
}

/// Reads a file of keys. It waits for nothing but the file system, and changes nothing, whatever the
/// path leads to.
fn read(path: &Path) -> io::Result<String> {
    // First as a mere place: opening a FIFO waits, and opening some devices does something.
    let place = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&place)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is not a regular file"));
    }
    let file = File::open(format!("/proc/thread-self/fd/{}", place.as_raw_fd()))?;
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::other("it has more than 64 KiB"));
    }
    Ok(text)
}

/// Whether one of the words is a key type and the next one a blob that begins with that very
/// type (RFC 4253 section 6.6). Options may stand before them.
fn has_key(line: &str) -> bool {
    let words: Vec<_> = line.split_whitespace().collect();
    words.windows(2).any(|pair| {
        let (kind, blob) = (pair[0], STANDARD.decode(pair[1]).unwrap_or_default());
        let length = u32::try_from(kind.len()).unwrap_or(u32::MAX).to_be_bytes();
        kind.contains('-')
            && blob
                .strip_prefix(&length[..])
                .is_some_and(|rest| rest.starts_with(kind.as_bytes()))
    })
}

/// One `known_hosts` line for each switch that has a key.
pub fn known_hosts(keys: &FabricKeys, hosts: &[Host]) -> String {
    let mut text = String::new();
    for host in hosts {
        let Some(key) = keys.hosts.get(&host.name) else {
            continue;
        };
        let mut names = vec![host.name.clone(), host.address.to_string()];
        names.extend(host.others.iter().map(ToString::to_string));
        names.extend(
            host.link_locals
                .iter()
                .map(|address| format!("{address}%*")),
        );
        writeln!(text, "{} {}", names.join(","), key.public).expect("a String takes any write");
    }
    text
}

/// ssh_config(5) for the host's side. Include it, or pass it with `ssh -F`.
pub fn client_config(keys: &FabricKeys, hosts: &[Host], known_hosts: &Path) -> String {
    let mut text = String::new();
    for host in hosts {
        write!(
            text,
            "Host {}\n    HostName {}\n    User root\n    IdentityFile {}\n    IdentitiesOnly yes\n    \
             UserKnownHostsFile {}\n    GlobalKnownHostsFile none\n    StrictHostKeyChecking yes\n    \
             LogLevel ERROR\n",
            host.name,
            host.address,
            quoted(&keys.identity()),
            quoted(known_hosts),
        )
        .expect("a String takes any write");
    }
    text
}

/// A path as a quoted value of ssh_config(5), where `%` starts a token.
fn quoted(path: &Path) -> String {
    format!(
        "\"{}\"",
        path.display()
            .to_string()
            .replace('%', "%%")
            .replace('"', "\\\"")
    )
}

/// The files that SSH needs in the switch `name`: who may log in, the switch's host key, and the key and
/// known hosts for logins to other switches. `known_hosts` is the text of [`known_hosts`].
///
/// Empty for a switch without a key.
pub fn seed_files(
    keys: &FabricKeys,
    name: &str,
    authorized: &[String],
    known_hosts: &str,
) -> Vec<SeedFile> {
    let Some(host) = keys.hosts.get(name) else {
        return Vec::new();
    };
    let lines: Vec<_> = authorized
        .iter()
        .chain([&keys.fabric.public])
        .map(String::as_str)
        .collect();
    let file = |path: &str, mode, text: &str| SeedFile {
        path: path.into(),
        mode,
        bytes: text.into(),
    };
    let public = |key: &KeyPair| format!("{}\n", key.public);
    vec![
        file(
            "root/.ssh/authorized_keys",
            0o600,
            &(lines.join("\n") + "\n"),
        ),
        file("root/.ssh/id_ed25519", 0o600, &keys.fabric.private),
        file("root/.ssh/id_ed25519.pub", 0o644, &public(&keys.fabric)),
        file("etc/ssh/ssh_host_ed25519_key", 0o600, &host.private),
        file("etc/ssh/ssh_host_ed25519_key.pub", 0o644, &public(host)),
        file("etc/ssh/ssh_known_hosts", 0o644, known_hosts),
    ]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0cFWnMEdDgHpO0jXsq0JiQ7m8bZ2lmiwwzvjMxbmS3 me@here";

    fn fixture() -> (tempfile::TempDir, FabricKeys, Vec<Host>) {
        let dir = tempfile::tempdir().unwrap();
        let keys = FabricKeys::load_or_create(dir.path(), ["leaf1", "leaf2"], None).unwrap();
        let host = |name: &str, last: u8| Host {
            name: name.into(),
            address: [192, 168, 98, last].into(),
            others: vec![[192, 168, 110, last].into()],
            link_locals: vec!["fe80::a00:27ff:fe06:ac41".parse().unwrap()],
        };
        (
            dir,
            keys,
            vec![host("leaf1", 4), host("leaf2", 5), host("unknown", 6)],
        )
    }

    #[test]
    fn known_hosts_bind_names_and_addresses_to_one_key() {
        let (_dir, keys, hosts) = fixture();
        let text = known_hosts(&keys, &hosts);
        let expected = format!(
            "leaf1,192.168.98.4,192.168.110.4,fe80::a00:27ff:fe06:ac41%* {}\n",
            keys.hosts["leaf1"].public
        );
        assert!(text.starts_with(&expected), "{text}");
        assert_eq!(
            text.lines().count(),
            2,
            "a switch without a key has no line"
        );
    }

    /// Output of one of OpenSSH's programs, which must be installed (openssh-client).
    fn openssh(program: &str, args: &[&str]) -> String {
        let output = std::process::Command::new(program)
            .args(args)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn openssh_finds_every_name_and_only_those() {
        let (dir, keys, hosts) = fixture();
        let path = dir.path().join("known hosts").display().to_string();
        fs::write(&path, known_hosts(&keys, &hosts)).unwrap();
        let find = |name: &str| openssh("ssh-keygen", &["-F", name, "-f", &path]);
        for name in [
            "leaf1",
            "192.168.98.4",
            "192.168.110.4",
            "fe80::a00:27ff:fe06:ac41%ens5",
        ] {
            assert!(find(name).contains(&keys.hosts["leaf1"].public), "{name}");
        }
        for name in [
            "leaf",
            "leaf11",
            "192.168.98.40",
            "fe80::a00:27ff:fe06:ac4%ens5",
            "::1",
        ] {
            assert_eq!(find(name), "", "{name}");
        }
        let config = dir.path().join("config").display().to_string();
        fs::write(&config, client_config(&keys, &hosts, Path::new(&path))).unwrap();
        let shown = openssh("ssh", &["-G", "-F", &config, "leaf2"]);
        for line in [
            "hostname 192.168.98.5",
            "user root",
            &format!("userknownhostsfile {path}"),
            &format!("identityfile {}", keys.identity().display()),
            "stricthostkeychecking true",
        ] {
            assert!(
                shown.lines().any(|found| found == line),
                "{line} is not in\n{shown}"
            );
        }
    }

    #[test]
    fn client_config_names_everything() {
        let (dir, keys, hosts) = fixture();
        let text = client_config(&keys, &hosts[..1], Path::new("/run/a b/100%/known_hosts"));
        let text = text.replace(&dir.path().display().to_string(), "KEYS");
        insta::assert_snapshot!(text, @r#"
        Host leaf1
            HostName 192.168.98.4
            User root
            IdentityFile "KEYS/fabric_ed25519"
            IdentitiesOnly yes
            UserKnownHostsFile "/run/a b/100%%/known_hosts"
            GlobalKnownHostsFile none
            StrictHostKeyChecking yes
            LogLevel ERROR
        "#);
    }

    #[test]
    fn a_seed_holds_both_directions() {
        let (_dir, keys, hosts) = fixture();
        let known = known_hosts(&keys, &hosts);
        let files = seed_files(&keys, "leaf1", &[ED25519.into()], &known);
        let find = |path: &str| files.iter().find(|file| file.path == path).unwrap();
        let authorized = &find("root/.ssh/authorized_keys").bytes;
        assert_eq!(
            *authorized,
            format!("{ED25519}\n{}\n", keys.fabric.public).into_bytes()
        );
        assert_eq!(
            find("etc/ssh/ssh_host_ed25519_key").bytes,
            keys.hosts["leaf1"].private.as_bytes()
        );
        for private in ["root/.ssh/id_ed25519", "etc/ssh/ssh_host_ed25519_key"] {
            assert_eq!(find(private).mode, 0o600);
        }
        assert!(seed_files(&keys, "unknown", &[], &known).is_empty());
    }

    #[test]
    fn authorized_keys_are_keys_or_files_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let with_options = format!("from=\"10.0.0.0/8\",command=\"echo a b\" {ED25519}");
        fs::write(&path, format!("# mine\n\n  {with_options}\n")).unwrap();
        let entry = path.display().to_string();
        let lines = authorized_keys(&[ED25519.into(), entry.clone()]).unwrap();
        assert_eq!(lines, [ED25519, &with_options]);
        fs::write(&path, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        let error = authorized_keys(&[entry]).unwrap_err().to_string();
        assert!(error.contains("keys, line 1, has no public key"), "{error}");
        assert!(!error.contains("BEGIN"), "{error}");
        let error = authorized_keys(&["ssh-ed25519 AAAA".into()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot read ssh-ed25519 AAAA"), "{error}");
    }
}
