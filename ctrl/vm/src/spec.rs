//! What a VM consists of, as passive data.

use std::path::PathBuf;

use model::mac::Mac;

use crate::accel::Accel;
use crate::seed::SeedFile;

/// Most NICs one VM can have: PCI slots 3..=31 with eight functions each.
pub(crate) const MAX_NICS: usize = 29 * 8;

/// Longest path of a unix socket, in bytes (`sun_path` without its final zero, unix(7)).
pub const MAX_SOCKET_PATH: usize = 107;

/// One switch VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSpec {
    /// The node's name; also the SMBIOS serial number.
    pub name: String,
    /// Guest memory in MiB, 1 and up.
    pub memory_mib: u32,
    /// Virtual CPUs, 1 and up.
    pub vcpus: u16,
    /// Hardware or software execution, see [`crate::accel::decide`].
    pub accel: Accel,
    /// QEMU CPU model; `None` is `host` under KVM and `qemu64,+rdrand` under TCG.
    pub cpu: Option<String>,
    /// The uid and gid QEMU runs as. Numeric: no account is needed. Give each VM its own. 0 is the
    /// user of a fabric without root: QEMU then keeps this user's groups, too.
    pub uid: u32,
    /// The shared, read-only image.
    pub image: Image,
    /// Kernel command line.
    pub cmdline: String,
    /// This VM's own second disk, a tar written by [`crate::seed::write`].
    pub seed: PathBuf,
    /// The seed of its template, which holds nothing of this VM's own. `None` for a VM that is always
    /// booted. See [`crate::template`].
    pub template: Option<Vec<SeedFile>>,
    /// Folder for the VM's sockets. Must belong to root and not be writable by `uid`.
    pub run_dir: PathBuf,
    /// A second console, shown to VNC clients.
    pub display: Display,
    /// Whether the VM has a BMC, for [`crate::bmc::Bmc`] to serve.
    pub bmc: bool,
    /// The NICs in port order, which becomes their PCI order.
    pub nics: Vec<NicSpec>,
}

/// Files of the switch image that a VM uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Kernel; must be readable by everyone (`o+r`), its folder need not be.
    pub kernel: PathBuf,
    /// Initial root file system in memory; must be readable by everyone (`o+r`), its folder need not be.
    pub initrd: PathBuf,
    /// Root file system, first disk, read-only. Any mode.
    pub rootfs: PathBuf,
}

/// Whether a VM has a console that VNC clients can be handed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Display {
    /// It has none.
    #[default]
    None,
    /// It has one without a password: who can reach the fabric's VNC socket may use it.
    Open,
    /// It has one for clients that know the password.
    Password,
}

/// One network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicSpec {
    /// Its MAC address.
    pub mac: Mac,
    /// What the card is connected to.
    pub backend: NicBackend,
}

/// What a NIC is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NicBackend {
    /// An existing persistent tap, opened by the fabric with `IFF_VNET_HDR`.
    Tap {
        /// The tap's name.
        name: String,
    },
    /// Rings in the VM's memory, agreed on through the NIC's socket in [`NIC_FOLDER`], at which the
    /// fabric listens.
    VhostUser,
    /// Nothing: a tap in a network namespace of its own.
    Unconnected {
        /// The guest is offered the features of a vhost-user NIC instead of a tap's.
        vhost_user: bool,
    },
}

impl NicBackend {
    /// Whether the guest sees a vhost-user NIC's features.
    pub(crate) fn like_vhost_user(&self) -> bool {
        match self {
            Self::VhostUser => true,
            Self::Tap { .. } => false,
            Self::Unconnected { vhost_user } => *vhost_user,
        }
    }
}

/// A [`VmSpec`] that no QEMU could run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The PCI bus is full.
    #[error("{vm}: {nics} NICs, but the PCI bus takes {MAX_NICS}: use fewer ports on this switch")]
    TooManyNics {
        /// The node's name.
        vm: String,
        /// NICs asked for.
        nics: usize,
    },
    /// A unix socket's path would not fit.
    #[error(
        "{vm}: the socket {path} is longer than {MAX_SOCKET_PATH} bytes: \
         choose a shorter folder with --socket"
    )]
    SocketPath {
        /// The node's name.
        vm: String,
        /// The path that does not fit.
        path: PathBuf,
    },
    /// Memory or CPUs are 0.
    #[error("{vm}: {what} is 0: give at least 1 in [vm]")]
    Zero {
        /// The node's name.
        vm: String,
        /// `memory` or `cpus`.
        what: &'static str,
    },
}

