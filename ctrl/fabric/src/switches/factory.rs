//! Creates switch VMs: [`SwitchFactory`], on a [`Machine`].

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dataplane::sys::tap::{TapFlags, open_tap};
use tokio::time::timeout;

use super::saved_states;
use super::seeds::{SeedsError, SwitchMaker};
use super::switch::Switch;
use crate::files::{self, FileError};
use crate::off_thread::off_thread;
use crate::options::BringUpError;
use crate::owner::Person;
use crate::progress::Progress;
use host::address::index_of;
use host::lock::StatePaths;
use model::config::Config;
use model::difference::FabricPlan;
use model::topology::Topology;
use vm::accel::{self, Facts};
use vm::image;
use vm::keys::FabricKeys;
use vm::states::States;
use vm::{Launcher, Vm, VmSpec, root_password, ssh};

/// What switches run on: image, QEMU and accelerator.
pub(crate) struct Machine {
    image: image::ImagePaths,
    /// The folder of the states saved of it.
    states: PathBuf,
    accel: accel::Accel,
    launcher: Launcher,
}

impl Machine {
    /// The image's largest file; its other files are in the same folder.
    pub(crate) fn image_root(&self) -> PathBuf {
        self.image.root.clone()
    }
}

/// Determines what switches can run on here, and builds the image if it is missing.
///
/// # Errors
/// When QEMU is not installed, the image cannot be built, or the configured accelerator is not
/// available.
pub(crate) async fn machine(config: &Config, progress: &Progress) -> Result<Machine, BringUpError> {
    let decision = accel::decide(config.vm.accel, &Facts::read())?;
    let mut stage = progress.stage("image");
    let image = image::ensure(&config.image, |news| stage.update(&news.to_string())).await?;
    stage.done(
        &image
            .root
            .parent()
            .unwrap_or(&image.root)
            .display()
            .to_string(),
    );
    let multi_queue = config.host.tap_queues > 1;
    let launcher =
        Launcher::probe(Arc::new(move |name| open_switch_tap(name, multi_queue))).await?;
    for missing in launcher.not_jailed() {
        progress.note(&format!("  ! {missing}"));
    }
    progress.note(&format!(
        "  · switches run under {}: {}",
        decision.accel.name(),
        decision.reason
    ));
    Ok(Machine {
        image,
        states: image::WantedImage::new(&config.image)?.states(),
        accel: decision.accel,
        launcher,
    })
}

/// Opens the tap of a switch. It must exist already: the kernel would otherwise create one without
/// guard, owner and cable.
fn open_switch_tap(name: &str, multi_queue: bool) -> std::io::Result<OwnedFd> {
    index_of(name)?;
    open_tap(
        name,
        TapFlags {
            vnet_hdr: true,
            exclusive: false,
            nonblocking: true,
            multi_queue,
        },
    )
}

/// Creates the switches of a fabric, for as long as it runs.
pub(crate) struct SwitchFactory {
    machine: Machine,
    owner: Person,
    paths: StatePaths,
    key_folder: PathBuf,
    /// The public key lines of those who may log in.
    authorized: Vec<String>,
    /// Root's password hash for /etc/shadow, with one salt for all switches.
    password: Option<String>,
    /// The saved states that VMs start from. `None` if they boot.
    states: Option<Arc<States>>,
}

impl SwitchFactory {
    /// # Errors
    /// When a file with the keys of those who may log in cannot be read.
    pub(crate) async fn new(
        config: &Config,
        owner: &Person,
        mut machine: Machine,
        paths: &StatePaths,
    ) -> Result<Self, SeedsError> {
        let wanted = saved_states::wanted(config, machine.accel);
        let states = wanted.then(|| {
            let folder = machine.states.clone();
            saved_states::states(folder, &machine.image, &machine.launcher)
        });
        if let Some(states) = &states {
            machine.launcher.use_states(states.clone());
        }
        let password = config.ssh.root_password.as_deref();
        Ok(SwitchFactory {
            machine,
            owner: owner.clone(),
            paths: paths.clone(),
            key_folder: key_folder(config, paths),
            authorized: authorized_keys(config, owner).await?,
            password: password.map(root_password::hash).transpose()?,
            states,
        })
    }

