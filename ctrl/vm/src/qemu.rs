//! QEMU's command line for a [`VmSpec`]. Pure: `launch.rs` opens the descriptors that it names.

use std::os::fd::RawFd;

use crate::accel::Accel;
use crate::spec::{Display, MAX_NICS, NicBackend, VmSpec, nic_socket_name};

/// The virtio-serial port that the guest agent opens.
pub(crate) const AGENT_PORT: &str = "org.qemu.guest_agent.0";

/// QEMU's id of the virtio-serial port, as it appears in `VSERPORT_CHANGE`.
pub(crate) const AGENT_ID: &str = "agent";

/// What a QEMU with seccomp may not do: exec, change its uid, change its scheduling.
pub(crate) const SANDBOX: &str =
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// Descriptor numbers that QEMU inherits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fds {
    /// Listening socket of the serial console.
    pub(crate) console: RawFd,
    /// Listening socket of the monitor.
    pub(crate) monitor: RawFd,
    /// Listening socket of the guest agent.
    pub(crate) agent: RawFd,
    /// Listening socket of the line to the BMC, if there is one.
    pub(crate) bmc: Option<RawFd>,
    /// The kernel.
    pub(crate) kernel: RawFd,
    /// The initramfs.
    pub(crate) initrd: RawFd,
    /// The root file system.
    pub(crate) rootfs: RawFd,
    /// The seed.
    pub(crate) seed: RawFd,
    /// The saved state to start from, if any.
    pub(crate) state: Option<RawFd>,
    /// For each NIC, in the order of [`VmSpec::nics`], its tap or the folder of its socket.
    pub(crate) nics: Vec<RawFd>,
}

impl Fds {
    /// Example numbers for command lines that are compared and never run.
    pub(crate) fn numbered(nics: Vec<RawFd>) -> Self {
        Fds {
            console: 10,
            monitor: 11,
            agent: 12,
            bmc: None,
            kernel: 13,
            initrd: 14,
            rootfs: 15,
            seed: 16,
            state: None,
            nics,
        }
    }
}

/// The PCI address of a device that a QEMU starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PciAddress {
    /// Slot on the first PCI bus, 0 to 31.
    pub(crate) slot: usize,
    /// Function in the slot, 0 to 7.
    pub(crate) function: usize,
    /// Other devices may be in the same slot, so this one cannot be unplugged alone.
    pub(crate) shared: bool,
}

impl std::fmt::Display for PciAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "addr={:02x}.{}", self.slot, self.function)?;
        if self.shared && self.function == 0 {
            f.write_str(",multifunction=on")?;
        }
        Ok(())
    }
}

/// QEMU's id of a VM's NIC, for `set_link`.
pub(crate) fn nic_id(index: usize) -> String {
    format!("nic{index}")
}

/// The index of the NIC with that id; `None` for other devices' ids.
pub(crate) fn nic_index(id: &str) -> Option<usize> {
    let index = id.strip_prefix("nic")?.parse().ok()?;
    (index < MAX_NICS && nic_id(index) == id).then_some(index)
}

/// What the installed QEMU can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// It has seccomp.
    pub(crate) sandbox: bool,
    /// A state is read and written as a file of a descriptor set (since 9.1, which deprecates plain
    /// descriptors for files). Otherwise as a descriptor.
    pub(crate) state_files: bool,
    /// Its NICs offer UDP segmentation (since 8.2) if their taps do.
    pub(crate) uso: bool,
}

/// The descriptor set of the saved state. The disks have the first two.
const STATE_SET: usize = 3;

/// QEMU's arguments, without the program's name.
pub(crate) fn argv(spec: &VmSpec, features: Features, fds: &Fds) -> Vec<String> {
    let mut args = Args(Vec::new());
    args.flag("-nodefaults");
    args.flag("-no-user-config");
    args.pair("-display", "none");
    if features.sandbox {
        args.pair("-sandbox", SANDBOX);
    }
    machine(&mut args, spec, fds);
    channels(&mut args, fds);
    bmc(&mut args, fds);
    display(&mut args, spec.display);
    disks(&mut args, spec.display, fds);
    let addresses = nic_addresses(spec.nics.len());
    let nics = spec.nics.iter().zip(&fds.nics).zip(addresses);
    for (index, ((nic, fd), address)) in nics.enumerate() {
        let options = netdev(&mut args, spec, features, index, *fd);
        let (id, mac) = (nic_id(index), nic.mac);
        args.pair(
            "-device",
            format!(
                "virtio-net-pci,id={id},netdev=net{index},mac={mac}{options},{VIRTIO},{address}"
            ),
        );
    }
    match fds.state {
        Some(fd) if features.state_files => {
            args.pair("-add-fd", format!("fd={fd},set={STATE_SET}"));
            args.pair("-incoming", format!("file:/dev/fdset/{STATE_SET}"));
        }
        Some(fd) => args.pair("-incoming", format!("fd:{fd}")),
        None => {}
    }
    args.0
}

