//! Which of our keys each of ikvswitch's is. Their meanings are those of ikvswitch 1.0.4's programs.

use std::net::Ipv4Addr;

use toml::{Table, Value};

use super::Remark;
use super::script::Script;
use crate::config::{self, Config, MacPrefix, ValueError};

/// One of our keys with a value that is not the default.
#[derive(Debug)]
pub(super) struct Setting<'s> {
    /// Such as `topology.num_u`.
    pub key: &'static str,
    pub value: Value,
    /// ikvswitch's key that it comes from.
    pub from: &'s str,
    /// Where the file sets that, from 1.
    pub line: usize,
}

/// Makes a value of ours of what the file says, or says what is wrong with it.
type Convert = fn(&str) -> Result<Value, String>;

const DHCP_SUBNETS: [&str; 3] = ["DHCPD_SUBNET_1", "DHCPD_SUBNET_2", "DHCPD_SUBNET_3"];
const VLAN_BASE: &str = "HOST_VIRTUAL_SUBNET_START_PREFIX";
const VLAN_FIRST: &str = "VLAN_SBUNETS_START_IP";
const VLAN_MORE: &str = "VLAN_SUBNETS_NUM";

/// What the file sets, under our keys, without what equals our defaults.
pub(super) fn translate<'s>(script: &'s Script, remarks: &mut Vec<Remark>) -> Vec<Setting<'s>> {
    let mut translation = Translation {
        script,
        remarks,
        defaults: Table::try_from(Config::default()).unwrap_or_default(),
        settings: Vec::new(),
    };
    for (name, variable) in script.variables.by_line() {
        translation.key(name, variable.used);
    }
    translation.dhcp_subnets();
    translation.vlan_subnets();
    translation.settings
}

struct Translation<'s, 'r> {
    script: &'s Script,
    remarks: &'r mut Vec<Remark>,
    defaults: Table,
    settings: Vec<Setting<'s>>,
}

