//! Starting switches from one saved state for each shape of VM, instead of booting each.
//!
//! A template is a VM of that shape that boots with a seed which is nobody's, on NICs that lead
//! nowhere, until its guest agent answers; no other service runs in it. Its state is saved
//! ([`Launcher::save_state`]) and kept ([`super::states`]). A switch of that shape starts from it, and
//! is then woken: told its own MAC addresses, name, keys and configuration, the time of day, and
//! random numbers that no other has.
//!
//! # What makes a shape
//! QEMU restores a machine only into an equal one, and the guest goes on with what it was told at
//! its boot. A shape's key is a hash over all that has to be equal: QEMU's command line but for what
//! is a switch's own, the template's seed, the size of the seed's disk, the image, and QEMU's version.
//!
//! # The NICs
//! QEMU does not save a machine with a vhost-user NIC whose back end cannot log what it writes
//! (`VHOST_F_LOG_ALL`). So a template's NICs are joined to taps, with the features switched off that
//! the fabric's ports do not offer: `qemu.rs` does that to all NICs that end in a VM's memory.

use std::fmt::Write as _;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use ssh_key::rand_core::{OsRng, RngCore};
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use super::agent::{Agent, AgentError, ExitStatus, Limits};
use super::console::Console;
use super::launch::{LaunchError, Launched, Launcher};
use super::qemu::{self, Fds};
use super::qmp::{Qmp, QmpError};
use super::seed::{self, SeedError};
use super::spec::{NicBackend, NicSpec, VmSpec};
use super::states::States;
use super::stderr::Stderr;
use model::mac::Mac;
use model::printable;

/// The file of a template's seed that tells the guest that it is one.
pub const MARK: &str = "etc/ikv/template";

/// The program in the guest that makes a switch of a restored template.
const WAKE: &str = "/usr/lib/ikv/wake";

/// Time for a template to boot. One alone takes 4 s under TCG.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// Time to write its state, 82 MiB by default.
const SAVE_LIMIT: Duration = Duration::from_secs(60);
/// Time for a monitor command.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);
/// Time for QEMU to end.
const QUIT_LIMIT: Duration = Duration::from_secs(5);
/// Time for the agent's first answer, and the pause after a failed try.
const PING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(50));
/// From the start of a QEMU until its guest is a switch. Nine at once take 6 s under TCG on two
/// cores; one that takes this long will not come.
pub(super) const WAKE_LIMIT: Duration = Duration::from_secs(90);
/// Random bytes for a guest.
const ENTROPY: usize = 64;

/// Why there is no saved state.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// QEMU did not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Its seed.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// Its monitor.
    #[error(transparent)]
    Monitor(#[from] QmpError),
    /// It did not come up.
    #[error("the template did not boot within {BOOT_LIMIT:?}; its console says:\n{0}")]
    Boot(String),
    /// QEMU ended meanwhile.
    #[error("QEMU ended: {0}")]
    Ended(String),
    /// The state could not be written: QEMU does not say more than that.
    #[error("{path} could not be written{}", full(path))]
    Save {
        /// Where.
        path: PathBuf,
    },
    /// A file of the state.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
}

/// The most likely reason, if it is the one.
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

/// The MAC address of NIC `index` in a template: locally administered, and different from
/// that of every other NIC.
pub fn mac(index: usize) -> Mac {
    let [high, low] = u16::try_from(index)
        .expect("a VM has at most 232 NICs")
        .to_be_bytes();
    Mac([0x02, 0x69, 0x6b, 0x76, high, low])
}

/// The template of a VM, with its files in `run_dir`.
fn template_of(spec: &VmSpec, run_dir: PathBuf) -> VmSpec {
    let nic = |(index, nic): (usize, &NicSpec)| NicSpec {
        mac: mac(index),
        backend: NicBackend::Nobody {
            vhost_user: nic.backend.as_in_memory(),
        },
    };
    VmSpec {
        name: "template".into(),
        seed: run_dir.join("seed.tar"),
        nics: spec.nics.iter().enumerate().map(nic).collect(),
        run_dir,
        template: None,
        ..spec.clone()
    }
}

