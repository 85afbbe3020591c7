//! `ikv-fabric shell`: a shell in the namespaces of a fabric without root.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use super::Context;
use fabric::progress::say;
use host::lock::StatePaths;
use host::program;
use host::rootless::inside::{self, Place};

/// Environment variable with the socket of the fabric whose namespaces a shell has entered: there
/// every user seems to be root, whose default is another socket.
pub(crate) const SOCKET_OF_SHELL: &str = "IKV_FABRIC_SOCKET";

/// Prepares what belongs to the shell alone, in a mount namespace of its own: the names of the switches
/// for ssh, and the network devices in /sys. Neither is there on every machine.
const PREPARE: &str = "mount --bind \"$1\" /etc/ssh/ssh_config 2>/dev/null
mount -t sysfs sysfs /sys 2>/dev/null
shift
exec \"$@\"";

/// Opens a shell in the namespaces of a fabric that runs without root, or runs a command there: its
/// taps and addresses are visible there, and `ping 192.168.98.6`, `ssh leaf3` and `tcpdump` work. Returns
/// the command's status.
#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// The command [default: $SHELL].
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// # Errors
/// When no fabric runs, or it is another user's. Otherwise this process becomes the command, so that
/// the function does not return.
pub(crate) fn run(context: &Context, args: &ShellArgs) -> anyhow::Result<()> {
    let socket = context.client.socket();
    let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
    let mut command = match inside::place(&socket) {
        Place::Inside { pid } => {
            let mut command = inside::enter(pid, "unshare");
            command.args([
                "--mount",
                "--propagation",
                "slave",
                "--",
                "sh",
                "-c",
                PREPARE,
                "sh",
            ]);
            command.arg(StatePaths::beside(&socket).ssh.join("config"));
            command.args(words(args));
            command
        }
        Place::Here => {
            let words = words(args);
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]);
            command
        }
        Place::Foreign { uid } => anyhow::bail!(
            "the fabric at {} is that of user {uid}, who alone may enter its namespaces: \
             `sudo -u '#{uid}' ikv-fabric --socket {0} shell`",
            socket.display()
        ),
        Place::Nowhere => anyhow::bail!(
            "no fabric runs at {}: start one with `ikv-fabric run`, or name another --socket",
            socket.display()
        ),
    };
    if args.command.is_empty() {
        say("In the fabric's namespaces; `exit` leaves them.");
    }
    let error = command
        .env(SOCKET_OF_SHELL, &socket)
        .env("PATH", path_with_tools())
        .exec();
    anyhow::bail!(
        "cannot start {}: {error}; nsenter and unshare are in the package util-linux",
        command.get_program().display()
    )
}

fn words(args: &ShellArgs) -> Vec<OsString> {
    if !args.command.is_empty() {
        return args.command.clone();
    }
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    vec![shell.unwrap_or_else(|| "/bin/sh".into())]
}

/// PATH with the folders of the administrators' tools, such as tcpdump, which may be used in there.
fn path_with_tools() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for folder in program::ADMINISTRATORS.map(PathBuf::from) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    std::env::join_paths(folders).unwrap_or(path)
}