impl<'s> Translation<'s, '_> {
    /// Takes one key of ikvswitch's; `used` if the file refers to it.
    fn key(&mut self, from: &'s str, used: bool) {
        let (key, convert): (_, Convert) = match from {
            "MY_IP" => ("host.snat", text),
            "HOST_VIRTUAL_SUBNET_PREFIX" => ("topology.range", |three| subnet(three, 19)),
            "HOST_VIRTUAL_SUBNET_NET1" => return self.host_link(from),
            "HOST_VIRTUAL_SUBNET_NET2" => {
                return self.remark(from, "ikvswitch does not use it either; nothing to do");
            }
            "HOST_VIRTUAL_SUBNET_NET3" => ("topology.loopbacks", |three| subnet(three, 24)),
            "MAC_PREFIX" => ("mac.host", mac_prefix),
            "NUM_U" => ("topology.num_u", whole),
            "AS_START" => ("bgp.as_start", whole),
            "LEAF_TO_VM_VLAN_NUM" => ("bgp.server_vlan", whole),
            "DHCP_RELAY_DESTINATION" => ("dhcp.next_server", text),
            "VLAN_SBUNET1_PREFIX" => ("bgp.vlan_peers", vlan_peers),
            "VLAN_SBUNET2_PREFIX" => return self.unused_vlan(from, 1),
            "VLAN_SBUNET3_PREFIX" => return self.unused_vlan(from, 2),
            "VLAN_SBUNET4_PREFIX" => return self.unused_vlan(from, 3),
            "VLAN_SBUNET5_PREFIX" => return self.unused_vlan(from, 4),
            "VLAN_START" => ("vlan.first", whole),
            "HOST_DUMMYNET_IFNAME_PREFIX" => ("host.link", text),
            "HOST_BRIDGE_NAME_PREFIX" => ("names.host_cable", text),
            "HOST_VM_TAP_IFNAME_PREFIX" => ("names.internet_host", text),
            "INTERNET_TO_SPINE_TAP_IFNAME_PREFIX" => ("names.internet_spine", text),
            "INTERNET_TO_SPINE_BRIDGE_PREFIX" => ("names.internet_cable", text),
            "SPINE_TO_INTERNET_TAP_PREFIX" => ("names.spine_internet", text),
            "SPINE_VM_TAP_IFNAME_PREFIX" => ("names.spine_leaf", text),
            "SPINE_BRIDGE_PREFIX" => ("names.spine_cable", text),
            "LEAF_TO_SPINE_TAP_PREFIX" => ("names.leaf_spine", text),
            "LEAF_TO_SERVERS_TAP_PREFIX" => ("names.leaf_server", text),
            "LEAF_TO_SERVER_BRIDGE_PREFIX" => ("names.server_cable", text),
            "HOST_TAP_NAME_PREFIX" => ("names.server", text),
            "HOST_IPMI_BRIDGE_NAME" => {
                // ikvswitch always has BMCs, with a password that everybody knows.
                let what = "BMCs are off here unless ipmi.enabled = true; a password is then \
                            generated, and `ikv-fabric ipmi` shows where it is";
                self.remark(from, what);
                ("ipmi.link", text)
            }
            "HOST_IPMI_IP" => ("ipmi.address", ipmi_address),
            "VM_TAP_NIC" => ("ipmi.tap", text),
            "DEBIAN_RELEASE" => ("image.release", text),
            "DEBIAN_MIRROR" => ("image.mirror", text),
            "DEBIAN_SECURITY_MIRROR" => ("image.security_mirror", text),
            "VM_ROOT_PASS" if self.value(from) == Some("changeme") => {
                let what = "the password that ikvswitch is released with is not taken over: SSH \
                            keys let you in; for a password set ssh.root_password";
                return self.remark(from, what);
            }
            "VM_ROOT_PASS" => ("ssh.root_password", text),
            "GUEST_MAC_ADDRESS_PREFIX" => ("mac.switch", mac_prefix),
            // Only there for others to refer to, or one of several that make one key of ours.
            VLAN_BASE | "HOST_VIRTUAL_SUBNET_END_PREFIX" | VLAN_FIRST | VLAN_MORE => return,
            _ if used || DHCP_SUBNETS.contains(&from) => return,
            _ => return self.remark(from, "ikvswitch has no such key; nothing to do"),
        };
        self.set_as(from, key, convert);
    }

    fn is_set(&self, from: &str) -> bool {
        self.script.variables.get(from).is_some()
    }

    /// None also where it is set but was not read.
    fn value(&self, from: &str) -> Option<&'s str> {
        self.script.variables.get(from)?.value.as_deref()
    }

    fn line(&self, from: &str) -> usize {
        let variable = self.script.variables.get(from);
        variable.map_or(0, |found| found.line)
    }

    /// About a key of which nothing is lost.
    fn remark(&mut self, from: &str, what: &str) {
        let remark = Remark::new(self.line(from), from, what, false);
        self.remarks.push(remark);
    }

    fn refuse(&mut self, from: &str, why: &str) {
        let what = format!("{why}; the default stands");
        let remark = Remark::new(self.line(from), from, what, true);
        self.remarks.push(remark);
    }

    /// Sets our `key` to what `convert` makes of the value, if the value was read.
    fn set_as(&mut self, from: &'s str, key: &'static str, convert: Convert) {
        if let Some(text) = self.value(from) {
            self.set(from, key, convert(text));
        }
    }

    /// Takes the value if our own loader will.
    fn set(&mut self, from: &'s str, key: &'static str, value: Result<Value, String>) {
        let value = match value {
            Ok(value) => value,
            Err(why) => return self.refuse(from, &why),
        };
        let (table, name) = key.split_once('.').unwrap_or(("", key));
        let default = self.defaults.get(table).and_then(|table| table.get(name));
        if default == Some(&value) {
            return;
        }
        let inner = Table::from_iter([(name.to_owned(), value.clone())]);
        let alone = Table::from_iter([(table.to_owned(), inner.into())]);
        if let Some(problem) = config::problems(&alone).first() {
            return self.refuse(from, &format!("{}: {}", problem.key, problem.what));
        }
        self.settings.push(Setting {
            key,
            value,
            from,
            line: self.line(from),
        });
    }

    /// ikvswitch has the host at .1 of this network and internet at .2.
    fn host_link(&mut self, from: &'s str) {
        let Some(three) = self.value(from) else {
            return;
        };
        match subnet(three, 24) {
            Ok(_) => {
                self.set(from, "host.address", Ok(format!("{three}.1/24").into()));
                self.set(from, "host.internet", Ok(format!("{three}.2").into()));
            }
            Err(why) => self.refuse(from, &why),
        }
    }

    /// ikvswitch has a key for each rack. Our list has all racks, so a missing one keeps its default.
    fn dhcp_subnets(&mut self) {
        let Some(from) = DHCP_SUBNETS.into_iter().find(|name| self.is_set(name)) else {
            return;
        };
        let defaults = config::Dhcp::default().subnets;
        let mut subnets = Vec::new();
        for (name, default) in DHCP_SUBNETS.into_iter().zip(defaults) {
            let subnet = self.value(name).map(|three| subnet(three, 24));
            let subnet = subnet.unwrap_or_else(|| Ok(default.to_string().into()));
            subnets.push(subnet.unwrap_or_else(|why| {
                self.refuse(name, &why);
                default.to_string().into()
            }));
        }
        self.set(from, "dhcp.subnets", Ok(subnets.into()));
    }

    fn vlan_subnets(&mut self) {
        let names = [VLAN_FIRST, VLAN_MORE, VLAN_BASE];
        let unread = |name: &str| self.is_set(name) && self.value(name).is_none();
        let Some(from) = names[..2].iter().find(|name| self.is_set(name)) else {
            return;
        };
        if names.into_iter().any(unread) {
            return; // A remark already says why.
        }
        let base = self.value(VLAN_BASE).unwrap_or("192.168");
        let first = self.value(VLAN_FIRST).unwrap_or("113");
        let more = self.value(VLAN_MORE).unwrap_or("5");
        self.set(from, "vlan.subnets", vlan_subnets(base, first, more));
    }

    /// ikvswitch never reads the prefixes of its VLAN networks but the first's: they follow from
    /// [`VLAN_FIRST`]. A remark if this one, at `index` from 0, says something else.
    fn unused_vlan(&mut self, from: &str, index: i64) {
        let (base, first) = (self.value(VLAN_BASE), self.value(VLAN_FIRST));
        let first = first.and_then(|first| number(first).ok());
        let (Some(base), Some(first), Some(value)) = (base, first, self.value(from)) else {
            return;
        };
        if format!("{base}.{}", first.saturating_add(index)) != value {
            self.remark(
                from,
                "ikvswitch does not use it: its VLAN networks follow one by one from \
                 VLAN_SBUNETS_START_IP, and so they do here; set vlan.subnets for others",
            );
        }
    }
}

