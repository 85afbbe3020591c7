//! Starting switches from one saved state for each shape of VM, instead of booting each.
//!
//! A template is a VM of that [shape](crate::shape) that boots on unconnected NICs, with a seed that
//! holds nothing of any switch, until its guest agent answers. No other service runs in it. Its state
//! is saved ([`Launcher::save_state`]) and kept ([`crate::states`]). A switch of that shape starts from
//! it and is then woken: it gets its own MAC addresses, name, keys and configuration, the time of day,
//! and random numbers of its own.
//!
//! # The NICs
//! QEMU does not save a machine with a vhost-user NIC whose back end cannot log what it writes
//! (`VHOST_F_LOG_ALL`). So a template's NICs are on taps, without the features that the fabric's ports
//! do not offer: `qemu.rs` switches those off for all NICs that are or stand for vhost-user ones.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::process::Child;
use tokio::time::timeout;

use crate::agent::{Agent, AgentError, ExitStatus, Limits};
use crate::console::Console;
use crate::fingerprint::hexadecimal;
use crate::keys;
use crate::launch::{LaunchError, Launched, Launcher};
use crate::qmp::{Qmp, QmpError};
use crate::seed::{self, SeedError};
use crate::shape::{key_of, template_of};
use crate::spec::VmSpec;
use crate::states::States;
use crate::stderr::Stderr;
use host::folder::{self, Folder};
use model::printable;

/// The program in the guest that turns a restored template into a switch.
const WAKE: &str = "/usr/lib/ikv/wake";

/// Time for a template to boot. One alone takes 4 s under TCG.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// Time to write its state, 82 MiB by default.
const SAVE_LIMIT: Duration = Duration::from_secs(60);
/// Time for a monitor command.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);
/// Time for QEMU to end.
const QUIT_LIMIT: Duration = Duration::from_secs(5);
/// Time for the agent's first answer, and the pause after a failed attempt.
const PING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(50));
/// Time from the start of a QEMU until its guest is a switch. Nine at once take 6 s under TCG on two
/// cores.
const WAKE_LIMIT: Duration = Duration::from_secs(90);
/// How many random bytes a guest gets for its kernel's pool.
const ENTROPY: usize = 64;

/// Why there is no saved state.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// QEMU did not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Its seed could not be made.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// Its monitor failed.
    #[error(transparent)]
    Monitor(#[from] QmpError),
    /// The guest agent did not answer in time. Has the end of the console.
    #[error("the template did not boot within {BOOT_LIMIT:?}; its console says:\n{0}")]
    Boot(String),
    /// QEMU ended before the state was saved. Has its status and the end of its stderr.
    #[error("QEMU ended: {0}")]
    Ended(String),
    /// The state could not be written. QEMU gives no reason.
    #[error("{path} could not be written{}", full(path))]
    Save {
        /// The folder of the states.
        path: PathBuf,
    },
    /// A file or folder of the state failed.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
}

/// The most likely reason why a state could not be written, if the disk is nearly full.
fn full(path: &Path) -> String {
    let free = path
        .parent()
        .and_then(|folder| rustix::fs::statvfs(folder).ok())
        .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >> 20);
    match free {
        Some(mib @ ..200) => format!(": {mib} MiB are free there"),
        _ => String::new(),
    }
}

impl Launcher {
    /// The shapes of `specs` that have no saved state: each a key, and the index of the first VM of
    /// that shape. The VMs' seeds must have been written.
    pub fn without_state<'s>(
        &self,
        specs: impl IntoIterator<Item = &'s VmSpec>,
    ) -> Vec<(String, usize)> {
        let mut missing: Vec<(String, usize)> = Vec::new();
        let Some(states) = self.states() else {
            return missing;
        };
        for (index, spec) in specs.into_iter().enumerate() {
            if let Some(key) = key_of(spec, states)
                && !states.holds(&key)
                && !missing.iter().any(|(known, _)| *known == key)
            {
                missing.push((key, index));
            }
        }
        missing
    }

    /// Removes the states that were not used for long, but none that one of `specs` starts from.
    pub fn tidy_states<'s>(&self, specs: impl IntoIterator<Item = &'s VmSpec>) {
        if let Some(states) = self.states() {
            let keys = specs.into_iter().filter_map(|spec| key_of(spec, states));
            states.tidy(&keys.collect());
        }
    }

    /// Makes the state for `key`, from which `spec` (among others) starts. `run_dir` is for files and
    /// sockets while it is made. Returns the state's size in bytes.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub async fn save_state(
        &self,
        spec: &VmSpec,
        key: &str,
        run_dir: &Path,
    ) -> Result<u64, TemplateError> {
        match self.states() {
            Some(states) => build(self, states, spec, key, run_dir).await,
            None => Ok(0),
        }
    }
}

