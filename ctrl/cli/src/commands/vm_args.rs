//! `ikv-fabric vm-args`: the QEMU options that plug a VM into a rack.

use std::borrow::Cow;
use std::fmt::Write;
use std::io::IsTerminal;

use clap::Args;
use serde_json::json;

use super::Context;
use super::configuration::ConfigArgs;
use crate::completion::place_names;
use api::ClientError;
use fabric::progress::say;
use host::lock::StatePaths;
use host::rootless::inside::{self, Place};
use model::config::AccelChoice;
use model::impairment::mebibytes;
use model::plugging::{PlugKind, PlugOptions};
use vm::accel::{Accel, Facts, decide};

/// Prints the QEMU options that plug a VM into the fabric: ready to paste on a terminal, elsewhere
/// all in one line, as for `qemu-system-x86_64 … $(ikv-fabric vm-args rack1:u3)`.
#[derive(Debug, Args)]
pub(crate) struct VmArgsArgs {
    /// Where to plug in: rack1:u3 for both NICs; rack1:u3:1 or ikvm1-3-1 for one; ipmi for the VM
    /// that manages the switches.
    #[arg(value_name = "PLACE", add = place_names())]
    place: String,
    /// How the VM is plugged in.
    #[arg(long, value_enum, default_value_t = PlugKind::Tap)]
    nic: PlugKind,
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
    let plug = PlugOptions {
        nic: args.nic,
        tcg: args.nic == PlugKind::VhostUser && under_tcg(args.accel),
        memory_mib: args.memory,
    };
    let options = options_for(context, args, &plug).await?;
    let on_terminal = std::io::stdout().is_terminal();
    context.report(&json!({ "args": options }), || {
        if on_terminal {
            pasteable(&options)
        } else {
            options.join(" ") + "\n"
        }
    })?;
    if !context.json {
        if !on_terminal
            && options
                .iter()
                .any(|option| option.contains(char::is_whitespace))
        {
            say(
                "note: there is a space in the fabric's path, at which a shell would split: use --json",
            );
        }
        let place = inside::place(context.client.socket());
        for line in remarks(&plug, &place) {
            say(&format!("note: {line}"));
        }
    }
    Ok(())
}

/// Whether QEMU will run under TCG; `kvm` never means that, even where KVM does not work.
fn under_tcg(accel: AccelChoice) -> bool {
    let decision = decide(accel, &Facts::read());
    decision.is_ok_and(|decision| decision.accel == Accel::Tcg)
}

/// What the options do not show by themselves. It goes to standard error, so that a script can use
/// standard output as it is.
fn remarks(plug: &PlugOptions, place: &Place) -> Vec<String> {
    if plug.nic == PlugKind::Tap {
        let inside = matches!(place, Place::Inside { .. });
        let line = "the tap is in the fabric's network namespace: start QEMU by `ikv-fabric shell -- \
                    qemu-system-x86_64 …`; with --nic vhost-user it may run outside";
        return inside.then(|| line.to_owned()).into_iter().collect();
    }
    let mut lines = vec![format!(
        "size= is the VM's memory ({} MiB; --memory changes it); -m must have the same value or be \
         left out",
        plug.memory_mib
    )];
    if plug.tcg {
        lines.push(
            "vectors=0 because QEMU 7.2 crashes with vhost-user and MSI-X under TCG; under KVM \
             leave it out (--accel kvm)"
                .to_owned(),
        );
    }
    lines
}