/// Switches off what taps offer and the fabric's vhost-user ports do not. A saved state comes from a
/// VM whose NICs are on taps, and its guest must not have agreed to features that it loses later.
const IN_MEMORY: &str = ",guest_ufo=off,host_ufo=off,queue_reset=off";
/// The same of UDP segmentation; an older QEMU would refuse the options.
const NO_USO: &str = ",guest_uso4=off,guest_uso6=off,host_uso=off";

/// Adds what a NIC is connected to. Returns the options that its device needs for that, each after a
/// comma.
fn netdev(args: &mut Args, spec: &VmSpec, features: Features, index: usize, fd: RawFd) -> String {
    let backend = &spec.nics[index].backend;
    match backend {
        NicBackend::Tap { .. } | NicBackend::Unconnected { .. } => {
            args.pair("-netdev", format!("tap,id=net{index},fd={fd}"));
        }
        NicBackend::VhostUser => {
            // Through its number in /proc QEMU reaches the folder without access to the folders
            // above it.
            let path = socket_path(fd, index);
            let chardev = format!("socket,id=cable{index},path={path},reconnect=1");
            args.pair("-chardev", chardev);
            args.pair(
                "-netdev",
                format!("vhost-user,id=net{index},chardev=cable{index}"),
            );
        }
    }
    if backend.like_vhost_user() {
        let no_uso = if features.uso { NO_USO } else { "" };
        format!("{}{IN_MEMORY}{no_uso}", spec.accel.vhost_user_vectors())
    } else {
        String::new()
    }
}

/// The path of a NIC's socket for QEMU, through the folder that it inherited.
pub(crate) fn socket_path(folder: RawFd, index: usize) -> String {
    format!("/proc/self/fd/{folder}/{}", nic_socket_name(index))
}

/// Modern virtio only: legacy devices need I/O ports, of which 60 NICs would take more than there are.
/// No option ROM, for which the BIOS would search.
const VIRTIO: &str = "disable-legacy=on,romfile=";

/// For disks and other service devices. Slots 0 and 1 belong to the chip set.
const SERVICE_SLOT: usize = 2;
/// The slots for NICs.
const NIC_SLOTS: std::ops::RangeInclusive<usize> = 3..=31;

/// QEMU's id of the bridge behind which NICs are plugged into a running QEMU. It is in the service
/// slot: without ACPI's routing of interrupts (`acpi=noirq`) a guest knows, besides devices that were
/// there at the start, only the interrupts of slots 1 to 6 (the BIOS's $PIR table) and of what is
/// behind them.
pub(crate) const BRIDGE: &str = "later";
const BRIDGE_FUNCTION: usize = 4;
/// The bridge's slots. Slot 0 belongs to its own hot-plug controller.
pub(crate) const BRIDGE_SLOTS: std::ops::RangeInclusive<usize> = 1..=31;

/// The addresses of the NICs of a QEMU that starts with `count` of them. Up to 29 have a slot each and
/// can be unplugged. Of more, eight share a slot, so that 232 fit. PCI order is NIC order.
pub(crate) fn nic_addresses(count: usize) -> Vec<PciAddress> {
    let first = *NIC_SLOTS.start();
    let address = |index| {
        if count > NIC_SLOTS.count() {
            return function_of(first, index);
        }
        PciAddress {
            slot: first + index,
            function: 0,
            shared: false,
        }
    };
    (0..count).map(address).collect()
}

/// Address `index` where eight devices share a slot, from slot `first` on.
fn function_of(first: usize, index: usize) -> PciAddress {
    PciAddress {
        slot: first + index / 8,
        function: index % 8,
        shared: true,
    }
}

