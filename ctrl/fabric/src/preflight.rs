//! `ikv-fabric check`: everything that would keep a fabric from coming up, all at once, each
//! with the line that mends it. Reads only, and works without root as far as that sees.

mod files;

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::Ipv4Net;
use serde::Serialize;
use serde_json::Value;

use host::address::{self, HostRoute};
use host::firewall::{self, Traffic};
use host::journal::Journal;
use host::links::{self, Link};
use host::lock::{Lock, StatePaths};
use host::netlink::Netlink;
use host::netns::NetnsId;
use host::nft;
use host::plan::{HostPlanInput, TABLE};
use host::program::{self, Program};
use vm::image;

/// What every fabric starts, the patch panel alone too.
pub const FOR_PANEL: &[Program] = &[Program::of("nft", "nftables")];

/// What switches need besides.
pub const FOR_SWITCHES: &[Program] = &[
    Program::of("qemu-system-x86_64", "qemu-system-x86"),
    Program::of("setpriv", "util-linux"),
    Program::of("ssh", "openssh-client"),
];

/// What the switches' BMCs need besides.
pub const FOR_IPMI: &[Program] = &[
    Program::of("ipmi_sim", "openipmi"),
    Program::of("prlimit", "util-linux"),
];

/// What building the image needs besides.
pub const FOR_IMAGE: &[Program] = image::BUILD_PROGRAMS;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// The fabric comes up, but something will not work as expected.
    Warning,
    /// The fabric cannot come up.
    Error,
}

/// One thing found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What it is.
    pub what: String,
    /// The command, or the change, that mends it; empty for notes.
    pub remedy: String,
}

impl Finding {
    fn new(severity: Severity, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity,
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// What a fabric is going to need.
#[derive(Debug, Clone)]
pub struct Needs<'a> {
    /// The files beside its socket.
    pub paths: &'a StatePaths,
    /// The host's part.
    pub host: &'a HostPlanInput,
    /// Programs; take [`FOR_PANEL`] and what else applies.
    pub programs: &'a [Program],
    /// Memory of all switches together, in MiB; 0 without switches.
    pub memory_mib: u64,
}

/// Looks at everything; worst findings first.
pub fn check(needs: &Needs<'_>) -> Vec<Finding> {
    let mut found = Vec::from_iter(packages(needs.programs, |name| {
        program::find(name).is_some()
    }));
    found.extend(rights(rustix::process::geteuid().is_root()));
    found.extend(tun_device(Path::new("/dev/net/tun")));
    if needs.memory_mib > 0 {
        found.push(acceleration(
            &fs::read_to_string("/proc/cpuinfo").unwrap_or_default(),
            File::options()
                .read(true)
                .write(true)
                .open("/dev/kvm")
                .map(|_| ()),
        ));
        let free = fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| available_mib(&text));
        found.extend(free.and_then(|free| memory(needs.memory_mib, free)));
    }
    found.extend(other_fabric(needs.paths, std::process::id()));
    found.extend(files::in_the_way(
        needs.paths,
        &needs.host.taps,
        std::process::id(),
    ));
    found.extend(network(needs.host));
    found.extend(rules(needs.host));
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

/// All findings as one message: what, and what mends it.
pub fn text(findings: &[Finding]) -> String {
    let text = |found: &Finding| match found.remedy.as_str() {
        "" => found.what.clone(),
        remedy => format!("{}; {remedy}", found.what),
    };
    findings.iter().map(text).collect::<Vec<_>>().join("\n")
}

/// Whether one of the findings keeps the fabric from coming up.
pub fn prevents(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.severity == Severity::Error)
}

fn packages(programs: &[Program], present: impl Fn(&str) -> bool) -> Option<Finding> {
    let missing: Vec<&Program> = programs.iter().filter(|p| !present(p.name)).collect();
    if missing.is_empty() {
        return None;
    }
    let mut names: Vec<&str> = Vec::new();
    for program in &missing {
        if !names.contains(&program.name) {
            names.push(program.name);
        }
    }
    let mut packages: Vec<&str> = missing.iter().map(|p| p.package).collect();
    packages.sort_unstable();
    packages.dedup();
    Some(Finding::new(
        Severity::Error,
        format!("not installed: {}", names.join(", ")),
        format!("apt install {}", packages.join(" ")),
    ))
}

fn rights(root: bool) -> Option<Finding> {
    (!root).then(|| {
        Finding::new(
            Severity::Note,
            "`ikv-fabric run` needs root; without it nftables rules and locked files cannot be checked here",
            "sudo ikv-fabric check",
        )
    })
}