impl VmSpec {
    /// The serial console's socket.
    pub(crate) fn console_socket(&self) -> PathBuf {
        self.run_dir.join("console.sock")
    }

    /// The QEMU monitor's socket (QMP). The supervisor holds its only connection.
    pub(crate) fn monitor_socket(&self) -> PathBuf {
        self.run_dir.join("monitor.sock")
    }

    /// The guest agent's socket.
    pub(crate) fn agent_socket(&self) -> PathBuf {
        self.run_dir.join("agent.sock")
    }

    /// The socket of the line to the BMC.
    pub(crate) fn bmc_socket(&self) -> PathBuf {
        self.run_dir.join("bmc.sock")
    }

    /// The folder of [`VmSpec::nic_socket`]. `uid` must be able to enter it, but not to write it.
    pub(crate) fn nic_folder(&self) -> PathBuf {
        self.run_dir.join(NIC_FOLDER)
    }

    /// The vhost-user socket of NIC `index`.
    pub(crate) fn nic_socket(&self, index: usize) -> PathBuf {
        self.nic_folder().join(nic_socket_name(index))
    }

    /// Refuses what would otherwise fail later with a worse message.
    ///
    /// # Errors
    /// See [`SpecError`].
    pub fn check(&self) -> Result<(), SpecError> {
        let vm = || self.name.clone();
        if self.nics.len() > MAX_NICS {
            return Err(SpecError::TooManyNics {
                vm: vm(),
                nics: self.nics.len(),
            });
        }
        for (value, what) in [(self.memory_mib, "memory"), (u32::from(self.vcpus), "cpus")] {
            if value == 0 {
                return Err(SpecError::Zero { vm: vm(), what });
            }
        }
        let channels = [
            self.console_socket(),
            self.monitor_socket(),
            self.agent_socket(),
            self.bmc_socket(),
        ];
        let nics = self.nics.iter().enumerate();
        let sockets = nics
            .filter(|(_, nic)| nic.backend == NicBackend::VhostUser)
            .map(|(index, _)| self.nic_socket(index));
        channels
            .into_iter()
            .chain(sockets)
            .find(|path| path.as_os_str().len() > MAX_SOCKET_PATH)
            .map_or(Ok(()), |path| Err(SpecError::SocketPath { vm: vm(), path }))
    }
}

/// Folder of a VM's vhost-user sockets, in its run folder.
pub const NIC_FOLDER: &str = "nics";

/// The file name of the vhost-user socket of NIC `index`.
pub fn nic_socket_name(index: usize) -> String {
    format!("{index}.sock")
}

#[cfg(test)]
pub(crate) fn example(nics: usize) -> VmSpec {
    VmSpec {
        name: "leaf1".into(),
        memory_mib: 512,
        vcpus: 2,
        accel: Accel::Tcg,
        cpu: None,
        uid: 70_003,
        image: Image {
            kernel: "/image/kernel".into(),
            initrd: "/image/initrd".into(),
            rootfs: "/image/root.squashfs".into(),
        },
        cmdline: "console=ttyS0 quiet".into(),
        seed: "/run/fabric/vm/leaf1/seed.tar".into(),
        template: None,
        run_dir: "/run/fabric/vm/leaf1".into(),
        display: Display::None,
        bmc: false,
        nics: (0..nics)
            .map(|i| NicSpec {
                mac: Mac([8, 0, 0x27, 6, 0xac, i as u8]),
                backend: NicBackend::Tap {
                    name: format!("iklt1{}", i + 1),
                },
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_largest_leaf_and_says_what_is_wrong_with_others() {
        assert_eq!(example(MAX_NICS).check(), Ok(()));
        let message = |spec: VmSpec| spec.check().unwrap_err().to_string();
        assert!(message(example(233)).contains("leaf1: 233 NICs, but the PCI bus takes 232"));
        assert!(
            message(VmSpec {
                memory_mib: 0,
                ..example(1)
            })
            .contains("memory is 0")
        );
        assert!(
            message(VmSpec {
                vcpus: 0,
                ..example(1)
            })
            .contains("cpus is 0")
        );
        let long = VmSpec {
            run_dir: format!("/{}", "x".repeat(95)).into(),
            ..example(1)
        };
        assert!(message(long).contains("choose a shorter folder"));
    }
}
