//! Our nftables table, `inet ikv-fabric`, as JSON for `nft -j` (libnftables-json(5)).
//!
//! It holds, and nothing else does:
//! - for each tap a chain at that device's ingress hook that drops everything. AF_PACKET reads
//!   before that hook, so the fabric sees the frames and the host's stack (and a bridge that
//!   somebody puts the tap on) does not. One chain a tap: it can be put back alone when its tap
//!   is made anew, the kernel's limit of 256 devices a chain does not matter, and loading 282
//!   of them takes 8 ms;
//! - source NAT for what leaves the range;
//! - an empty chain whose name tells which fabric the table belongs to.
//!
//! The inet family has an ingress hook since Linux 5.10.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::program;
use crate::plan::{Nat, Snat, TABLE};

/// Why a ruleset could not be loaded or read.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// No such program.
    #[error("nft is not installed; `apt install nftables` mends it")]
    Missing,
    /// It could not be started or fed.
    #[error("nft cannot be run: {0}")]
    Run(#[from] io::Error),
    /// It refused; the kernel may lack nf_tables or one of its parts.
    #[error("nft refused: {0}")]
    Refused(String),
    /// It printed something else than JSON.
    #[error("nft printed what is no JSON: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// The commands that make the table; they fail if a table of this name exists.
pub fn create_table(guard: &[String], nat: Option<&Nat>, owner_chain: &str) -> Value {
    let table = json!({"create": {"table": {"family": "inet", "name": TABLE}}});
    let mut commands = vec![table, chain(owner_chain, json!({}))];
    commands.extend(guard.iter().map(|tap| guard_chain(tap)));
    if let Some(nat) = nat {
        commands.push(chain(
            "postrouting",
            // 100 is `srcnat`.
            json!({"type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}),
        ));
        commands.push(nat_rule(nat));
    }
    json!({"nftables": commands})
}

/// The commands that put the guard of one tap back, whether or not its chain is still there.
/// (Until Linux 6.15 a chain goes with its device.)
pub fn guard_again(tap: &str) -> Value {
    let name = json!({"chain": {"family": "inet", "table": TABLE, "name": guard_name(tap)}});
    // To delete a chain that is not there is an error, to add one that is there is none.
    json!({"nftables": [guard_chain(tap), {"delete": name}, guard_chain(tap)]})
}

/// The commands that remove the table: all or nothing, so only if the owner chain is there.
pub fn delete_table(owner_chain: &str) -> Value {
    json!({"nftables": [
        {"delete": {"chain": {"family": "inet", "table": TABLE, "name": owner_chain}}},
        {"delete": {"table": {"family": "inet", "name": TABLE}}},
    ]})
}

fn guard_name(tap: &str) -> String {
    format!("guard-{tap}")
}

fn guard_chain(tap: &str) -> Value {
    chain(
        &guard_name(tap),
        json!({"type": "filter", "hook": "ingress", "prio": 0, "dev": tap, "policy": "drop"}),
    )
}

fn chain(name: &str, mut with: Value) -> Value {
    with["family"] = json!("inet");
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
    json!({"add": {"rule": {"family": "inet", "table": TABLE, "chain": "postrouting", "expr": [
        {"match": {"op": "==", "left": field("saddr"), "right": range}},
        {"match": {"op": "!=", "left": field("daddr"), "right": range}},
        verdict,
    ]}}})
}

/// Loads commands in one transaction.
///
/// # Errors
/// [`NftError::Refused`] with nft's own words; nothing was changed then.
pub fn load(commands: &Value) -> Result<(), NftError> {
    let mut child = nft()?
        .args(["-j", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(&serde_json::to_vec(commands)?) {
            // It may have failed before reading; its words tell more than ours.
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

/// Removes the table if our owner chain is in it; no error if there is no such table.
///
/// # Errors
/// When nft cannot be run, or refuses for another reason.
pub fn remove(owner_chain: &str) -> Result<(), NftError> {
    match load(&delete_table(owner_chain)) {
        Err(NftError::Refused(words)) if words.contains("No such file or directory") => Ok(()),
        other => other,
    }
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
    fn the_table_as_json() {
        let guard = ["ikvm1-3-1".to_owned(), "ikvm1-3-2".to_owned()];
        let table = create_table(&guard, Some(&nat(Snat::Masquerade)), "owner-47-11");
        insta::assert_snapshot!(serde_json::to_string_pretty(&table).unwrap());
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
    fn the_error_line_is_kept_and_the_echo_is_not() {
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