/// Tells shapes apart: 16 hexadecimal digits. `None` for a VM that is always booted. `seed_size`:
/// of the VM's own seed, in bytes. `made_with`: image and QEMU.
fn key(spec: &VmSpec, seed_size: u64, made_with: &str) -> Result<Option<String>, SeedError> {
    let Some(seed) = &spec.template else {
        return Ok(None);
    };
    let nics = (100..).take(spec.nics.len()).collect();
    let fds = Fds {
        bmc: spec.bmc.then_some(17),
        ..Fds::numbered(nics)
    };
    let template = template_of(spec, "/".into());
    let mut hasher = Sha256::new();
    let mut field = |bytes: &[u8]| {
        // The length before each field keeps two of them from running into one another.
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for argument in qemu::argv(&template, false, &fds) {
        field(argument.as_bytes());
    }
    field(&seed::archive(seed)?);
    field(&seed_size.to_le_bytes());
    field(made_with.as_bytes());
    Ok(Some(hexadecimal(&hasher.finalize()[..8])))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The key of the shape of `spec`, whose seed has been written.
pub(super) fn key_of(spec: &VmSpec, states: &States) -> Option<String> {
    let size = fs::metadata(&spec.seed).ok()?.len();
    // A seed that cannot be made is told by whoever builds the template.
    key(spec, size, states.made_with()).ok().flatten()
}

/// Boots the template of `spec` in `run_dir`, saves its state for `key`, and ends it. Returns the
/// size of the state in bytes. Dropping the future ends the QEMU and leaves nothing.
///
/// # Errors
/// See [`TemplateError`].
pub(super) async fn build(
    launcher: &Launcher,
    states: &States,
    spec: &VmSpec,
    key: &str,
    run_dir: &Path,
) -> Result<u64, TemplateError> {
    let template = template_of(spec, run_dir.to_owned());
    let files = spec.template.as_deref().unwrap_or_default();
    let file = |error| TemplateError::File(run_dir.into(), error);
    fs::create_dir_all(run_dir).map_err(file)?;
    let size = fs::metadata(&spec.seed).map_err(file)?.len();
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    seed::write_at_least(&template.seed, files, size)?;
    let draft = states.draft(key).map_err(file)?;

    let Launched {
        mut child,
        monitor,
        console: serial,
        bmc: _bmc,
        mut stderr,
        ..
    } = launcher.launch(&template, None)?;
    let console = Console::default();
    console.connect(serial);
    let monitor = Qmp::open(monitor, BOOT_LIMIT, drop);
    let work = async {
        let monitor = monitor.await?;
        let agent = Agent::new(template.agent_socket());
        if timeout(BOOT_LIMIT, answers(&agent)).await.is_err() {
            return Err(TemplateError::Boot(console.tail_escaped(500)));
        }
        let path = || TemplateError::Save {
            path: run_dir.to_owned(),
        };
        let saved = monitor.save(draft.file().as_fd(), SAVE_LIMIT, COMMAND_LIMIT);
        saved.await?.then_some(()).ok_or_else(path)?;
        let _ = monitor.execute("quit", None, COMMAND_LIMIT).await;
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        words = ended(&mut child, &mut stderr) => Err(TemplateError::Ended(words)),
    };
    let _ = timeout(QUIT_LIMIT, child.wait()).await;
    drop(child);
    let _ = fs::remove_dir_all(run_dir);
    outcome.map_err(|error| match error {
        TemplateError::Save { .. } => TemplateError::Save {
            path: states.folder().into(),
        },
        other => other,
    })?;
    let kept = states.keep(&draft, key);
    kept.map_err(|error| TemplateError::File(states.folder().into(), error))
}

async fn ended(child: &mut Child, stderr: &mut Stderr) -> String {
    let status = child.wait().await;
    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    format!("{status}: {}", stderr.last_words().await)
}

async fn answers(agent: &Agent) {
    while agent.ping(PING.0).await.is_err() {
        sleep(PING.1).await;
    }
}

/// Makes a switch of a restored template; to be done once.
///
/// # Errors
/// Why it is none, as a sentence without a full stop.
pub(super) async fn wake(agent: Arc<Agent>) -> Result<(), String> {
    let began = Instant::now();
    let work = async {
        answers(&agent).await;
        let mut entropy = [0; ENTROPY];
        OsRng
            .try_fill_bytes(&mut entropy)
            .map_err(|error| format!("the host has no random numbers: {error}"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs());
        let words = format!("{now}\n{}\n", hexadecimal(&entropy));
        let limits = Limits {
            time: WAKE_LIMIT.saturating_sub(began.elapsed()),
            output: 64 << 10,
        };
        let told = agent.exec(&[WAKE.into()], words.as_bytes(), limits).await;
        match told {
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

#[cfg(test)]
mod tests {
    use super::super::accel::Accel;
    use super::super::seed::SeedFile;
    use super::super::spec::{Display, example};
    use super::*;
    use proptest::prelude::*;

    fn shape(nics: usize) -> VmSpec {
        VmSpec {
            template: Some(vec![SeedFile {
                path: MARK.into(),
                mode: 0o644,
                bytes: Vec::new(),
            }]),
            ..example(nics)
        }
    }

    fn of(spec: &VmSpec) -> Option<String> {
        key(spec, 1 << 18, "an image, a QEMU").unwrap()
    }

    #[test]
    fn what_must_be_equal_makes_another_shape() {
        let base = shape(3);
        let mut others = vec![
            shape(4),
            VmSpec {
                memory_mib: 513,
                ..base.clone()
            },
            VmSpec {
                vcpus: 1,
                ..base.clone()
            },
            VmSpec {
                cpu: Some("max".into()),
                ..base.clone()
            },
            VmSpec {
                accel: Accel::Kvm { group: None },
                ..base.clone()
            },
            VmSpec {
                cmdline: "quiet".into(),
                ..base.clone()
            },
            VmSpec {
                bmc: true,
                ..base.clone()
            },
            VmSpec {
                display: Display::Open,
                ..base.clone()
            },
            VmSpec {
                display: Display::Password,
                ..base.clone()
            },
        ];
        others.push(base.clone());
        others[9].nics[1].backend = NicBackend::VhostUser;
        others.push(base.clone());
        others[10].template.as_mut().unwrap()[0].bytes = b"x".into();
        let mut keys: Vec<_> = others.iter().map(of).collect();
        keys.push(of(&base));
        keys.push(key(&base, 2 << 18, "an image, a QEMU").unwrap());
        keys.push(key(&base, 1 << 18, "an image, another QEMU").unwrap());
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
        assert!(
            keys.iter()
                .all(|key| key.as_ref().is_some_and(|key| key.len() == 16))
        );
    }

    #[test]
    fn one_that_is_always_booted_has_no_shape() {
        assert_eq!(of(&example(3)), None);
    }

    #[test]
    fn a_template_sees_the_nics_that_its_switches_see() {
        let mut spec = shape(2);
        for nic in &mut spec.nics {
            nic.backend = NicBackend::VhostUser;
        }
        let devices = |spec: &VmSpec, nics: Vec<i32>| -> Vec<String> {
            let argv = qemu::argv(spec, true, &Fds::numbered(nics));
            let devices = argv.iter().filter(|arg| arg.starts_with("virtio-net-pci"));
            let own = |device: &String| {
                let parts = device.split(',').filter(|part| !part.starts_with("mac="));
                parts.collect::<Vec<_>>().join(",")
            };
            devices.map(own).collect()
        };
        let template = template_of(&spec, "/x".into());
        assert_eq!(
            devices(&spec, vec![20, 20]),
            devices(&template, vec![30, 31])
        );
        assert!(
            qemu::argv(&template, true, &Fds::numbered(vec![30, 31]))
                .contains(&"tap,id=net1,fd=31".into())
        );
    }

    proptest! {
        /// Nothing that is a switch's own: else each would need a state of its own.
        #[test]
        fn switches_of_one_shape_share_its_key(
            name in "[a-z]{1,8}[0-9]{1,2}",
            uid in 1u32..100_000,
            macs in proptest::array::uniform3(any::<[u8; 6]>()),
        ) {
            let mut other = shape(3);
            other.uid = uid;
            other.seed = format!("/other/{name}.tar").into();
            other.run_dir = format!("/other/{name}").into();
            for (nic, mac) in other.nics.iter_mut().zip(macs) {
                nic.mac = Mac(mac);
                nic.backend = NicBackend::Tap { name: format!("ik{name}") };
            }
            other.name = name;
            prop_assert_eq!(of(&other), of(&shape(3)));
        }

        #[test]
        fn templates_nics_have_addresses_of_their_own(a in 0usize..232, b in 0usize..232) {
            prop_assert_eq!(mac(a) == mac(b), a == b);
            prop_assert_eq!(mac(a).0[0] & 3, 2, "locally administered, not multicast");
        }
    }
}
