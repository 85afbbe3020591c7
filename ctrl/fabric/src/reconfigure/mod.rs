//! Changes a running switch without a restart: plugs NICs into and out of its QEMU, sends the
//! differences to its kernel, FRR and dnsmasq, and replaces its files. The result is the same as
//! after a restart, and BGP sessions that stay are never interrupted.
//!
//! [`can_be_live`] decides whether this is possible and what it takes. All of that decision except
//! the VM's state is pure ([`frr_conf::change`] and this module). [`reconfigure`] carries it out.

use std::time::Duration;

use frr_conf::{Change, SwitchConf, Unchangeable};

use model::printable;
use vm::agent::{AgentError, Limits, MAX_STDIN};
use vm::seed::{self, SeedError, SeedFile};
use vm::{CannotPlug, PlugError, Vm, VmSpec};

/// How long the guest may take to reconfigure itself. It starts a few processes, of which vtysh is
/// the slowest: 1 to 2 s under TCG when idle, and ten times as long with nine busy switches.
const SET_UP: Duration = Duration::from_secs(60);

/// The most output of the guest that is read, in bytes.
const WORDS: usize = 64 << 10;

/// How many characters of the output an error shows.
const SHOWN: usize = 300;

/// The folder where the guest finds the commands.
const FOLDER: &str = "run/ikv/change";

/// Files that can be replaced while the switch runs: [`Change`] puts them into effect, or programs
/// read them again each time.
const REPLACEABLE: [&str; 7] = [
    "etc/dnsmasq.conf",
    "etc/frr/frr.conf",
    "etc/hosts",
    "etc/ikv/network.batch",
    "etc/ikv/nics",
    "etc/ssh/ssh_known_hosts",
    "root/.ssh/authorized_keys",
];

/// Everything that determines a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchMake {
    /// The specification of the VM and its devices.
    pub spec: VmSpec,
    /// The configuration of FRR, dnsmasq and the interfaces.
    pub conf: SwitchConf,
    /// The files on its disk, including the rendered configuration.
    pub files: Vec<SeedFile>,
}

/// Why a change needs a restart of the switch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestartReason {
    /// The VM differs in something other than NICs, or in a NIC that cannot be plugged while it
    /// runs.
    #[error(transparent)]
    Vm(#[from] CannotPlug),
    /// The configuration differs in something that takes effect only at a start.
    #[error(transparent)]
    Conf(#[from] Unchangeable),
    /// A file that the switch reads only at its start.
    #[error("/{0} takes effect only at a start")]
    File(String),
    /// The guest agent accepts less input in one call.
    #[error("{0} bytes of files have changed, and its guest agent takes {MAX_STDIN}")]
    TooMuch(usize),
}

/// Why a change failed half-way. A restart brings the switch to its new make.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconfigureError {
    /// The change needs a restart; nothing was changed.
    #[error(transparent)]
    Cannot(#[from] RestartReason),
    /// QEMU refused to plug a NIC in or to remove it.
    #[error(transparent)]
    Plug(#[from] PlugError),
    /// The guest agent does not answer.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The commands in the guest failed.
    #[error("the guest ended the change with status {status}: {words}")]
    Guest {
        /// The exit status, as a shell reports it.
        status: i32,
        /// The end of the output, with control characters escaped.
        words: String,
    },
}

/// A change that needs no restart, ready to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveChange {
    change: Change,
    /// The tar archive that the guest unpacks: files and commands.
    archive: Vec<u8>,
}

/// Decides whether a running switch can change to `new` without a restart. `old` is the make that
/// it was started with or last changed to.
///
/// # Errors
/// The first difference that takes effect only at a start.
pub fn can_be_live(
    vm: &Vm,
    old: &SwitchMake,
    new: &SwitchMake,
) -> Result<LiveChange, RestartReason> {
    vm.can_plug(&new.spec)?;
    compare(old, new)
}

/// The pure part of the decision.
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

/// The files that are new or differ.
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

/// Changes a running switch to `spec` as [`can_be_live`] has decided. The caller must have written
/// its new disk and created the sockets and taps of new NICs.
///
/// # Errors
/// See [`ReconfigureError`].
pub async fn reconfigure(vm: &Vm, spec: VmSpec, live: &LiveChange) -> Result<(), ReconfigureError> {
    // New NICs are plugged in before the guest configures them, removed ones after the guest has
    // stopped using them.
    if live.change.unplugged.is_empty() {
        vm.plug(spec).await?;
        return run(vm, include_str!("guest.sh"), &live.archive).await;
    }
    run(vm, include_str!("guest.sh"), &live.archive).await?;
    vm.plug(spec).await?;
    // FRR forgets an interface only once it is gone.
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