fn text(text: &str) -> Result<Value, String> {
    // It stands where the file has bytes that are not UTF-8.
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err("it has a letter that is not UTF-8: save the file as UTF-8".into());
    }
    Ok(text.into())
}

fn number(text: &str) -> Result<i64, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.ok_or_else(|| format!("{text:?} is not a whole number"))
}

fn whole(text: &str) -> Result<Value, String> {
    number(text).map(Value::from)
}

/// Five octets; ikvswitch writes some with a colon at the end.
fn mac_prefix(octets: &str) -> Result<Value, String> {
    let octets = octets.strip_suffix(':').unwrap_or(octets);
    let octets: MacPrefix<5> = octets
        .parse()
        .map_err(|error: ValueError| error.to_string())?;
    text(&octets.to_string())
}

/// The subnet with a prefix of `length` bits that begins at `three` octets.
fn subnet(three: &str, length: u8) -> Result<Value, String> {
    // `Ipv4Addr` refuses what it would not write itself, such as 01.
    match format!("{three}.0").parse::<Ipv4Addr>() {
        Ok(address) => Ok(format!("{address}/{length}").into()),
        Err(_) => Err(format!(
            "{three:?} is not the first three octets of an address, such as 192.168.96"
        )),
    }
}

/// ikvswitch makes one network more than [`VLAN_MORE`], because both ends of its count count.
fn vlan_subnets(base: &str, first: &str, more: &str) -> Result<Value, String> {
    let (first, more) = (number(first)?, number(more)?);
    if first > 255 || more > 255 - first {
        return Err(format!(
            "{first} and {more} networks after it pass the third octet of an address"
        ));
    }
    let subnet = |third| subnet(&format!("{base}.{third}"), 24);
    (first..=first + more)
        .map(subnet)
        .collect::<Result<Vec<_>, _>>()
        .map(Value::Array)
}

/// The two hosts that leaf2 peers with are .200 and .201 of the first VLAN network.
fn vlan_peers(three: &str) -> Result<Value, String> {
    subnet(three, 24)?;
    Ok(vec![format!("{three}.200"), format!("{three}.201")].into())
}

fn ipmi_address(text: &str) -> Result<Value, String> {
    match text.parse::<Ipv4Addr>() {
        Ok(address) => Ok(format!("{address}/24").into()),
        Err(_) => Err(format!("{text:?} is not an IPv4 address")),
    }
}