fn tun_device(device: &Path) -> Option<Finding> {
    match File::options().read(true).write(true).open(device) {
        Ok(_) => None,
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Some(Finding::new(
            Severity::Warning,
            format!(
                "{} cannot be opened by this user, so no VM of theirs can plug in",
                device.display()
            ),
            format!("chmod 0666 {}", device.display()),
        )),
        // ENXIO, ENODEV: the node is there and the driver is not.
        Err(e) => Some(Finding::new(
            Severity::Error,
            format!("{}: {e}", device.display()),
            "modprobe tun",
        )),
    }
}

fn acceleration(cpuinfo: &str, kvm: io::Result<()>) -> Finding {
    let virtual_cpu = cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| {
            line.split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        });
    let why = match (virtual_cpu, kvm) {
        (true, Ok(())) => {
            return Finding::new(Severity::Note, "switches run under KVM", "");
        }
        (true, Err(e)) => {
            return Finding::new(
                Severity::Warning,
                format!("switches run under TCG, several times slower: /dev/kvm: {e}"),
                "modprobe kvm_intel || modprobe kvm_amd; or run as root",
            );
        }
        (false, _) => "the CPU shows neither vmx nor svm",
    };
    Finding::new(
        Severity::Note,
        format!("switches run under TCG, slower than KVM: {why}"),
        "",
    )
}

fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib / 1024)
}

fn memory(needed: u64, available: u64) -> Option<Finding> {
    (needed > available).then(|| {
        Finding::new(
            Severity::Warning,
            format!("the switches may use {needed} MiB of memory, {available} MiB are free"),
            "--set vm.memory=… with less, or fewer switches",
        )
    })
}

/// `own` is this process: `run` looks around while it holds the lock itself.
fn other_fabric(paths: &StatePaths, own: u32) -> Option<Finding> {
    let running = Lock::holder(paths);
    if let Some(pid) = running.filter(|pid| *pid != own.to_string()) {
        return Some(Finding::new(
            Severity::Error,
            format!("a fabric is running on this socket, pid {pid}"),
            format!("kill {pid}, or another --socket"),
        ));
    }
    match Journal::load(&paths.journal) {
        Ok(None) => None,
        Ok(Some(journal)) => {
            let state = journal.state();
            let here = NetnsId::current().is_ok_and(|here| here == state.netns);
            let place = if here {
                ""
            } else {
                " (in another network namespace)"
            };
            Some(Finding::new(
                Severity::Note,
                format!(
                    "fabric {} was killed and left things behind{place}",
                    state.identity.pid
                ),
                "ikv-fabric clean; `run` does it too",
            ))
        }
        // Root's journal, seen by a user.
        Err(_) if !rustix::process::geteuid().is_root() => Some(Finding::new(
            Severity::Note,
            format!("{} was left by a killed fabric", paths.journal.display()),
            "ikv-fabric clean",
        )),
        Err(e) => Some(Finding::new(
            Severity::Error,
            e.to_string(),
            format!("rm {}", paths.journal.display()),
        )),
    }
}

fn network(host: &HostPlanInput) -> Vec<Finding> {
    let read = || -> io::Result<_> {
        let mut netlink = Netlink::open()?;
        Ok((
            links::list(&mut netlink)?,
            address::list_addresses(&mut netlink)?,
            address::list_routes(&mut netlink)?,
        ))
    };
    match read() {
        Ok((links, addresses, routes)) => {
            let mut found: Vec<Finding> = link_conflicts(host, &links).into_iter().collect();
            found.extend(address_conflicts(host, &addresses));
            found.extend(route_conflicts(host, &routes));
            found
        }
        Err(e) => vec![Finding::new(
            Severity::Error,
            format!("the host's links and routes cannot be read: {e}"),
            "run where netlink is allowed",
        )],
    }
}

fn link_conflicts(host: &HostPlanInput, links: &[Link]) -> Option<Finding> {
    let planned = host
        .taps
        .iter()
        .map(|tap| &tap.name)
        .chain(host.host.iter().map(|h| &h.name))
        .chain(host.ipmi.iter().map(|ipmi| &ipmi.name));
    let taken: Vec<&Link> = planned
        .filter_map(|name| links.iter().find(|link| link.name == *name))
        .collect();
    let first = taken.first()?;
    let more = match taken.len() {
        1 => String::new(),
        n => format!(" and {} more of our names", n - 1),
    };
    let remedy = if first.alias.starts_with("ikv-fabric ") {
        "ikv-fabric clean".to_owned()
    } else {
        format!(
            "ip link del {}, or other names in the configuration",
            first.name
        )
    };
    Some(Finding::new(
        Severity::Error,
        format!("link {}{more} exists already", first.name),
        remedy,
    ))
}

