//! The command that starts a VM's QEMU in its jail.

use std::process::Stdio;

use tokio::process::Command;

use super::probe::QEMU;
use crate::accel::Accel;
use crate::child::{MARK, identity};
use crate::jail::Jail;
use crate::spec::VmSpec;

/// QEMU behind the programs that jail it. It gets a process group of its own: Ctrl-C reaches the
/// fabric alone, which then stops its VMs in order.
pub(super) fn command(jail: &Jail, spec: &VmSpec, argv: &[String]) -> Command {
    let group = match spec.accel {
        Accel::Kvm { group } => group,
        Accel::Tcg => None,
    };
    let chain = jail.chain(spec, &identity(spec.uid, group));
    let mut command = Command::new(&chain[0]);
    command
        .args(&chain[1..])
        .arg(QEMU)
        .args(argv)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env(MARK, &spec.run_dir)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}
