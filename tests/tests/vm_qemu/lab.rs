//! The files, taps and VMs of a test.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use dataplane::sys::tap::{TapFlags, open_tap};
use ikv_tests::patience::wait_until_async;
use ikv_tests::{make_tap, shell};
use model::mac::Mac;
use tempfile::TempDir;
use vm::accel::Accel;
use vm::seed;
use vm::{Image, Launcher, NicBackend, NicSpec, OpenTap, Vm, VmSpec, VmState};

use crate::kernel;

/// The longest wait for a VM on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Files of one test, in a folder that only root may enter, so that QEMU's uid can open none.
pub(crate) struct Lab {
    dir: TempDir,
    launcher: Launcher,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let launcher = Launcher::probe(opener()).await.expect("QEMU works");
        let dir = tempfile::tempdir().unwrap();
        for (name, mode) in [("kernel", 0o644), ("initrd", 0o644), ("rootfs", 0o600)] {
            let path = dir.path().join(name);
            fs::write(
                &path,
                if name == "kernel" {
                    kernel::image()
                } else {
                    vec![0; 4096]
                },
            )
            .unwrap();
            chmod(&path, mode);
        }
        Self { dir, launcher }
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// A VM's specification; its seed and its taps exist.
    pub(crate) fn spec(&self, name: &str, nics: usize) -> VmSpec {
        let spec = spec(self.root(), name, nics);
        seed::write(&spec.seed, &[]).unwrap();
        for index in 0..nics {
            let tap = tap(name, index);
            let _held = make_tap(&tap);
            shell(&format!("ip link set {tap} up"));
        }
        spec
    }

    pub(crate) fn start(&self, spec: VmSpec) -> TestVm {
        let taps = (0..spec.nics.len())
            .map(|index| tap(&spec.name, index))
            .collect();
        TestVm {
            vm: Vm::start(spec, self.launcher.clone()),
            taps,
        }
    }

    pub(crate) fn start_without_taps(&self, spec: VmSpec) -> TestVm {
        TestVm {
            vm: Vm::start(spec, self.launcher.clone()),
            taps: Vec::new(),
        }
    }
}

fn spec(root: &Path, name: &str, nics: usize) -> VmSpec {
    VmSpec {
        display: vm::Display::None,
        bmc: false,
        name: name.into(),
        memory_mib: 64,
        vcpus: 1,
        accel: Accel::Tcg,
        cpu: None,
        uid: 70_123,
        image: Image {
            kernel: root.join("kernel"),
            initrd: root.join("initrd"),
            rootfs: root.join("rootfs"),
        },
        cmdline: "test, with a comma".into(),
        seed: root.join(format!("{name}.tar")),
        template: None,
        run_dir: root.join(name),
        nics: (0..nics).map(|index| nic(name, index)).collect(),
    }
}

/// A fabric that waits to be killed. It creates the file `up` once its guest runs.
pub(crate) async fn doomed_fabric(root: PathBuf) -> ExitCode {
    let launcher = Launcher::probe(opener()).await.unwrap();
    let vm = TestVm {
        vm: Vm::start(spec(&root, "doomed", 1), launcher),
        taps: Vec::new(),
    };
    vm.said("R").await;
    fs::write(root.join("up"), "").unwrap();
    std::future::pending().await
}

const FLAGS: TapFlags = TapFlags {
    vnet_hdr: true,
    exclusive: false,
    nonblocking: true,
    multi_queue: false,
};

/// Opens existing taps as the fabric does.
pub(crate) fn opener() -> OpenTap {
    Arc::new(|name| {
        // TUNSETIFF would create a missing tap, to which nothing else is connected.
        let known = Command::new("ip").args(["link", "show", name]).output()?;
        if !known.status.success() {
            return Err(std::io::ErrorKind::NotFound.into());
        }
        open_tap(name, FLAGS)
    })
}

pub(crate) fn nic(vm: &str, index: usize) -> NicSpec {
    let mac = [0x08, 0, 0x27, 6, 0xac, index as u8];
    NicSpec {
        mac: Mac(mac),
        backend: NicBackend::Tap {
            name: tap(vm, index),
        },
    }
}

pub(crate) fn tap(vm: &str, index: usize) -> String {
    format!("ik{vm}-{index}")
}

/// A VM whose taps are removed with it.
pub(crate) struct TestVm {
    vm: Vm,
    taps: Vec<String>,
}

impl Deref for TestVm {
    type Target = Vm;

    fn deref(&self) -> &Vm {
        &self.vm
    }
}

impl Drop for TestVm {
    fn drop(&mut self) {
        for tap in &self.taps {
            let _ = Command::new("ip").args(["link", "del", tap]).output();
        }
    }
}

impl TestVm {
    pub(crate) async fn said(&self, text: &str) {
        let what = format!(
            "{text:?} on the console of {}: {:?}",
            self.name(),
            self.status()
        );
        until(&what, || self.console().tail_escaped(1000) == text).await;
    }

    pub(crate) async fn types(&self, text: &str) {
        self.console().attach().write(text.into()).await;
    }

    pub(crate) async fn reaches(&self, state: VmState) {
        until(&format!("{} {state:?}", self.name()), || {
            self.status().state == state
        })
        .await;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.status().pid.expect("it runs")
    }
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_until_async(what, LIMIT, async || holds()).await;
}

pub(crate) fn kill(pid: u32) {
    shell(&format!("kill -KILL {pid}"));
}

pub(crate) fn has_carrier(tap: &str) -> bool {
    shell(&format!("ip link show {tap}")).contains("LOWER_UP")
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
