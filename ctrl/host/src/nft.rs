//! Our two nftables tables, as JSON for `nft -j` (libnftables-json(5)).
//!
//! `netdev ikv-fabric` holds for each tap a chain at that device's ingress hook that drops
//! everything. AF_PACKET reads before that hook, so the fabric sees the frames, while the host's
//! stack (and a bridge that another program puts the tap on) does not. It has to be the netdev
//! family: an ingress chain of the inet family passes everything that is not IP, such as ARP. Each
//! tap has a chain of its own, so that one chain can be put back alone when its tap is made again,
//! and because the kernel takes at most 256 devices in a chain. Loading 282 chains takes 8 ms.
//!
//! `inet ikv-fabric` holds source NAT for what leaves the range, and what may pass between the
//! fabric, the host and its neighbours: see `filter.rs`. From the host link the host gets answers,
//! echo requests and what `host.allow` names; only addresses of the range leave, and only
//! `host.reachable_from` reaches in. From the segment of the BMCs come packets to their ports, echo
//! requests and answers; what reaches those ports must authenticate (`bmc.rs`). Nothing is forwarded from that segment or to it, and no other device reaches
//! the host's address there.
//!
//! A second chain for each tap, at the device's egress hook, drops what does not carry the mark of the
//! fabric's own frames (`dataplane::sys::packet::FRAME_MARK`): when a network manager brings a tap up, no
//! ARP, DHCP or neighbour discovery of the host reaches a guest. Kernels before 5.16 have no such hook; there
//! the taps do without.
//!
//! Each table also has an empty chain whose name shows which fabric the table belongs to.

mod filter;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use dataplane::sys::packet::FRAME_MARK;
use model::config::Snat;

use crate::plan::{Filter, Nat, TABLE};
use crate::{packages, program};
pub(crate) use filter::{KeptApart, bmc_port, replace};

mod bmc;

/// The family of the table that keeps the host's stack from the taps.
const GUARD: &str = "netdev";
/// The family of the table with source NAT and the rules of the host link and the BMCs' segment.
const NAT: &str = "inet";

/// Why a ruleset could not be loaded or read.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program `nft` was not found.
    #[error("nft is not installed: `{}`", packages::install(&["nftables"]))]
    Missing,
    /// The program could not be started, or did not take its input.
    #[error("nft cannot be run: {0}")]
    Run(#[from] io::Error),
    /// The program refused. The kernel may lack nf_tables or one of its parts.
    #[error("nft refused: {0}")]
    Refused(String),
    /// Its output is not JSON.
    #[error("the output of nft is not JSON: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// The commands that make the tables. They fail if a table of this name exists. Without taps they
/// make no netdev table, and without a host link and BMCs no inet table.
pub(crate) fn create_tables(
    guard: &[String],
    nat: Option<&Nat>,
    (filter, apart): (&Filter, &KeptApart),
    owner_chain: &str,
    egress: Egress,
) -> Value {
    let table = |family: &str| json!({"create": {"table": {"family": family, "name": TABLE}}});
    let mut commands = Vec::new();
    if !guard.is_empty() {
        commands.extend([table(GUARD), chain(GUARD, owner_chain, json!({}))]);
        commands.extend(guard.iter().flat_map(|tap| guard_chains(tap, egress)));
    }
    let filters = filter.reach.is_some() || filter.ipmi.is_some();
    if nat.is_some() || filters {
        commands.extend([table(NAT), chain(NAT, owner_chain, json!({}))]);
    }
    if filters {
        commands.extend(filter::create(filter, apart));
    }
    if let Some(nat) = nat {
        // 100 is `srcnat`.
        let hook = json!({"type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"});
        commands.extend([chain(NAT, "postrouting", hook), nat_rule(nat)]);
    }
    json!({"nftables": commands})
}

/// The commands that guard these taps (all or none), whether or not a chain of theirs still exists:
/// until Linux 6.15 the kernel removes a chain with its device.
pub(crate) fn guard_again<'t>(taps: impl IntoIterator<Item = &'t str>, egress: Egress) -> Value {
    let commands = taps.into_iter().flat_map(|tap| {
        // Deleting a chain that does not exist is an error; adding one that exists is not.
        let add = guard_chains(tap, egress);
        let delete = guard_names(tap, egress).flat_map(|name| delete_chain(&name));
        let delete: Vec<_> = delete.collect();
        add.clone().into_iter().chain(delete).chain(add)
    });
    json!({"nftables": commands.collect::<Vec<_>>()})
}

