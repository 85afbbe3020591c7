//! A model of a switch's kernel, FRR and dnsmasq, as far as this crate's lines reach. A line that a
//! real switch would refuse in its present state panics.

use std::collections::{BTreeMap, BTreeSet};

use ikv_frr_conf::{Change, File, SwitchConf, render};

/// A running switch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Running {
    links: BTreeMap<String, Device>,
    /// The arguments of `address add` and `route add`, and the device.
    addresses: BTreeSet<(String, String)>,
    /// Lines of FRR's configuration, each with the blocks that enclose it.
    frr: BTreeSet<(Vec<String>, String)>,
    /// The dnsmasq.conf that dnsmasq read last.
    dnsmasq: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Device {
    up: bool,
    /// Everything that has a value: `mtu`, `master`, `address`, the VLAN number.
    settings: BTreeMap<String, String>,
    /// The device that a VLAN sub-interface belongs to.
    below: Option<String>,
}

impl Running {
    /// A switch that has booted with `conf`.
    pub(crate) fn start(conf: &SwitchConf) -> Self {
        let files = render(conf).unwrap();
        let mut running = Self {
            links: BTreeMap::from([("lo".into(), Device::default())]),
            addresses: BTreeSet::new(),
            frr: BTreeSet::new(),
            dnsmasq: text(&files, "etc/dnsmasq.conf").into(),
        };
        for nic in text(&files, "etc/ikv/nics").lines() {
            running.plug(nic.split_once(' ').unwrap().1);
        }
        for line in text(&files, "etc/ikv/network.batch").lines() {
            running.ip(line);
        }
        running.vtysh(text(&files, "etc/frr/frr.conf").lines());
        running
    }

    /// The switch after a change to `new`, whose files it has.
    pub(crate) fn changed(mut self, change: &Change, new: &SwitchConf) -> Self {
        for (_, nic) in &change.plugged {
            self.plug(nic.as_str());
        }
        for line in &change.network {
            self.ip(line);
        }
        self.vtysh(change.frr.iter().map(String::as_str));
        if change.restart_dnsmasq {
            self.dnsmasq = text(&render(new).unwrap(), "etc/dnsmasq.conf").into();
        }
        for nic in &change.unplugged {
            assert!(!self.device(nic.as_str()).up, "{nic} is still in use");
            self.delete(nic.as_str());
        }
        self.vtysh(change.frr_afterwards.iter().map(String::as_str));
        self
    }

    fn plug(&mut self, nic: &str) {
        let replaced = self.links.insert(nic.into(), Device::default());
        assert_eq!(replaced, None, "two devices {nic}");
    }

    fn device(&mut self, name: &str) -> &mut Device {
        let found = self.links.get_mut(name);
        found.unwrap_or_else(|| panic!("no device {name}"))
    }

    fn ip(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        match words.as_slice() {
            ["link", "set", "dev", name, settings @ ..] => self.set(name, settings),
            ["link", "add", "name", name, settings @ ..] => {
                self.plug(name);
                self.set(name, settings);
            }
            ["link", "add", "link", below, "name", name, settings @ ..] => {
                // The kernel copies the MTU: it must not exceed that of the device below.
                let mtu = self.device(below).settings.get("mtu").cloned();
                self.plug(name);
                self.device(name).below = Some((*below).into());
                self.set(name, &["mtu", &mtu.expect("set before")]);
                self.set(name, settings);
            }
            ["link", "del", "dev", name] => self.delete(name),
            ["address" | "route", "add", what @ .., "dev", name] => {
                self.device(name);
                let new = self.addresses.insert((what.join(" "), (*name).into()));
                assert!(new, "{line}: it is there already");
            }
            _ => panic!("{line}: not a command of ip"),
        }
    }

    fn set(&mut self, name: &str, mut settings: &[&str]) {
        while let [key, rest @ ..] = settings {
            settings = match (*key, rest) {
                ("up" | "down", rest) => {
                    self.device(name).up = *key == "up";
                    rest
                }
                (key, [value, rest @ ..]) => {
                    if key == "master" {
                        self.device(value);
                    }
                    self.device(name)
                        .settings
                        .insert(key.into(), (*value).into());
                    rest
                }
                (key, []) => panic!("{key} of {name} without a value"),
            };
        }
    }

    fn delete(&mut self, name: &str) {
        self.device(name);
        self.links.remove(name);
        self.addresses.retain(|(_, device)| device != name);
        let is_above = |device: &Device| device.below.as_deref() == Some(name);
        let above: Vec<_> = (self.links.iter())
            .filter(|(_, device)| is_above(device))
            .map(|(name, _)| name.clone())
            .collect();
        for device in above {
            self.delete(&device);
        }
        for device in self.links.values_mut() {
            if device.settings.get("master").map(String::as_str) == Some(name) {
                device.settings.remove("master");
            }
        }
    }

    fn vtysh<'a>(&mut self, lines: impl Iterator<Item = &'a str>) {
        let mut blocks: Vec<String> = Vec::new();
        for line in lines.map(str::trim) {
            let words: Vec<_> = line.split(' ').collect();
            match words.as_slice() {
                [comment, ..] if comment.starts_with('!') => {}
                ["exit" | "exit-address-family"] => drop(blocks.pop().expect("a block to leave")),
                [
                    "interface" | "route-map" | "router" | "address-family" | "line",
                    ..,
                ] => {
                    self.frr.insert((blocks.clone(), line.into()));
                    blocks.push(line.into());
                }
                // A line of the template that switches off a default of FRR.
                ["no", "zebra" | "bgp", second, ..] if !["as-path", "listen"].contains(second) => {
                    self.frr.insert((blocks.clone(), line.into()));
                }
                ["no", "interface", name] => {
                    assert!(!self.links.contains_key(*name), "{name} is active");
                    let block = line["no ".len()..].to_owned();
                    self.forget(&blocks, &block);
                    self.frr
                        .retain(|(blocks, _)| blocks.first() != Some(&block));
                }
                ["no", "neighbor", peer] => {
                    let first = format!("neighbor {peer} ");
                    let before = self.frr.len();
                    self.frr.retain(|(_, line)| !line.starts_with(&first));
                    assert!(self.frr.len() < before, "{line}: no such neighbour");
                }
                ["no", ..] => self.forget(&blocks, &line["no ".len()..]),
                _ => {
                    if let ["neighbor", name, "interface", ..] = words.as_slice() {
                        self.device(name);
                    }
                    let new = self.frr.insert((blocks.clone(), line.into()));
                    assert!(new, "{line}: it is there already");
                }
            }
        }
        assert!(blocks.is_empty(), "{blocks:?} is not left");
    }

    fn forget(&mut self, blocks: &[String], line: &str) {
        let known = self.frr.remove(&(blocks.to_vec(), line.into()));
        assert!(known, "no {line}: missing in {blocks:?}");
    }
}

fn text<'a>(files: &'a [File], path: &str) -> &'a str {
    let found = files.iter().find(|file| file.path == path);
    found.map_or("", |file| &file.content)
}
