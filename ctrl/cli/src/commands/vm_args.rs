//! `ikv-fabric vm-args`: what plugs a VM into a rack, for QEMU, libvirt or Cloud Hypervisor.

mod remarks;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::Write;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;

use clap::Args;
use serde_json::json;

use super::Context;
use super::configuration::ConfigArgs;
use crate::completion::place_names;
use api::ClientError;
use fabric::progress::say;
use host::lock::StatePaths;
use host::rootless::inside;
use model::config::AccelChoice;
use model::impairment::mebibytes;
use model::plugging::{PlugKind, PlugOptions, Vmm};
use vm::accel::{Accel, Facts, decide};

/// Prints the QEMU options that plug a VM into the fabric: ready to paste on a terminal, elsewhere
/// all in one line, as for `qemu-system-x86_64 … $(ikv-fabric vm-args rack1:u3)`. Or the same for
/// another program that runs VMs. Standard output gets only what can be pasted.
#[derive(Debug, Args)]
pub(crate) struct VmArgsArgs {
    /// Where to plug in: rack1:u3 for both NICs; rack1:u3:1 or ikvm1-3-1 for one; ipmi for the VM
    /// that manages the switches.
    #[arg(value_name = "PLACE", add = place_names())]
    place: String,
    /// How the VM is plugged in.
    #[arg(long, value_enum, default_value_t = PlugKind::Tap)]
    nic: PlugKind,
    /// Print elements for the XML of a libvirt domain instead, which says its memory by itself.
    #[arg(long, conflicts_with = "memory")]
    libvirt: bool,
    /// Print the options of Cloud Hypervisor instead, which needs KVM.
    #[arg(long, conflicts_with_all = ["libvirt", "accel"])]
    cloud_hypervisor: bool,
    /// The VM's memory, which vhost-user shares with the fabric. If QEMU gets -m too, it must have
    /// the same value.
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "1G")]
    memory: u32,
    /// What QEMU will run under: kvm, tcg, or auto for KVM where you can use it.
    #[arg(long, value_enum, default_value_t)]
    accel: AccelChoice,
    #[command(flatten)]
    config: ConfigArgs,
}

/// # Errors
/// When the configuration is wrong, or the fabric has no such position.
pub(crate) async fn run(context: &Context, args: &VmArgsArgs) -> anyhow::Result<()> {
    let plug = args.plug();
    let Printed { parts, group } = parts_for(context, args, &plug).await?;
    let on_terminal = std::io::stdout().is_terminal();
    let xml = plug.vmm == Vmm::Libvirt;
    let report = if xml {
        json!({ "xml": parts })
    } else {
        json!({ "args": parts })
    };
    context.report(&report, || match (xml, on_terminal) {
        (true, _) => parts.join("\n") + "\n",
        (false, true) => pasteable(&parts),
        (false, false) => parts.join(" ") + "\n",
    })?;
    if context.json {
        return Ok(());
    }
    let splits = |part: &String| part.contains(char::is_whitespace);
    if !on_terminal && !xml && parts.iter().any(splits) {
        say(
            "note: there is a space in the fabric's path, at which a shell would split: use --json",
        );
    }
    let place = inside::place(context.client.socket());
    for line in remarks::remarks(&plug, &place, group) {
        say(&format!("note: {line}"));
    }
    Ok(())
}

/// What is printed to be pasted, and what a remark depends on.
struct Printed {
    /// Words of a command line, or elements of XML.
    parts: Vec<String>,
    /// Whether `host.plug_group` lets a group in.
    group: bool,
}

impl VmArgsArgs {
    fn plug(&self) -> PlugOptions {
        let vmm = self.vmm();
        // Cloud Hypervisor has no TCG.
        let tcg = self.nic == PlugKind::VhostUser && vmm != Vmm::CloudHypervisor;
        PlugOptions {
            nic: self.nic,
            tcg: tcg && under_tcg(self.accel),
            memory_mib: self.memory,
            vmm,
        }
    }

    fn vmm(&self) -> Vmm {
        match (self.libvirt, self.cloud_hypervisor) {
            (true, _) => Vmm::Libvirt,
            (_, true) => Vmm::CloudHypervisor,
            _ => Vmm::Qemu,
        }
    }
}

/// Whether QEMU will run under TCG; `kvm` never means that, even where KVM does not work.
fn under_tcg(accel: AccelChoice) -> bool {
    let decision = decide(accel, &Facts::read());
    decision.is_ok_and(|decision| decision.accel == Accel::Tcg)
}

/// Asks the running fabric, unless a configuration is named or no fabric runs.
async fn parts_for(
    context: &Context,
    args: &VmArgsArgs,
    plug: &PlugOptions,
) -> anyhow::Result<Printed> {
    if args.config.is_default() {
        match context.client.vm_args(&args.place, plug).await {
            Err(ClientError::NotRunning(_)) => {}
            answer => {
                let parts = answer?;
                let group = plug.needs_group() && lets_group_in(context).await;
                return Ok(Printed { parts, group });
            }
        }
    }
    let paths = StatePaths::beside(&std::path::absolute(context.client.socket())?);
    let config = args.config.config()?;
    let topology = model::topology::build(&config)?;
    Ok(Printed {
        parts: fabric::vm_args::options(&topology, &paths, &args.place, plug)?,
        group: config.host.plug_group.is_some(),
    })
}

/// Whether the running fabric's sockets are open to a group, as their mode says.
async fn lets_group_in(context: &Context) -> bool {
    let positions = context.client.positions().await;
    let socket = positions
        .ok()
        .and_then(|all| Some(all.places.first()?.socket.clone()));
    let meta = socket.and_then(|socket| socket.symlink_metadata().ok());
    meta.is_some_and(|meta| meta.mode() & 0o060 == 0o060)
}

/// Parses the VM's memory, in MiB.
fn memory(text: &str) -> Result<u32, String> {
    mebibytes(text)
        .filter(|mib| *mib > 0)
        .ok_or_else(|| format!("\"{text}\" is not an amount of memory such as 512M or 2G"))
}

/// Writes one option with its value on each line, as a shell command continues over lines.
fn pasteable(options: &[String]) -> String {
    let mut text = String::new();
    let lines = options.chunks(2).count();
    for (index, pair) in options.chunks(2).enumerate() {
        let end = if index + 1 < lines { " \\" } else { "" };
        let words: Vec<_> = pair.iter().map(|word| quoted(word)).collect();
        let _ = writeln!(text, "{}{end}", words.join(" "));
    }
    text
}

/// A word as a shell takes it.
fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,.:/+@%".contains(c);
    if word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', "'\\''")).into()
    }
}
