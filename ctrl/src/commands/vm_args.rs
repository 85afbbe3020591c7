//! `ikv-fabric vm-args`: the QEMU options that plug a VM into a rack.

use std::fmt::Write;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::configuration::ConfigArgs;
use super::{Context, print, print_json};
use crate::api::{ClientError, segment};
use crate::topology::{End, EndOwner, Topology, UnknownName};

/// Prints the QEMU options that plug a VM into the fabric, ready to paste.
#[derive(Debug, Args)]
pub struct VmArgsArgs {
    /// Where: rack1:u3 for both NICs; rack1:u3:1 or ikvm1-3-1 for one.
    #[arg(value_name = "PLACE")]
    place: String,
    /// How the VM is plugged in.
    #[arg(long, value_enum, default_value_t = Nic::Tap)]
    nic: Nic,
    #[command(flatten)]
    config: ConfigArgs,
}

/// How a VM is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Nic {
    /// By a tap that the fabric made and QEMU opens by name.
    Tap,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct VmArgsJson {
    args: Vec<String>,
}

/// # Errors
/// What is wrong with the configuration, or no such place in a rack.
pub async fn run(context: &Context, args: &VmArgsArgs) -> anyhow::Result<ExitCode> {
    let options = match args.nic {
        Nic::Tap => options(context, args).await?,
    };
    if context.json {
        print_json(&VmArgsJson { args: options })?;
    } else {
        print(&pasteable(&options))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Those of the running fabric, unless a configuration is named or none runs.
async fn options(context: &Context, args: &VmArgsArgs) -> anyhow::Result<Vec<String>> {
    if args.config.is_default() {
        let path = format!("/v1/vm-args/{}", segment(&args.place));
        match context.client.get(&path).await {
            Err(ClientError::NotRunning(_)) => {}
            answer => return Ok(answer?),
        }
    }
    Ok(tap_options(&args.config.topology()?, &args.place)?)
}

/// The QEMU options for `place` (`rack1:u3`, `rack1:u3:1` or `ikvm1-3-1`): a tap and a virtio
/// NIC for each of its NICs. No script, because Debian's /etc/qemu-ifup would put the tap into
/// the bridge of the default route.
///
/// # Errors
/// [`UnknownName`] if there is no such place, or if it is not a server's.
pub fn tap_options(topology: &Topology, place: &str) -> Result<Vec<String>, UnknownName> {
    let mut options = Vec::new();
    for (index, (end, rack, u, nic)) in topology.server_nics(place)?.into_iter().enumerate() {
        let mac = topology.server_mac(rack, u, nic);
        let tap = &end.tap;
        options.extend([
            "-netdev".to_owned(),
            format!("tap,id=net{index},ifname={tap},script=no,downscript=no"),
            "-device".to_owned(),
            format!("virtio-net-pci,netdev=net{index},mac={mac}"),
        ]);
    }
    Ok(options)
}

impl Topology {
    /// The ends of a server with rack, U and NIC: both of a position, or the one that is named.
    fn server_nics(&self, place: &str) -> Result<Vec<(&End, u16, u16, u16)>, UnknownName> {
        let named = |end: &End| {
            let position = end.alias.rsplit_once(':').map(|(position, _)| position);
            end.tap == place || end.alias == place || position == Some(place)
        };
        let servers = || {
            self.ends().filter_map(|found| match found.end.owner {
                EndOwner::Server { rack, u, nic } => Some((found.end, rack, u, nic)),
                EndOwner::Host | EndOwner::Switch { .. } => None,
            })
        };
        let mut found: Vec<_> = servers().filter(|(end, ..)| named(end)).collect();
        found.sort_by_key(|(.., nic)| *nic);
        if found.is_empty() {
            let positions = servers().filter_map(|(end, ..)| end.alias.rsplit_once(':'));
            let positions = positions.map(|(position, _)| position);
            let names = servers().flat_map(|(end, ..)| [end.alias.as_str(), end.tap.as_str()]);
            let example = "rack1:u3, rack1:u3:1, ikvm1-3-1";
            return Err(UnknownName::new(
                "server",
                place,
                positions.chain(names),
                example,
            ));
        }
        Ok(found)
    }
}

/// One option with its value a line, for a shell.
fn pasteable(options: &[String]) -> String {
    let mut text = String::new();
    let lines = options.chunks(2).count();
    for (index, pair) in options.chunks(2).enumerate() {
        let end = if index + 1 < lines { " \\" } else { "" };
        let _ = writeln!(text, "{}{end}", pair.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::topology::build;

    fn text(place: &str) -> String {
        let topology = build(&Config::default()).unwrap();
        match tap_options(&topology, place) {
            Ok(options) => pasteable(&options),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn both_nics_of_a_position() {
        insta::assert_snapshot!(text("rack1:u3"), @r"
        -netdev tap,id=net0,ifname=ikvm1-3-1,script=no,downscript=no \
        -device virtio-net-pci,netdev=net0,mac=02:69:6b:01:03:01 \
        -netdev tap,id=net1,ifname=ikvm1-3-2,script=no,downscript=no \
        -device virtio-net-pci,netdev=net1,mac=02:69:6b:01:03:02
        ");
    }

    #[test]
    fn one_nic_by_alias_or_tap() {
        let expected = "-netdev tap,id=net0,ifname=ikvm2-6-2,script=no,downscript=no \\\n\
                        -device virtio-net-pci,netdev=net0,mac=02:69:6b:02:06:02\n";
        assert_eq!(text("rack2:u6:2"), expected);
        assert_eq!(text("ikvm2-6-2"), expected);
    }

    #[test]
    fn what_is_no_servers_place() {
        assert_eq!(
            text("rack1:u33"),
            "there is no server \"rack1:u33\" in this fabric; did you mean rack1:u3 or rack1:u13 \
             or rack1:u23?"
        );
        assert_eq!(
            text("leaf1:u3"),
            "there is no server \"leaf1:u3\" in this fabric; names look like rack1:u3, \
             rack1:u3:1, ikvm1-3-1; `ikv-fabric topology` prints them all"
        );
    }
}