fn machine(args: &mut Args, spec: &VmSpec, fds: &Fds) {
    let (accel, cpu) = match spec.accel {
        Accel::Kvm { .. } => ("kvm", "host"),
        // Translated code may take up to 1 GiB for each VM unless it is limited, and that is not
        // faster: a switch's working set is a tenth of it. With RDRAND the guest does not wait for
        // entropy.
        Accel::Tcg => ("tcg,thread=multi,tb-size=128", "qemu64,+rdrand"),
    };
    args.pair(
        "-name",
        format!("guest={},debug-threads=on", escape(&spec.name)),
    );
    let machine = "pc,usb=off,vmport=off,dump-guest-core=off";
    if spec.nics.iter().any(|nic| nic.backend.like_vhost_user()) {
        // The fabric maps the guest's memory too.
        args.pair(
            "-object",
            format!(
                "memory-backend-memfd,id=ram,size={}M,share=on",
                spec.memory_mib
            ),
        );
        args.pair("-machine", format!("{machine},memory-backend=ram"));
    } else {
        args.pair("-machine", machine);
    }
    args.pair("-accel", accel);
    args.pair("-cpu", spec.cpu.as_deref().unwrap_or(cpu));
    args.pair("-smp", spec.vcpus.to_string());
    args.pair("-m", format!("{}M", spec.memory_mib));
    args.pair("-smbios", format!("type=1,serial={}", escape(&spec.name)));
    // QEMU opens the file again by its number in /proc, so its uid must be allowed to read it.
    args.pair("-kernel", format!("/proc/self/fd/{}", fds.kernel));
    args.pair("-initrd", format!("/proc/self/fd/{}", fds.initrd));
    args.pair("-append", spec.cmdline.clone());
}

fn channels(args: &mut Args, fds: &Fds) {
    for (id, fd) in [
        ("console", fds.console),
        ("monitor", fds.monitor),
        ("agent", fds.agent),
    ] {
        args.pair(
            "-chardev",
            format!("socket,id={id},fd={fd},server=on,wait=off"),
        );
    }
    args.pair("-serial", "chardev:console");
    args.pair("-mon", "chardev=monitor,mode=control");
}

/// A BMC outside of QEMU, behind a keyboard controller style interface (IPMI 2.0, chapter 9).
fn bmc(args: &mut Args, fds: &Fds) {
    let Some(fd) = fds.bmc else { return };
    args.pair(
        "-chardev",
        format!("socket,id=bmc,fd={fd},server=on,wait=off"),
    );
    args.pair("-device", "ipmi-bmc-extern,id=bmc0,chardev=bmc");
    args.pair("-device", "isa-ipmi-kcs,bmc=bmc0");
}

/// A text console that QEMU draws itself: a graphics card and a keyboard would cost the guest boot
/// time. QEMU listens for no client; the monitor hands connections to it.
fn display(args: &mut Args, display: Display) {
    let password = match display {
        Display::None => return,
        Display::Open => "",
        Display::Password => ",password=on",
    };
    args.pair("-vnc", format!("none{password}"));
    args.pair("-chardev", "vc,id=screen,cols=80,rows=25");
}

fn disks(args: &mut Args, display: Display, fds: &Fds) {
    let disk = |args: &mut Args, index: usize, id: &str, fd: RawFd| {
        // Through a descriptor set QEMU uses the open file itself: mode and path do not matter.
        args.pair("-add-fd", format!("fd={fd},set={}", index + 1));
        args.pair(
            "-blockdev",
            format!(
                "driver=file,node-name={id},filename=/dev/fdset/{},read-only=on,\
                 auto-read-only=off",
                index + 1
            ),
        );
        let address = function_of(SERVICE_SLOT, index);
        args.pair(
            "-device",
            format!("virtio-blk-pci,drive={id},{VIRTIO},{address}"),
        );
    };
    disk(args, 0, "rootfs", fds.rootfs);
    disk(args, 1, "seed", fds.seed);
    let address = |index| function_of(SERVICE_SLOT, index);
    args.pair(
        "-device",
        format!("virtio-serial-pci,max_ports=2,{VIRTIO},{}", address(2)),
    );
    args.pair(
        "-device",
        format!("virtserialport,id={AGENT_ID},chardev=agent,name={AGENT_PORT}"),
    );
    if display != Display::None {
        args.pair("-device", "virtconsole,chardev=screen");
    }
    args.pair("-device", format!("virtio-rng-pci,{VIRTIO},{}", address(3)));
    let address = address(BRIDGE_FUNCTION);
    args.pair(
        "-device",
        format!("pci-bridge,id={BRIDGE},chassis_nr=1,{address}"),
    );
}

/// Doubles commas, as QEMU wants them inside the values of its `key=value` lists.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

struct Args(Vec<String>);