    /// The parts of a QEMU's jail that cannot be had on this host, a sentence for each.
    pub(crate) fn not_jailed(&self) -> Vec<String> {
        self.machine.launcher.not_jailed()
    }

    /// Creates the missing ones of the states that these VMs start from.
    pub(crate) async fn make_states(&self, specs: &[&VmSpec], progress: &Progress) {
        let launcher = &self.machine.launcher;
        saved_states::make_missing(launcher, specs, &self.paths.vms, progress).await;
    }

    /// The path of an ssh_config(5) with one `Host` for each switch.
    pub(crate) fn ssh_config(&self) -> PathBuf {
        self.paths.ssh.join("config")
    }

    /// The maker of a topology's switches. Creates SSH keys for switches that have none.
    ///
    /// # Errors
    /// When the keys cannot be read or created.
    pub(crate) async fn maker<'a>(
        &self,
        plan: &'a FabricPlan,
    ) -> Result<SwitchMaker<'a>, SeedsError> {
        let keys = self.keys(plan, NewKeys::Save).await?;
        Ok(self.maker_with(plan, keys))
    }

    /// The keys of a plan's switches.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub(crate) async fn keys(
        &self,
        plan: &FabricPlan,
        new: NewKeys,
    ) -> Result<FabricKeys, SeedsError> {
        let switches = plan.topology.switches.iter();
        let names: Vec<_> = switches.map(|switch| switch.name.clone()).collect();
        let owner = Some((self.owner.uid, self.owner.gid));
        let folder = self.key_folder.clone();
        // Off the thread: the folder may be on a slow or unresponsive file system.
        let load = move || {
            let names = names.iter().map(String::as_str);
            match new {
                NewKeys::Save => FabricKeys::load_or_create(&folder, names, owner),
                NewKeys::Forget => FabricKeys::load(&folder, names),
            }
        };
        let keys = off_thread("keys", load).await;
        Ok(keys.map_err(FileError::at(&self.key_folder))??)
    }

    /// The maker of a topology's switches with these keys.
    pub(crate) fn maker_with<'a>(&self, plan: &'a FabricPlan, keys: FabricKeys) -> SwitchMaker<'a> {
        SwitchMaker {
            config: &plan.config,
            topology: &plan.topology,
            keys,
            authorized: self.authorized.clone(),
            password: self.password.clone(),
            image: self.machine.image.clone().into(),
            cmdline: image::KERNEL_CMDLINE.into(),
            accel: self.machine.accel,
            warm: self.states.is_some(),
            folder: self.paths.vms.clone(),
        }
    }

    /// Writes the files that ssh needs to reach the switches.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn write_ssh_files(&self, maker: &SwitchMaker<'_>) -> Result<(), FileError> {
        let hosts = maker.hosts();
        let known_hosts = self.paths.ssh.join("known_hosts");
        let config = ssh::client_config(&maker.keys, &hosts, &known_hosts);
        files::write(&self.ssh_config(), &config)?;
        files::write(&known_hosts, &ssh::known_hosts(&maker.keys, &hosts))
    }

    /// Starts the VM of a switch. `selection` is the set of switches that run.
    pub(crate) fn start(&self, spec: VmSpec, topology: &Topology, index: usize) -> Arc<Switch> {
        let vm = Vm::start(spec, self.machine.launcher.clone());
        Arc::new(Switch::new(&topology.switches[index], vm))
    }
}

/// What becomes of keys that are made for switches without any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewKeys {
    /// They are written, for switches that will start.
    Save,
    /// They are forgotten: a dry run writes nothing.
    Forget,
}

/// How long the owner's key files may take to be read.
const KEYS_LIMIT: Duration = Duration::from_secs(5);

const LATE_KEYS: &str = "the files in .ssh could not be read within 5 s; set ssh.authorized_keys";

/// The public key lines of those who may log in: the configured ones or, if none are configured,
/// the owner's.
async fn authorized_keys(config: &Config, owner: &Person) -> Result<Vec<String>, SeedsError> {
    let configured = config.ssh.authorized_keys.clone();
    let (owner, home) = (owner.clone(), owner.home.clone());
    // Off the thread: they are the owner's files, on a possibly slow or unresponsive file system.
    let read = move || {
        if !configured.is_empty() {
            return Ok(ssh::authorized_keys(&configured));
        }
        owner.impersonate()?;
        Ok(ssh::authorized_keys(&owner.key_files()))
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, LATE_KEYS);
    let keys = timeout(KEYS_LIMIT, off_thread("keys", read)).await;
    let keys = keys.map_err(late).and_then(|read| read?);
    Ok(keys.map_err(FileError::reading(&home))??)
}