/// Removes the guards of devices that are down or gone. Chains that the kernel has removed with their
/// devices count as removed.
///
/// # Errors
/// See [`NftError`].
pub(crate) fn unguard<'t>(
    taps: impl IntoIterator<Item = &'t str>,
    egress: Egress,
) -> Result<(), NftError> {
    let delete = |taps: Vec<Value>| load(&json!({"nftables": taps}));
    let names = taps.into_iter().flat_map(|tap| guard_names(tap, egress));
    let chains: Vec<_> = names.map(|name| delete_chain(&name)).collect();
    // One transaction in the usual case. If a chain is missing it fails as a whole: then one by one.
    match delete(chains.concat()) {
        Err(error) if error.is_absence() => {}
        other => return other,
    }
    for chain in chains {
        match delete(chain.into()) {
            Err(error) if error.is_absence() => {}
            other => other?,
        }
    }
    Ok(())
}

/// The number of rules of each of our chains, by family and name: what commands make, or what is there.
pub(crate) type Chains = BTreeMap<(String, String), usize>;

/// The chains that commands make, with the number of their rules.
pub(crate) fn chains_of(commands: &Value) -> Chains {
    let made = commands["nftables"].as_array().into_iter().flatten();
    counted(made.map(|command| &command["add"]))
}

/// Our chains on this host. Empty without our tables.
///
/// # Errors
/// When nft cannot be run.
pub(crate) fn present_chains() -> Result<Chains, NftError> {
    let mut chains = Chains::new();
    for family in [GUARD, NAT] {
        let output = nft()?
            .args(["-j", "list", "table", family, TABLE])
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            match refused(&output.stderr) {
                error if error.is_absence() => continue,
                error => return Err(error),
            }
        }
        let listed: Value = serde_json::from_slice(&output.stdout)?;
        chains.extend(counted(listed["nftables"].as_array().into_iter().flatten()));
    }
    Ok(chains)
}

/// Counts rules by chain. Chains without a rule count, too.
fn counted<'v>(items: impl Iterator<Item = &'v Value>) -> Chains {
    let mut chains = Chains::new();
    for item in items {
        let (object, name) = match (item.get("chain"), item.get("rule")) {
            (Some(chain), _) => (chain, "name"),
            (_, Some(rule)) => (rule, "chain"),
            _ => continue,
        };
        let word = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        *chains.entry((word("family"), word(name))).or_default() += usize::from(name == "chain");
    }
    chains
}

/// The commands that put our tables in the place of what is left of them, in one transaction.
pub(crate) fn make_again(left: &Chains, owner_chain: &str, create: &Value) -> Value {
    // A table of our name without our mark is not ours to remove: then creating it fails.
    let is_left =
        |family: &&str| left.contains_key(&((*family).to_owned(), owner_chain.to_owned()));
    let families: Vec<&str> = [GUARD, NAT].into_iter().filter(is_left).collect();
    let mut commands = delete_tables(&families, owner_chain)["nftables"].take();
    if let (Value::Array(commands), Value::Array(create)) = (&mut commands, &create["nftables"]) {
        commands.extend(create.iter().cloned());
    }
    json!({"nftables": commands})
}

/// The families and names of the chains that guard a tap, with the number of their rules.
pub(crate) fn guards_of(tap: &str, egress: Egress) -> Chains {
    let commands = json!({"nftables": guard_chains(tap, egress)});
    chains_of(&commands)
}

/// The kernel deletes no chain that has rules.
fn delete_chain(name: &str) -> [Value; 2] {
    ["flush", "delete"]
        .map(|verb| json!({verb: {"chain": {"family": GUARD, "table": TABLE, "name": name}}}))
}

/// The commands that remove tables. They succeed only if each table has the owner chain; otherwise
/// they change nothing.
fn delete_tables(families: &[&str], owner_chain: &str) -> Value {
    let deletes = families.iter().flat_map(|family| {
        [
            json!({"delete": {"chain": {"family": family, "table": TABLE, "name": owner_chain}}}),
            json!({"delete": {"table": {"family": family, "name": TABLE}}}),
        ]
    });
    json!({"nftables": deletes.collect::<Vec<_>>()})
}