/// Boots the template of `spec` in `run_dir`, saves its state for `key`, and ends it. Returns the
/// size of the state in bytes. Dropping the future ends the QEMU and leaves no files.
async fn build(
    launcher: &Launcher,
    states: &States,
    spec: &VmSpec,
    key: &str,
    run_dir: &Path,
) -> Result<u64, TemplateError> {
    let template = template_of(spec, run_dir.to_owned());
    let files = spec.template.as_deref().unwrap_or_default();
    let file = |error| TemplateError::File(run_dir.into(), error);
    Folder::open_or_make(run_dir).map_err(file)?;
    let size = fs::metadata(&spec.seed).map_err(file)?.len();
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    // The restored guest keeps this disk's size, so it must be that of the VM's own seed.
    seed::write_at_least(&template.seed, files, size)?;
    let draft = states.draft(key).map_err(file)?;

    let Launched {
        mut child,
        monitor,
        console: serial,
        bmc: _bmc,
        mut stderr,
        cgroup: _cgroup,
        ..
    } = launcher.launch(&template, None)?;
    let console = Console::default();
    console.connect(serial);
    let monitor = Qmp::open(monitor, BOOT_LIMIT, drop);
    let work = async {
        let monitor = monitor.await?;
        let agent = Agent::new(template.agent_socket());
        if timeout(BOOT_LIMIT, agent.answers(PING)).await.is_err() {
            return Err(TemplateError::Boot(console.tail_escaped(500)));
        }
        let file = draft.file().as_fd();
        let saved = monitor.save(file, launcher.state_files(), SAVE_LIMIT, COMMAND_LIMIT);
        if !saved.await? {
            let path = states.folder().into();
            return Err(TemplateError::Save { path });
        }
        let _ = monitor.execute("quit", None, COMMAND_LIMIT).await;
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        reason = ended(&mut child, &mut stderr) => Err(TemplateError::Ended(reason)),
    };
    let _ = timeout(QUIT_LIMIT, child.wait()).await;
    // Kills a QEMU that has not ended by now.
    drop(child);
    let _ = folder::remove(run_dir);
    outcome?;
    let kept = states.keep(&draft, key);
    kept.map_err(|error| TemplateError::File(states.folder().into(), error))
}

/// Waits for the end of a QEMU and returns its reason.
async fn ended(child: &mut Child, stderr: &mut Stderr) -> String {
    let status = child.wait().await;
    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    format!("{status}: {}", stderr.last_words().await)
}

/// Turns a restored template into a switch. Call it once for each restored guest.
///
/// # Errors
/// The reason, as a sentence without a full stop.
pub(crate) async fn wake(agent: Arc<Agent>) -> Result<(), String> {
    let began = Instant::now();
    let work = async {
        agent.answers(PING).await;
        let entropy: [u8; ENTROPY] = keys::random().map_err(|error| error.to_string())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs());
        let input = format!("{now}\n{}\n", hexadecimal(&entropy));
        let limits = Limits {
            // What the wait for the agent has left.
            time: WAKE_LIMIT.saturating_sub(began.elapsed()),
            output: 64 << 10,
        };
        let woken = agent.exec(&[WAKE.into()], input.as_bytes(), limits).await;
        match woken {
            Ok(output) if output.status == ExitStatus::Code(0) => Ok(()),
            Ok(output) => Err(format!(
                "{WAKE} ended with {}: {}",
                output.status.shell_code(),
                printable::tail(output.stderr.trim_ascii(), 200)
            )),
            Err(AgentError::Timeout(_)) => Err(too_late()),
            Err(error) => Err(error.to_string()),
        }
    };
    let outcome = timeout(WAKE_LIMIT, work).await;
    outcome.unwrap_or_else(|_| Err(too_late()))
}

fn too_late() -> String {
    format!("it was not awake within {} s", WAKE_LIMIT.as_secs())
}
