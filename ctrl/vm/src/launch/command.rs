//! The command that starts a VM's QEMU without any rights.

use std::process::Stdio;

use tokio::process::Command;

use super::probe::QEMU;
use crate::accel::Accel;
use crate::child::{MARK, SETPRIV, identity};
use crate::spec::VmSpec;

/// QEMU behind setpriv(1), which sets the parent-death signal after the uid, as a change of uid clears
/// it. QEMU gets a process group of its own: Ctrl-C reaches the fabric alone, which then stops its VMs
/// in order.
pub(super) fn command(spec: &VmSpec, argv: &[String]) -> Command {
    let group = match spec.accel {
        Accel::Kvm { group } => group,
        Accel::Tcg => None,
    };
    let mut command = Command::new(SETPRIV);
    command
        .args(identity(spec.uid, group))
        .args([
            "--no-new-privs",
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--pdeathsig",
            "KILL",
            "--",
            QEMU,
        ])
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
