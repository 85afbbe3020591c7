//! Which of our keys each of ikvswitch's is. Their meanings are those of ikvswitch 1.0.4's programs.

use toml::{Table, Value};

use super::Remark;
use super::script::Script;
use crate::config::{self, Config, MacPrefix};

/// One of our keys with a value that is not the default.
#[derive(Debug)]
pub(super) struct Setting {
    /// Such as `topology.num_u`.
    pub key: &'static str,
    pub value: Value,
    /// ikvswitch's key that it comes from, and its line.
    pub from: &'static str,
    pub line: usize,
}

/// What becomes of a key of ikvswitch's.
#[derive(Clone, Copy)]
enum Rule {
    /// The same value under our key.
    Text(&'static str),
    /// A whole number under our key.
    Number(&'static str),
    /// Five octets under our key.
    Mac(&'static str),
    /// Three octets of an address: our key has the whole subnet, with this prefix length.
    Subnet(&'static str, u8),
    /// Something that several keys make up, or that has a meaning of its own.
    Special(fn(&mut Translation<'_>, &'static str)),
    /// Only there for other keys to refer to.
    Helper,
    /// Without a counterpart: what to do about it.
    None(&'static str),
}

/// Every key of the file, in its order.
const RULES: &[(&str, Rule)] = &[
    ("MY_IP", Rule::Text("host.snat")),
    ("HOST_VIRTUAL_SUBNET_START_PREFIX", Rule::Helper),
    ("HOST_VIRTUAL_SUBNET_END_PREFIX", Rule::Helper),
    (
        "HOST_VIRTUAL_SUBNET_PREFIX",
        Rule::Subnet("topology.range", 19),
    ),
    ("HOST_VIRTUAL_SUBNET_NET1", Rule::Special(host_link)),
    (
        "HOST_VIRTUAL_SUBNET_NET2",
        Rule::None("ikvswitch does not use it either; nothing to do"),
    ),
    (
        "HOST_VIRTUAL_SUBNET_NET3",
        Rule::Subnet("topology.loopbacks", 24),
    ),
    ("MAC_PREFIX", Rule::Mac("mac.host")),
    ("NUM_U", Rule::Number("topology.num_u")),
    ("AS_START", Rule::Number("bgp.as_start")),
    ("LEAF_TO_VM_VLAN_NUM", Rule::Number("bgp.server_vlan")),
    ("DHCP_RELAY_DESTINATION", Rule::Text("dhcp.next_server")),
    ("DHCPD_SUBNET_1", Rule::Special(dhcp_subnets)),
    ("DHCPD_SUBNET_2", Rule::Special(dhcp_subnets)),
    ("DHCPD_SUBNET_3", Rule::Special(dhcp_subnets)),
    ("VLAN_SUBNETS_NUM", Rule::Special(vlan_subnets)),
    ("VLAN_SBUNETS_START_IP", Rule::Special(vlan_subnets)),
    ("VLAN_SBUNET1_PREFIX", Rule::Special(vlan_peers)),
    ("VLAN_SBUNET2_PREFIX", Rule::Special(unused_vlan)),
    ("VLAN_SBUNET3_PREFIX", Rule::Special(unused_vlan)),
    ("VLAN_SBUNET4_PREFIX", Rule::Special(unused_vlan)),
    ("VLAN_SBUNET5_PREFIX", Rule::Special(unused_vlan)),
    ("VLAN_START", Rule::Number("vlan.first")),
    ("HOST_DUMMYNET_IFNAME_PREFIX", Rule::Text("host.link")),
    ("HOST_BRIDGE_NAME_PREFIX", Rule::Text("names.host_cable")),
    (
        "HOST_VM_TAP_IFNAME_PREFIX",
        Rule::Text("names.internet_host"),
    ),
    (
        "INTERNET_TO_SPINE_TAP_IFNAME_PREFIX",
        Rule::Text("names.internet_spine"),
    ),
    (
        "INTERNET_TO_SPINE_BRIDGE_PREFIX",
        Rule::Text("names.internet_cable"),
    ),
    (
        "SPINE_TO_INTERNET_TAP_PREFIX",
        Rule::Text("names.spine_internet"),
    ),
    ("SPINE_VM_TAP_IFNAME_PREFIX", Rule::Text("names.spine_leaf")),
    ("SPINE_BRIDGE_PREFIX", Rule::Text("names.spine_cable")),
    ("LEAF_TO_SPINE_TAP_PREFIX", Rule::Text("names.leaf_spine")),
    (
        "LEAF_TO_SERVERS_TAP_PREFIX",
        Rule::Text("names.leaf_server"),
    ),
    (
        "LEAF_TO_SERVER_BRIDGE_PREFIX",
        Rule::Text("names.server_cable"),
    ),
    ("HOST_TAP_NAME_PREFIX", Rule::Text("names.server")),
    ("HOST_IPMI_BRIDGE_NAME", Rule::Special(ipmi_link)),
    ("HOST_IPMI_IP", Rule::Special(ipmi_address)),
    ("VM_TAP_NIC", Rule::Text("ipmi.tap")),
    ("DEBIAN_RELEASE", Rule::Text("image.release")),
    ("DEBIAN_MIRROR", Rule::Text("image.mirror")),
    (
        "DEBIAN_SECURITY_MIRROR",
        Rule::Text("image.security_mirror"),
    ),
    ("VM_ROOT_PASS", Rule::Special(password)),
    ("GUEST_MAC_ADDRESS_PREFIX", Rule::Mac("mac.switch")),
];

/// The password of the released file.
const KNOWN_PASSWORD: &str = "changeme";

/// What the file sets, under our keys, less what our defaults say anyway.
pub(super) fn translate(script: &Script, remarks: &mut Vec<Remark>) -> Vec<Setting> {
    let mut translation = Translation {
        script,
        remarks,
        defaults: Table::try_from(Config::default()).unwrap_or_default(),
        settings: Vec::new(),
    };
    for (key, rule) in RULES {
        if script.variable(key).is_some() {
            translation.apply(key, *rule);
        }
    }
    for (name, variable) in script.variables() {
        if !variable.used && RULES.iter().all(|(key, _)| *key != name) {
            let what = "ikvswitch has no such key; nothing to do";
            translation.remark(name, variable.line, what, false);
        }
    }
    translation.settings
}

struct Translation<'s> {
    script: &'s Script,
    remarks: &'s mut Vec<Remark>,
    defaults: Table,
    settings: Vec<Setting>,
}

impl Translation<'_> {
    fn apply(&mut self, from: &'static str, rule: Rule) {
        match rule {
            Rule::Text(key) => self.set_as(from, key, |text| Ok(text.into())),
            Rule::Number(key) => self.set_as(from, key, |text| Ok(whole(text)?.into())),
            Rule::Mac(key) => self.set_as(from, key, |text| {
                let octets = text.strip_suffix(':').unwrap_or(text);
                let octets: MacPrefix<5> = octets
                    .parse()
                    .map_err(|error: config::ValueError| error.to_string())?;
                Ok(octets.to_string().into())
            }),
            Rule::Subnet(key, length) => {
                self.set_as(from, key, |text| Ok(subnet(text, length)?.into()));
            }
            Rule::Special(special) => special(self, from),
            Rule::Helper => {}
            Rule::None(what) => {
                let line = self.line(from);
                self.remark(from, line, what, false);
            }
        }
    }

    fn line(&self, from: &str) -> usize {
        self.script.variable(from).map_or(0, |found| found.line)
    }

    fn is_set(&self, from: &str) -> bool {
        self.script.variable(from).is_some()
    }

    /// Whether another one of `names`, which make up one key of ours, speaks for all.
    fn is_told_elsewhere(&self, names: &[&str], from: &str) -> bool {
        names.iter().find(|name| self.is_set(name)) != Some(&from)
    }

    /// None also where it is set but was not read.
    fn value(&self, from: &str) -> Option<&str> {
        self.script.variable(from)?.value.as_deref()
    }

    fn remark(&mut self, from: &str, line: usize, what: impl Into<String>, unread: bool) {
        self.remarks.push(Remark {
            line,
            key: from.to_owned(),
            what: what.into(),
            unread,
        });
    }

    fn refuse(&mut self, from: &str, why: &str) {
        let line = self.line(from);
        self.remark(from, line, format!("{why}; the default stands"), true);
    }

    fn set_as(
        &mut self,
        from: &'static str,
        key: &'static str,
        make: impl FnOnce(&str) -> Result<Value, String>,
    ) {
        let value = self.value(from).map(|text| {
            // What was no UTF-8 has become this letter.
            if text.contains('\u{fffd}') {
                return Err("it has a letter that is not UTF-8: write it so".into());
            }
            make(text)
        });
        match value {
            Some(Ok(value)) => self.set(from, key, value),
            Some(Err(why)) => self.refuse(from, &why),
            None => {}
        }
    }

    /// Takes the value if our own loader will.
    fn set(&mut self, from: &'static str, key: &'static str, value: Value) {
        let (table, name) = key.split_once('.').unwrap_or(("", key));
        let default = self.defaults.get(table).and_then(|table| table.get(name));
        if default == Some(&value) {
            return;
        }
        let inner = Table::from_iter([(name.to_owned(), value.clone())]);
        let alone = Table::from_iter([(table.to_owned(), inner.into())]);
        if let Some(problem) = config::problems(&alone).into_iter().next() {
            let why = format!("{}: {}", problem.key, problem.what);
            return self.refuse(from, &why);
        }
        let line = self.line(from);
        self.settings.push(Setting {
            key,
            value,
            from,
            line,
        });
    }
}

/// ikvswitch has the host at .1 of this network and internet at .2.
fn host_link(to: &mut Translation<'_>, from: &'static str) {
    to.set_as(from, "host.address", |text| {
        subnet(text, 24)?;
        Ok(format!("{text}.1/24").into())
    });
    let valid = to.value(from).is_some_and(|text| subnet(text, 24).is_ok());
    if valid {
        to.set_as(from, "host.internet", |text| Ok(format!("{text}.2").into()));
    }
}

/// A key of its own for each rack; our list has them all, so a missing one keeps its default.
fn dhcp_subnets(to: &mut Translation<'_>, from: &'static str) {
    const NAMES: [&str; 3] = ["DHCPD_SUBNET_1", "DHCPD_SUBNET_2", "DHCPD_SUBNET_3"];
    if to.is_told_elsewhere(&NAMES, from) {
        return;
    }
    let mut all = Vec::new();
    for (name, default) in NAMES.into_iter().zip(config::Dhcp::default().subnets) {
        let subnet = to.value(name).map(|text| subnet(text, 24));
        let subnet = subnet.unwrap_or_else(|| Ok(default.to_string()));
        all.push(Value::from(subnet.unwrap_or_else(|why| {
            to.refuse(name, &why);
            default.to_string()
        })));
    }
    to.set(from, "dhcp.subnets", all.into());
}

/// ikvswitch makes one network more than VLAN_SUBNETS_NUM, because both ends of its count count.
fn vlan_subnets(to: &mut Translation<'_>, from: &'static str) {
    const NAMES: [&str; 2] = ["VLAN_SBUNETS_START_IP", "VLAN_SUBNETS_NUM"];
    const BASE: &str = "HOST_VIRTUAL_SUBNET_START_PREFIX";
    let unread = |name: &&str| to.is_set(name) && to.value(name).is_none();
    if to.is_told_elsewhere(&NAMES, from) || NAMES.iter().chain([&BASE]).any(unread) {
        return;
    }
    let base = to.value(BASE).unwrap_or("192.168");
    let first = whole(to.value(NAMES[0]).unwrap_or("113"));
    let more = whole(to.value(NAMES[1]).unwrap_or("5"));
    let subnets: Result<Vec<Value>, String> = match (first, more) {
        (Ok(first), Ok(more)) if first <= 255 && more <= 255 - first => (first..=first + more)
            .map(|third| Ok(subnet(&format!("{base}.{third}"), 24)?.into()))
            .collect(),
        (Ok(first), Ok(more)) => Err(format!(
            "{first} and {more} networks after it pass the third octet of an address"
        )),
        (Err(why), _) | (_, Err(why)) => Err(why),
    };
    match subnets {
        Ok(subnets) => to.set(from, "vlan.subnets", subnets.into()),
        Err(why) => to.refuse(from, &why),
    }
}

/// The two hosts that leaf2 peers with are .200 and .201 of the first VLAN network.
fn vlan_peers(to: &mut Translation<'_>, from: &'static str) {
    to.set_as(from, "bgp.vlan_peers", |text| {
        subnet(text, 24)?;
        let peers = [200, 201].map(|host| Value::from(format!("{text}.{host}")));
        Ok(peers.to_vec().into())
    });
}

/// ikvswitch never reads these: its networks follow from VLAN_SBUNETS_START_IP.
fn unused_vlan(to: &mut Translation<'_>, from: &'static str) {
    let (Some(base), Some(first), Some(value)) = (
        to.value("HOST_VIRTUAL_SUBNET_START_PREFIX"),
        to.value("VLAN_SBUNETS_START_IP"),
        to.value(from),
    ) else {
        return;
    };
    let number = from.bytes().find(u8::is_ascii_digit).unwrap_or(b'1') - b'1';
    let derived =
        whole(first).map(|first| format!("{base}.{}", first.saturating_add(number.into())));
    if derived.is_ok_and(|derived| derived != value) {
        let line = to.line(from);
        let what = "ikvswitch does not use it: its VLAN networks follow one by one from \
                    VLAN_SBUNETS_START_IP, and so they do here; set vlan.subnets for others";
        to.remark(from, line, what, false);
    }
}

/// ikvswitch always has BMCs, with a password that everybody knows.
fn ipmi_link(to: &mut Translation<'_>, from: &'static str) {
    let line = to.line(from);
    let what = "BMCs are off here unless ipmi.enabled = true; their password is then made, and \
                `ikv-fabric ipmi` tells where it is";
    to.remark(from, line, what, false);
    to.set_as(from, "ipmi.link", |text| Ok(text.into()));
}

fn ipmi_address(to: &mut Translation<'_>, from: &'static str) {
    to.set_as(from, "ipmi.address", |text| {
        let address = text.parse::<std::net::Ipv4Addr>();
        let address = address.map_err(|_| format!("{text:?} is not an IPv4 address"))?;
        Ok(format!("{address}/24").into())
    });
}

/// Everybody knows the released file's.
fn password(to: &mut Translation<'_>, from: &'static str) {
    if to.value(from) == Some(KNOWN_PASSWORD) {
        let line = to.line(from);
        let what = "the password that ikvswitch is released with is not taken over: SSH keys let \
                    you in; for a password set ssh.root_password";
        return to.remark(from, line, what, false);
    }
    to.set_as(from, "ssh.root_password", |text| Ok(text.into()));
}

fn whole(text: &str) -> Result<i64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| format!("{text:?} is not a whole number"))
}

/// The subnet of length `length` that begins at `three` octets.
fn subnet(three: &str, length: u8) -> Result<String, String> {
    let octet = |octet: &str| {
        octet
            .parse::<u8>()
            .is_ok_and(|number| number.to_string() == octet)
    };
    if three.split('.').count() == 3 && three.split('.').all(octet) {
        Ok(format!("{three}.0/{length}"))
    } else {
        Err(format!(
            "{three:?} is not the first three octets of an address, such as 192.168.96"
        ))
    }
}