fn address_conflicts(host: &HostPlanInput, addresses: &[(String, Ipv4Net)]) -> Vec<Finding> {
    let conflicts = |ours: Ours<'_>| -> Vec<Finding> {
        addresses
            .iter()
            .filter(move |(link, address)| {
                link != ours.link && ours.range.contains(&address.addr())
            })
            .map(move |(link, address)| {
                let Ours { what, range, .. } = ours;
                Finding::new(
                    Severity::Error,
                    format!("{link} has {address}, which is in the fabric's {what} {range}"),
                    format!(
                        "ip addr del {address} dev {link}, or another {what} in the configuration"
                    ),
                )
            })
            .collect()
    };
    ours(host).flat_map(conflicts).collect()
}

/// Addresses of the fabric's own.
#[derive(Clone, Copy)]
struct Ours<'a> {
    what: &'static str,
    range: Ipv4Net,
    link: &'a str,
}

fn ours(host: &HostPlanInput) -> impl Iterator<Item = Ours<'_>> {
    let range = host.host.iter().map(|host| Ours {
        what: "range",
        range: host.range,
        link: &host.name,
    });
    range.chain(host.ipmi.iter().map(|ipmi| Ours {
        what: "ipmi.address",
        range: ipmi.address.trunc(),
        link: &ipmi.name,
    }))
}

fn route_conflicts(host: &HostPlanInput, routes: &[HostRoute]) -> Vec<Finding> {
    let conflicts = |ours: Ours<'_>| -> Vec<Finding> {
        routes
            .iter()
            // A default route, also in the two halves that VPNs set, gives way to anything longer.
            .filter(|route| route.destination.prefix_len() > 1)
            .filter(move |route| route.link != ours.link && overlap(route.destination, ours.range))
            .map(move |route| {
                let Ours { what, range, .. } = ours;
                let via = if route.link.is_empty() { "" } else { " on " };
                Finding::new(
                    Severity::Error,
                    format!(
                        "the host's route to {}{via}{} overlaps the fabric's {what} {range}",
                        route.destination, route.link
                    ),
                    format!(
                        "another {what} in the configuration, or ip route del {}",
                        route.destination
                    ),
                )
            })
            .collect()
    };
    ours(host).flat_map(conflicts).collect()
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn rules(host: &HostPlanInput) -> Vec<Finding> {
    // Without root nft says nothing, and `rights` has said so.
    if !rustix::process::geteuid().is_root() || program::find("nft").is_none() {
        return Vec::new();
    }
    let ruleset = match nft::ruleset() {
        Ok(ruleset) => ruleset,
        Err(e) => {
            return vec![Finding::new(
                Severity::Error,
                format!("nftables does not work here: {e}"),
                "modprobe nf_tables",
            )];
        }
    };
    let mut found = table_conflicts(&ruleset);
    if let Some(host) = &host.host {
        found.extend(firewall_warnings(
            Traffic::Forwarded,
            &host.name,
            host.range,
        ));
    }
    if let Some(ipmi) = &host.ipmi {
        let segment = ipmi.address.trunc();
        found.extend(firewall_warnings(Traffic::ToHost, &ipmi.name, segment));
    }
    found
}

fn table_conflicts(ruleset: &Value) -> Vec<Finding> {
    let items = ruleset["nftables"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let families = items.iter().filter_map(|item| {
        let table = item.get("table").filter(|table| table["name"] == TABLE)?;
        table["family"]
            .as_str()
            .filter(|family| ["inet", "netdev"].contains(family))
    });
    families
        .map(|family| {
            Finding::new(
                Severity::Error,
                format!("an nftables table {family} {TABLE} exists already"),
                format!("ikv-fabric clean; or nft delete table {family} {TABLE}"),
            )
        })
        .collect()
}

/// What the host's firewall would do to the fabric's traffic; also for `run` to print.
pub fn firewall_warnings(traffic: Traffic, link: &str, range: Ipv4Net) -> Vec<Finding> {
    let what = match traffic {
        Traffic::Forwarded => "what the fabric forwards",
        Traffic::ToHost => "what comes to the BMCs from their segment",
    };
    match firewall::check(traffic, link, range) {
        Ok(obstacles) => obstacles
            .into_iter()
            .map(|o| {
                Finding::new(
                    Severity::Warning,
                    format!("the firewall drops {what}: {}: {}", o.chain, o.reason),
                    o.remedy,
                )
            })
            .collect(),
        Err(e) => vec![Finding::new(
            Severity::Warning,
            format!("the firewall's rules cannot be read: {e}"),
            "nft list ruleset",
        )],
    }
}

/// Whether `address` is one of the host's own; what SNAT to it needs.
///
/// # Errors
/// When the kernel does not tell its addresses.
pub fn is_own_address(address: Ipv4Addr) -> io::Result<bool> {
    let addresses = address::list_addresses(&mut Netlink::open()?)?;
    Ok(addresses.iter().any(|(_, own)| own.addr() == address))
}

#[cfg(test)]
mod tests;
