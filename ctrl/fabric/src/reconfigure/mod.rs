//! A running switch changes without a restart: NICs are plugged into and out of its QEMU, its kernel,
//! FRR and dnsmasq are given the differences, and its files are replaced. Afterwards it is as if it
//! had started so; BGP sessions that stay were never down.
//!
//! Whether that can be, and what it takes, is decided by [`can_be_live`], of which all but the state
//! of the VM is pure ([`frr_conf::change`] and what is here). [`reconfigure`] does it.

use std::time::Duration;

use frr_conf::{Change, SwitchConf, Unchangeable};

use model::printable;
use vm::agent::{AgentError, Limits, MAX_STDIN};
use vm::seed::{self, SeedError, SeedFile};
use vm::{CannotPlug, PlugError, Vm, VmSpec};

/// Time for the guest to set itself up: a few processes, of which vtysh is the slowest. Idle it
/// takes 1 to 2 s under TCG, of nine busy ones ten times that.
const SET_UP: Duration = Duration::from_secs(60);

/// The longest output of the guest that is read, in bytes.
const WORDS: usize = 64 << 10;

/// Characters of the output that an error shows.
const SHOWN: usize = 300;

/// Where the guest finds the commands.
const FOLDER: &str = "run/ikv/change";

/// Files that may be replaced: [`Change`] brings their effects about, or they are read whenever they
/// are needed.
const REPLACEABLE: [&str; 7] = [
    "etc/dnsmasq.conf",
    "etc/frr/frr.conf",
    "etc/hosts",
    "etc/ikv/network.batch",
    "etc/ikv/nics",
    "etc/ssh/ssh_known_hosts",
    "root/.ssh/authorized_keys",
];

/// Everything that a switch is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchMake {
    /// The VM and its devices.
    pub spec: VmSpec,
    /// The configuration of FRR, dnsmasq and the interfaces.
    pub conf: SwitchConf,
    /// The files on its disk; the rendered configuration is among them.
    pub files: Vec<SeedFile>,
}

/// Why a change needs a restart of the switch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestartReason {
    /// The VM differs in something other than NICs that can be plugged.
    #[error(transparent)]
    Vm(#[from] CannotPlug),
    /// The configuration differs in something that only a start sets.
    #[error(transparent)]
    Conf(#[from] Unchangeable),
    /// A file that is read at a start only.
    #[error("/{0} takes effect only at a start")]
    File(String),
    /// More than the guest agent takes.
    #[error("{0} bytes of files have changed, and its guest agent takes {MAX_STDIN}")]
    TooMuch(usize),
}

/// Why a change failed half-way. A restart makes the switch what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconfigureError {
    /// The change needs a restart; nothing was done.
    #[error(transparent)]
    Cannot(#[from] RestartReason),
    /// QEMU refused to plug a NIC in or out.
    #[error(transparent)]
    Plug(#[from] PlugError),
    /// The guest agent does not answer.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The commands in the guest failed.
    #[error("the guest ended the change with status {status}: {words}")]
    Guest {
        /// As a shell reports it.
        status: i32,
        /// The end of its output, escaped.
        words: String,
    },
}

/// A change that needs no restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveChange {
    change: Change,
    /// The archive that the guest unpacks.
    archive: Vec<u8>,
}

/// Decides whether a running switch can change to `new` without a restart. `old` is what it was made
/// from or last changed to.
///
/// # Errors
/// The first thing that only a start can change.
pub fn can_be_live(
    vm: &Vm,
    old: &SwitchMake,
    new: &SwitchMake,
) -> Result<LiveChange, RestartReason> {
    vm.can_plug(&new.spec)?;
    compare(old, new)
}

/// The part of the decision that is pure.
fn compare(old: &SwitchMake, new: &SwitchMake) -> Result<LiveChange, RestartReason> {
    let change = frr_conf::change(&old.conf, &new.conf)?;
    let mut files = changed(&old.files, &new.files)?;
    files.extend(orders(&change));
    let archive = seed::archive(&files).map_err(|error| match error {
        SeedError::Path(path) | SeedError::Twice(path) | SeedError::Mode(path, _) => {
            RestartReason::File(path)
        }
        other => RestartReason::File(other.to_string()),
    })?;
    if archive.len() > MAX_STDIN {
        return Err(RestartReason::TooMuch(archive.len()));
    }
    Ok(LiveChange { change, archive })
}

/// The files that are new or different.
fn changed(old: &[SeedFile], new: &[SeedFile]) -> Result<Vec<SeedFile>, RestartReason> {
    let missing = |path: &str| !new.iter().any(|file| file.path == path);
    if let Some(gone) = old.iter().find(|file| missing(&file.path)) {
        return Err(RestartReason::File(gone.path.clone()));
    }
    let changed: Vec<_> = (new.iter())
        .filter(|file| !old.contains(file))
        .cloned()
        .collect();
    let replaceable = |file: &&SeedFile| REPLACEABLE.contains(&file.path.as_str());
    match changed.iter().find(|file| !replaceable(file)) {
        Some(file) => Err(RestartReason::File(file.path.clone())),
        None => Ok(changed),
    }
}

/// The commands for the guest, as files for `guest.sh`.
fn orders(change: &Change) -> Vec<SeedFile> {
    let file = |name: &str, lines: &[String]| SeedFile {
        path: format!("{FOLDER}/{name}"),
        mode: 0o600,
        bytes: text(lines).into_bytes(),
    };
    let nics = change
        .plugged
        .iter()
        .map(|(mac, nic)| format!("{mac} {nic}"));
    let mut files = vec![
        file("nics", &nics.collect::<Vec<_>>()),
        file("network", &change.network),
        file("frr", &change.frr),
    ];
    if change.restart_dnsmasq {
        files.push(file("dnsmasq", &[]));
    }
    files
}

fn text(lines: &[String]) -> String {
    lines
        .iter()
        .flat_map(|line| [line.as_str(), "\n"])
        .collect()
}

/// Changes a running switch to `spec` by what [`can_be_live`] has found. Its new disk must have been
/// written, and the sockets and taps of new NICs must exist.
///
/// # Errors
/// See [`ReconfigureError`].
pub async fn reconfigure(vm: &Vm, spec: VmSpec, live: &LiveChange) -> Result<(), ReconfigureError> {
    if live.change.unplugged.is_empty() {
        vm.plug(spec).await?;
        return run(vm, include_str!("guest.sh"), &live.archive).await;
    }
    run(vm, include_str!("guest.sh"), &live.archive).await?;
    vm.plug(spec).await?;
    let afterwards = text(&live.change.frr_afterwards);
    run(vm, include_str!("forget.sh"), afterwards.as_bytes()).await
}

async fn run(vm: &Vm, script: &str, input: &[u8]) -> Result<(), ReconfigureError> {
    let command = ["/bin/busybox", "sh", "-c", script].map(Into::into);
    let limits = Limits {
        time: SET_UP,
        output: WORDS,
    };
    let output = vm.agent().exec(&command, input, limits).await?;
    match output.status.shell_code() {
        0 => Ok(()),
        status => {
            let said = [output.stdout, output.stderr].concat();
            Err(ReconfigureError::Guest {
                status,
                words: printable::tail(said.trim_ascii(), SHOWN),
            })
        }
    }
}

#[cfg(test)]
mod tests;