/// Whether the kernel has a hook for what leaves a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Egress(bool);

impl Egress {
    /// Asks the kernel, which changes nothing.
    pub(crate) fn find() -> Self {
        let name = "ikv-fabric-asks";
        let hook = json!({"family": GUARD, "table": name, "name": "leave", "type": "filter",
            "hook": "egress", "prio": 0, "dev": "lo", "policy": "accept"});
        let commands = json!({"nftables": [
            {"add": {"table": {"family": GUARD, "name": name}}},
            {"add": {"chain": hook}},
        ]});
        Self(pass(&commands, &["-c"]).is_ok())
    }
}

fn guard_names(tap: &str, egress: Egress) -> impl Iterator<Item = String> {
    let names = [
        Some(format!("guard-{tap}")),
        egress.0.then(|| format!("leave-{tap}")),
    ];
    names.into_iter().flatten()
}

fn guard_chains(tap: &str, egress: Egress) -> Vec<Value> {
    let mut names = guard_names(tap, egress);
    let hook = |hook: &str, policy: &str| json!({"type": "filter", "hook": hook, "prio": 0, "dev": tap, "policy": policy});
    let mut commands = Vec::new();
    commands.extend(
        names
            .next()
            .map(|name| chain(GUARD, &name, hook("ingress", "drop"))),
    );
    if let Some(name) = names.next() {
        commands.push(chain(GUARD, &name, hook("egress", "drop")));
        let ours = json!({"match": {
            "op": "==", "left": {"meta": {"key": "mark"}}, "right": FRAME_MARK,
        }});
        commands.push(
            json!({"add": {"rule": {"family": GUARD, "table": TABLE, "chain": name,
                "expr": [ours, {"accept": null}],
            }}}),
        );
    }
    commands
}

fn chain(family: &str, name: &str, mut with: Value) -> Value {
    with["family"] = json!(family);
    with["table"] = json!(TABLE);
    with["name"] = json!(name);
    json!({"add": {"chain": with}})
}

fn nat_rule(nat: &Nat) -> Value {
    let range = json!({"prefix": {
        "addr": nat.range.network().to_string(), "len": nat.range.prefix_len(),
    }});
    let field = |field: &str| json!({"payload": {"protocol": "ip", "field": field}});
    let verdict = match nat.snat {
        Snat::Masquerade => json!({"masquerade": null}),
        Snat::Address(address) => json!({"snat": {"family": "ip", "addr": address.to_string()}}),
    };
    json!({"add": {"rule": {"family": NAT, "table": TABLE, "chain": "postrouting", "expr": [
        {"match": {"op": "==", "left": field("saddr"), "right": range}},
        {"match": {"op": "!=", "left": field("daddr"), "right": range}},
        verdict,
    ]}}})
}

impl NftError {
    fn is_absence(&self) -> bool {
        matches!(self, Self::Refused(words) if words.contains("No such file or directory"))
    }
}

/// Loads commands in one transaction.
///
/// # Errors
/// [`NftError::Refused`] with nft's own message; then nothing was changed.
pub fn load(commands: &Value) -> Result<(), NftError> {
    pass(commands, &[])
}