/// The default fabric's keys are kept after it ends, so that SSH clients do not warn of a changed
/// host key at the next run. Other fabrics keep theirs beside their socket.
pub(crate) fn key_folder(config: &Config, paths: &StatePaths) -> PathBuf {
    match &config.ssh.key_dir {
        Some(folder) => folder.clone(),
        None if paths.socket == Path::new("/run/ikv-fabric/control.sock") => {
            "/var/lib/ikv-fabric/keys".into()
        }
        None => paths.ssh.join("keys"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::process::Command;

    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0cFWnMEdDgHpO0jXsq0JiQ7m8bZ2lmiwwzvjMxbmS3 me@here";

    /// What becomes of one file in the `.ssh` of a user who is not root, made by `make` at its path.
    async fn read(make: impl FnOnce(&Path)) -> Result<Vec<String>, String> {
        let home = tempfile::tempdir().unwrap();
        let ssh = home.path().join(".ssh");
        fs::create_dir(&ssh).unwrap();
        make(&ssh.join("id_x.pub"));
        // Only root can give it away; without root all of this is the caller's own.
        let root = rustix::process::geteuid().is_root();
        let uid = if root {
            54_321
        } else {
            rustix::process::geteuid().as_raw()
        };
        if root {
            for path in [home.path(), &ssh] {
                chown(path, Some(uid), Some(uid)).unwrap();
            }
        }
        let owner = Person {
            uid,
            gid: uid,
            plug_group: None,
            home: home.path().into(),
        };
        let keys = authorized_keys(&Config::default(), &owner).await;
        keys.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_owners_files_are_read_as_the_owner() {
        let readable = read(|path| fs::write(path, KEY).unwrap()).await;
        assert_eq!(readable.unwrap(), [KEY]);
        // Links are the owner's business, as far as the owner can read.
        let linked = read(|path| {
            fs::write(path.with_file_name("real"), KEY).unwrap();
            symlink("real", path).unwrap();
        });
        assert_eq!(linked.await.unwrap(), [KEY]);
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let secret = tempfile::NamedTempFile::new().unwrap();
        fs::write(&secret, format!("{KEY}\nroot:hash of root\n")).unwrap();
        let closed = fs::Permissions::from_mode(0o600);
        fs::set_permissions(secret.path(), closed).unwrap();
        let says = read(|path| symlink(secret.path(), path).unwrap()).await;
        let says = says.unwrap_err();
        assert!(says.contains("id_x.pub: Permission denied"), "{says}");
        // This thread is still root's.
        assert!(fs::read(secret.path()).is_ok());
        assert!(rustix::process::geteuid().is_root());
    }

    /// Makes what stands where a key file should.
    type Make = Box<dyn FnOnce(&Path)>;

    #[tokio::test]
    async fn nothing_that_is_no_key_file_is_read_or_shown() {
        let fifo = |path: &Path| {
            Command::new("mkfifo").arg(path).status().unwrap();
        };
        let cases: [(&str, Make); 6] = [
            ("not a regular file", Box::new(fifo)),
            (
                "not a regular file",
                Box::new(|path| symlink("/dev/zero", path).unwrap()),
            ),
            (
                "not a regular file",
                Box::new(|path| fs::create_dir(path).unwrap()),
            ),
            (
                "more than 64 KiB",
                Box::new(|path| {
                    let file = fs::File::create(path).unwrap();
                    file.set_len(20 << 30).unwrap();
                }),
            ),
            (
                "cannot read",
                Box::new(|path| symlink("/nowhere", path).unwrap()),
            ),
            (
                "id_x.pub, line 2, has no public key",
                Box::new(|path| fs::write(path, format!("{KEY}\nhunter2\n")).unwrap()),
            ),
        ];
        for (says, make) in cases {
            let error = read(make).await.unwrap_err();
            assert!(
                error.contains(says) && error.contains("id_x.pub"),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