impl Args {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn pair(&mut self, flag: &str, value: impl Into<String>) {
        self.flag(flag);
        self.0.push(value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::example;
    use proptest::prelude::*;

    const FULL: Features = Features {
        sandbox: true,
        state_files: true,
        uso: true,
    };
    const NO_SANDBOX: Features = Features {
        sandbox: false,
        ..FULL
    };

    fn fds(nics: usize) -> Fds {
        Fds::numbered((20..).take(nics).collect())
    }

    /// One option a line, as a person would read it.
    fn shown(args: &[String]) -> String {
        args.join(" ").replace(" -", "\n-")
    }

    #[test]
    fn a_spine_under_tcg() {
        insta::assert_snapshot!(shown(&argv(&example(2), FULL, &fds(2))));
    }

    #[test]
    fn kvm_a_chosen_cpu_a_comma_and_no_seccomp() {
        let spec = VmSpec {
            accel: Accel::Kvm { group: Some(107) },
            cpu: Some("Nehalem,+aes".into()),
            name: "odd,name".into(),
            ..example(0)
        };
        insta::assert_snapshot!(shown(&argv(&spec, NO_SANDBOX, &fds(0))));
    }

    #[test]
    fn cables_end_in_the_vms_memory() {
        let mut spec = example(2);
        for nic in &mut spec.nics {
            nic.backend = NicBackend::VhostUser;
        }
        let fds = Fds {
            nics: vec![20, 20],
            ..fds(2)
        };
        insta::assert_snapshot!("vhost_user_under_tcg", shown(&argv(&spec, FULL, &fds)));
        spec.accel = Accel::Kvm { group: None };
        let all = argv(&spec, FULL, &fds).join(" ");
        assert!(!all.contains("vectors"), "MSI-X works under KVM: {all}");
    }

    #[test]
    fn a_display_is_drawn_by_qemu_which_listens_for_no_client() {
        let shown = |display| {
            let spec = VmSpec {
                display,
                ..example(0)
            };
            argv(&spec, FULL, &fds(0)).join(" ")
        };
        assert!(!shown(Display::None).contains("vnc"));
        assert!(shown(Display::Open).contains("-vnc none -chardev vc,id=screen,"));
        assert!(shown(Display::Password).contains("-vnc none,password=on -chardev vc,"));
        assert!(shown(Display::Open).contains("-device virtconsole,chardev=screen"));
    }

    #[test]
    fn a_state_is_read_as_the_version_of_qemu_wants_it() {
        let with = Fds {
            state: Some(18),
            ..fds(0)
        };
        let incoming = |state_files| {
            let features = Features {
                state_files,
                ..FULL
            };
            argv(&example(0), features, &with).join(" ")
        };
        let by_file = "-add-fd fd=18,set=3 -incoming file:/dev/fdset/3";
        assert!(incoming(true).contains(by_file));
        assert!(incoming(false).contains("-incoming fd:18"));
    }

    #[test]
    fn a_bmc_is_behind_a_kcs_interface() {
        let with = Fds {
            bmc: Some(17),
            ..fds(0)
        };
        let all = argv(&example(0), FULL, &with).join(" ");
        assert!(all.contains(
            "-chardev socket,id=bmc,fd=17,server=on,wait=off \
             -device ipmi-bmc-extern,id=bmc0,chardev=bmc -device isa-ipmi-kcs,bmc=bmc0"
        ));
        let without = argv(&example(0), FULL, &fds(0)).join(" ");
        assert!(!without.contains("bmc"), "{without}");
    }

    #[test]
    fn nics_fill_the_slots_function_by_function() {
        let all = argv(&example(60), FULL, &fds(60));
        let addresses: Vec<_> = all
            .iter()
            .filter(|arg| arg.starts_with("virtio-net-pci"))
            .map(|arg| arg.split("addr=").nth(1).unwrap())
            .collect();
        assert_eq!(addresses.len(), 60);
        assert_eq!(addresses[0], "03.0,multifunction=on");
        assert_eq!(addresses[7], "03.7");
        assert_eq!(addresses[8], "04.0,multifunction=on");
        assert_eq!(addresses[59], "0a.3");
    }

    proptest! {
        #[test]
        fn pci_order_is_nic_order_and_slots_suffice(count in 0usize..=232) {
            let all = nic_addresses(count);
            prop_assert!(all.is_sorted_by_key(|address| (address.slot, address.function)));
            for (index, address) in all.iter().enumerate() {
                prop_assert!(NIC_SLOTS.contains(&address.slot) && address.function < 8);
                let alone = all.iter().filter(|other| other.slot == address.slot).count() == 1;
                prop_assert!(alone || address.shared, "{index}: {address:?}");
            }
        }
    }
}