fn pass(commands: &Value, options: &[&str]) -> Result<(), NftError> {
    let mut child = nft()?
        .args(options)
        .args(["-j", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(&serde_json::to_vec(commands)?) {
            // nft may have failed before it read its input; its own message says more.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e.into()),
            _ => {}
        }
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(refused(&output.stderr))
    }
}

/// Removes our tables, each only if our owner chain is in it. Tables that do not exist count as removed.
///
/// # Errors
/// When nft cannot be run, or refuses for another reason.
pub(crate) fn remove(owner_chain: &str) -> Result<(), NftError> {
    // Together in the usual case; one by one if only one exists, or only one is ours.
    match load(&delete_tables(&[GUARD, NAT], owner_chain)) {
        Err(error) if error.is_absence() => {}
        other => return other,
    }
    for family in [GUARD, NAT] {
        match load(&delete_tables(&[family], owner_chain)) {
            Err(error) if error.is_absence() => {}
            other => other?,
        }
    }
    Ok(())
}

/// The whole ruleset of the host.
///
/// # Errors
/// [`NftError::Refused`] without root.
pub fn ruleset() -> Result<Value, NftError> {
    let output = nft()?
        .args(["-j", "list", "ruleset"])
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        return Err(refused(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn nft() -> Result<Command, NftError> {
    let mut command = Command::new(program::find("nft").ok_or(NftError::Missing)?);
    command.env("LC_ALL", "C");
    Ok(command)
}

fn refused(stderr: &[u8]) -> NftError {
    let words = String::from_utf8_lossy(stderr);
    let mut lines: Vec<&str> = words
        .lines()
        .filter(|line| line.contains("Error"))
        .collect();
    lines.dedup();
    if lines.is_empty() {
        lines.extend(words.lines().next());
    }
    NftError::Refused(lines.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nat(snat: Snat) -> Nat {
        Nat {
            range: "192.168.96.0/19".parse().unwrap(),
            snat,
        }
    }

    #[test]
    fn the_tables_as_json() {
        let guard = ["ikvm1-3-1".to_owned(), "ikvm1-3-2".to_owned()];
        let filter = (&Filter::default(), &KeptApart::default());
        let nat = nat(Snat::Masquerade);
        let table = create_tables(&guard, Some(&nat), filter, "owner-47-11", Egress(false));
        insta::assert_snapshot!(serde_json::to_string_pretty(&table).unwrap());
    }

    #[test]
    fn what_commands_make_and_what_nft_lists_are_counted_alike() {
        let guard = ["ikvm1-3-1".to_owned()];
        let filter = (&Filter::default(), &KeptApart::default());
        let nat = nat(Snat::Masquerade);
        let create = create_tables(&guard, Some(&nat), filter, "owner-47-11", Egress(true));
        let made = chains_of(&create);
        let key = |family: &str, name: &str| (family.to_owned(), name.to_owned());
        assert_eq!(made[&key("inet", "postrouting")], 1);
        assert_eq!(made[&key("netdev", "guard-ikvm1-3-1")], 0);
        assert_eq!(made[&key("netdev", "leave-ikvm1-3-1")], 1);
        assert_eq!(guards_of("ikvm1-3-1", Egress(false)).len(), 1);
        let listed = [
            json!({"metainfo": {"version": "1.0.6"}}),
            json!({"table": {"family": "inet", "name": TABLE, "handle": 1}}),
            json!({"chain": {"family": "inet", "table": TABLE, "name": "postrouting", "handle": 2}}),
            json!({"rule": {"family": "inet", "table": TABLE, "chain": "postrouting", "expr": []}}),
        ];
        let listed = counted(listed.iter());
        assert_eq!(listed, [(key("inet", "postrouting"), 1)].into());
    }

    #[test]
    fn only_tables_with_our_mark_are_replaced() {
        let create = json!({"nftables": [{"create": {}}]});
        let verbs = |left: &[(&str, &str)]| {
            let left = left
                .iter()
                .map(|(family, chain)| (((*family).to_owned(), (*chain).to_owned()), 0));
            let commands = make_again(&left.collect(), "owner-47-11", &create);
            let commands = commands["nftables"].as_array().unwrap().clone();
            commands.len()
        };
        assert_eq!(verbs(&[]), 1);
        assert_eq!(verbs(&[("inet", "postrouting")]), 1);
        assert_eq!(verbs(&[("inet", "owner-47-11")]), 3);
        assert_eq!(
            verbs(&[("inet", "owner-47-11"), ("netdev", "owner-47-11")]),
            5
        );
    }

    #[test]
    fn snat_to_an_address() {
        let rule = nat_rule(&nat(Snat::Address("203.0.113.7".parse().unwrap())));
        let verdict = &rule["add"]["rule"]["expr"][2];
        assert_eq!(
            *verdict,
            json!({"snat": {"family": "ip", "addr": "203.0.113.7"}})
        );
    }

    #[test]
    fn the_error_line_is_kept_and_the_echoed_input_is_dropped() {
        let words = "internal:0:0-0: Error: Could not process rule: File exists\n\ntable …\n^^^\n";
        let NftError::Refused(kept) = refused(words.as_bytes()) else {
            panic!()
        };
        assert_eq!(
            kept,
            "internal:0:0-0: Error: Could not process rule: File exists"
        );
    }
}