/// Asks the running fabric for the options, unless a configuration is named or no fabric runs.
async fn options_for(
    context: &Context,
    args: &VmArgsArgs,
    plug: &PlugOptions,
) -> anyhow::Result<Vec<String>> {
    if args.config.is_default() {
        match context.client.vm_args(&args.place, plug).await {
            Err(ClientError::NotRunning(_)) => {}
            answer => return Ok(answer?),
        }
    }
    let paths = StatePaths::beside(&std::path::absolute(context.client.socket())?);
    let topology = args.config.topology()?;
    Ok(fabric::vm_args::options(
        &topology,
        &paths,
        &args.place,
        plug,
    )?)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fabric::vm_args::options;

    use super::*;
    use model::config::Config;
    use model::topology::build;

    fn text(place: &str) -> String {
        by(place, &PlugOptions::default())
    }

    fn by(place: &str, plug: &PlugOptions) -> String {
        let topology = build(&Config::default()).unwrap();
        let paths = StatePaths::beside(Path::new("/run/ikv-fabric/control.sock"));
        match options(&topology, &paths, place, plug) {
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
    fn a_tap_with_several_queues_is_opened_with_all_of_them() {
        let sets = ["host.tap_queues=4".to_owned()];
        let topology = build(&model::config::parse("f", "", &sets).unwrap()).unwrap();
        let paths = StatePaths::beside(Path::new("/run/ikv-fabric/control.sock"));
        let options = options(&topology, &paths, "rack1:u3:1", &PlugOptions::default());
        insta::assert_snapshot!(pasteable(&options.unwrap()), @r"
        -netdev tap,id=net0,ifname=ikvm1-3-1,script=no,downscript=no,queues=4 \
        -device virtio-net-pci,netdev=net0,mac=02:69:6b:01:03:01,mq=on,vectors=10
        ");
    }

    #[test]
    fn by_vhost_user() {
        let mut plug = PlugOptions {
            nic: PlugKind::VhostUser,
            tcg: true,
            ..PlugOptions::default()
        };
        insta::assert_snapshot!(by("rack1:u3", &plug), @r"
        -object memory-backend-memfd,id=ram,size=1024M,share=on \
        -machine memory-backend=ram \
        -chardev socket,id=cable0,path=/run/ikv-fabric/vhost/ikvm1-3-1.sock,reconnect=1 \
        -netdev vhost-user,id=net0,chardev=cable0 \
        -device virtio-net-pci,netdev=net0,mac=02:69:6b:01:03:01,vectors=0 \
        -chardev socket,id=cable1,path=/run/ikv-fabric/vhost/ikvm1-3-2.sock,reconnect=1 \
        -netdev vhost-user,id=net1,chardev=cable1 \
        -device virtio-net-pci,netdev=net1,mac=02:69:6b:01:03:02,vectors=0
        ");
        plug.tcg = false;
        assert!(!by("rack1:u3", &plug).contains("vectors"));
    }

    #[test]
    fn the_vm_that_manages_the_switches() {
        let sets = ["ipmi.enabled=true".to_owned()];
        let topology = build(&model::config::parse("f", "", &sets).unwrap()).unwrap();
        let paths = StatePaths::beside(Path::new("/run/ikv-fabric/control.sock"));
        let plug = PlugOptions::default();
        let by = |place| options(&topology, &paths, place, &plug).unwrap();
        assert_eq!(
            pasteable(&by("ipmi")),
            "-netdev tap,id=net0,ifname=ikipmi,script=no,downscript=no \\\n\
             -device virtio-net-pci,netdev=net0,mac=02:69:6b:00:00:01\n"
        );
        assert_eq!(by("ikipmi"), by("ipmi"));
        assert!(options(&topology, &paths, "bripmi", &plug).is_err());
    }

    #[test]
    fn a_tap_in_another_namespace_is_remarked_and_a_socket_is_not() {
        let mut plug = PlugOptions::default();
        let of_tap = remarks(&plug, &Place::Inside { pid: 7 });
        assert!(of_tap[0].contains("ikv-fabric shell -- "), "{of_tap:?}");
        assert_eq!(remarks(&plug, &Place::Here), Vec::<String>::new());
        plug.nic = PlugKind::VhostUser;
        let of_socket = remarks(&plug, &Place::Inside { pid: 7 });
        assert!(!of_socket.concat().contains("shell"), "{of_socket:?}");
    }

    #[test]
    fn a_shell_takes_a_pasted_path_whole() {
        let words = [
            "-chardev".to_owned(),
            "socket,path=/it's here/a.sock".to_owned(),
        ];
        assert_eq!(
            pasteable(&words),
            "-chardev 'socket,path=/it'\\''s here/a.sock'\n"
        );
    }

    #[test]
    fn memory_is_written_as_for_qemu() {
        assert_eq!(memory("2G"), Ok(2048));
        assert_eq!(memory("512"), Ok(512));
        assert_eq!(memory("64m"), Ok(64));
        for bad in ["", "G", "0", "1T", "-1", "5000000G"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_without_a_server_is_refused() {
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
