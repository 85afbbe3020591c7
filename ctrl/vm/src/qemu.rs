//! VmSpec → QEMU's command line. Pure; the descriptors it names are opened by `launch.rs`.

use std::os::fd::RawFd;

use super::accel::Accel;
use super::spec::{Display, MAX_NICS, NicBackend, VmSpec, nic_socket_name};

/// The virtio-serial port that the guest agent opens.
pub const AGENT_PORT: &str = "org.qemu.guest_agent.0";

/// QEMU's id of the virtio-serial port, as it appears in `VSERPORT_CHANGE`.
pub const AGENT_ID: &str = "agent";

/// What a QEMU with seccomp is held to: no exec, no change of uid, no scheduling calls.
pub const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// Descriptor numbers that QEMU inherits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fds {
    /// Listening socket of the serial console.
    pub console: RawFd,
    /// Listening socket of the monitor.
    pub monitor: RawFd,
    /// Listening socket of the guest agent.
    pub agent: RawFd,
    /// Listening socket of the line to the BMC, if there is one.
    pub bmc: Option<RawFd>,
    /// The kernel.
    pub kernel: RawFd,
    /// The initramfs.
    pub initrd: RawFd,
    /// The root file system.
    pub rootfs: RawFd,
    /// The seed.
    pub seed: RawFd,
    /// The saved state to start from, if any.
    pub state: Option<RawFd>,
    /// For each NIC, in the order of [`VmSpec::nics`], its tap or the folder of its socket.
    pub nics: Vec<RawFd>,
}

impl Fds {
    /// Numbers that stand for descriptors where no QEMU is started: a command line is compared.
    pub(super) fn numbered(nics: Vec<RawFd>) -> Self {
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

/// Where a device is that is there from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// On the first PCI bus, 0 to 31.
    pub slot: usize,
    /// 0 to 7.
    pub function: usize,
    /// Others may be in the same slot, so that it cannot leave alone.
    pub shared: bool,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "addr={:02x}.{}", self.slot, self.function)?;
        if self.shared && self.function == 0 {
            f.write_str(",multifunction=on")?;
        }
        Ok(())
    }
}

/// QEMU's id of a VM's NIC, for `set_link`.
pub fn nic_id(index: usize) -> String {
    format!("nic{index}")
}

/// The NIC of which that is the id.
pub fn nic_index(id: &str) -> Option<usize> {
    let index = id.strip_prefix("nic")?.parse().ok()?;
    (index < MAX_NICS && nic_id(index) == id).then_some(index)
}

/// QEMU's arguments, without the program's name. `sandbox` says whether this QEMU has seccomp.
pub fn argv(spec: &VmSpec, sandbox: bool, fds: &Fds) -> Vec<String> {
    let mut args = Args(Vec::new());
    args.flag("-nodefaults");
    args.flag("-no-user-config");
    args.pair("-display", "none");
    if sandbox {
        args.pair("-sandbox", SANDBOX);
    }
    machine(&mut args, spec, fds);
    channels(&mut args, fds);
    bmc(&mut args, fds);
    display(&mut args, spec.display);
    disks(&mut args, spec.display, fds);
    let places = nic_places(spec.nics.len());
    for (index, ((nic, fd), place)) in spec.nics.iter().zip(&fds.nics).zip(places).enumerate() {
        let as_seen = netdev(&mut args, spec, index, *fd);
        let (id, mac) = (nic_id(index), nic.mac);
        args.pair(
            "-device",
            format!("virtio-net-pci,id={id},netdev=net{index},mac={mac}{as_seen},{VIRTIO},{place}"),
        );
    }
    if let Some(fd) = fds.state {
        args.pair("-incoming", format!("fd:{fd}"));
    }
    args.0
}

/// What a tap could do and the fabric's vhost-user ports do not offer. A saved state comes from a
/// NIC that is joined to a tap, and the guest must not have agreed on more than it gets later.
const IN_MEMORY: &str = ",guest_ufo=off,host_ufo=off,queue_reset=off";

/// What a NIC is joined to. Returns what its device must be told for that.
fn netdev(args: &mut Args, spec: &VmSpec, index: usize, fd: RawFd) -> String {
    let backend = &spec.nics[index].backend;
    match backend {
        NicBackend::Tap { .. } | NicBackend::Nobody { .. } => {
            args.pair("-netdev", format!("tap,id=net{index},fd={fd}"));
        }
        NicBackend::VhostUser => {
            // A folder's number in /proc leads into it whatever its path, and however closed the
            // folders above it are.
            let path = socket_path(fd, index);
            let chardev = format!("socket,id=cable{index},path={path},reconnect=1");
            args.pair("-chardev", chardev);
            args.pair(
                "-netdev",
                format!("vhost-user,id=net{index},chardev=cable{index}"),
            );
        }
    }
    if backend.as_in_memory() {
        format!("{}{IN_MEMORY}", spec.accel.vhost_user_vectors())
    } else {
        String::new()
    }
}

/// The socket of a NIC as QEMU sees it, by the folder that it inherited.
pub(super) fn socket_path(folder: RawFd, index: usize) -> String {
    format!("/proc/self/fd/{folder}/{}", nic_socket_name(index))
}

/// Modern virtio only: no legacy I/O ports (24 KiB of them would be too few for 60 NICs), and no
/// option ROM to look for.
const VIRTIO: &str = "disable-legacy=on,romfile=";

/// Slots 0 and 1 are the chip set's.
const SERVICE_SLOT: usize = 2;
/// The slots that are the NICs'.
const NIC_SLOTS: std::ops::RangeInclusive<usize> = 3..=31;

/// The bridge behind which NICs come to a running QEMU, a function of the service slot. Without
/// ACPI's routing of interrupts (`acpi=noirq`) a guest knows those of slots 1 to 6 only, by the
/// BIOS's $PIR table, and of what was there at the start; but also of all that is behind them.
pub const BRIDGE: &str = "later";
const BRIDGE_FUNCTION: usize = 4;
/// Its slots; the first one is its own hot-plug controller's.
pub(super) const BRIDGE_SLOTS: std::ops::RangeInclusive<usize> = 1..=31;

/// Where the NICs of a QEMU are that starts with `count` of them. If they can, they have a slot
/// each, and may leave. Else eight share a slot, so that 232 find room. PCI order is NIC order.
pub fn nic_places(count: usize) -> Vec<Place> {
    let first = *NIC_SLOTS.start();
    let place = |index| {
        if count > NIC_SLOTS.count() {
            return function_of(first, index);
        }
        Place {
            slot: first + index,
            function: 0,
            shared: false,
        }
    };
    (0..count).map(place).collect()
}

/// Eight to a slot, from `first` on.
fn function_of(first: usize, index: usize) -> Place {
    Place {
        slot: first + index / 8,
        function: index % 8,
        shared: true,
    }
}

fn machine(args: &mut Args, spec: &VmSpec, fds: &Fds) {
    let (accel, cpu) = match spec.accel {
        Accel::Kvm { .. } => ("kvm", "host"),
        // Translated code takes up to 1 GiB a VM unless it is limited, for no gain in speed: a
        // switch's working set is a tenth of that. RDRAND spares the guest its wait for entropy.
        Accel::Tcg => ("tcg,thread=multi,tb-size=128", "qemu64,+rdrand"),
    };
    args.pair(
        "-name",
        format!("guest={},debug-threads=on", escape(&spec.name)),
    );
    let machine = "pc,usb=off,vmport=off,dump-guest-core=off";
    if spec.nics.iter().any(|nic| nic.backend.as_in_memory()) {
        // Memory that the fabric can map too.
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
    // A file of this number in /proc is opened anew, so the inode must be readable by the uid.
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

/// A console of text that QEMU draws itself: the guest needs neither a graphics card nor a
/// keyboard, which cost it boot time. Nobody can connect but whom the monitor hands in.
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
        // A descriptor set hands QEMU the very file, whatever its mode and path.
        args.pair("-add-fd", format!("fd={fd},set={}", index + 1));
        args.pair(
            "-blockdev",
            format!(
                "driver=file,node-name={id},filename=/dev/fdset/{},read-only=on,\
                 auto-read-only=off",
                index + 1
            ),
        );
        let place = function_of(SERVICE_SLOT, index);
        args.pair(
            "-device",
            format!("virtio-blk-pci,drive={id},{VIRTIO},{place}"),
        );
    };
    disk(args, 0, "rootfs", fds.rootfs);
    disk(args, 1, "seed", fds.seed);
    let place = |index| function_of(SERVICE_SLOT, index);
    args.pair(
        "-device",
        format!("virtio-serial-pci,max_ports=2,{VIRTIO},{}", place(2)),
    );
    args.pair(
        "-device",
        format!("virtserialport,id={AGENT_ID},chardev=agent,name={AGENT_PORT}"),
    );
    if display != Display::None {
        args.pair("-device", "virtconsole,chardev=screen");
    }
    args.pair("-device", format!("virtio-rng-pci,{VIRTIO},{}", place(3)));
    let place = place(BRIDGE_FUNCTION);
    args.pair(
        "-device",
        format!("pci-bridge,id={BRIDGE},chassis_nr=1,{place}"),
    );
}

/// A comma inside a value of QEMU's `key=value` lists is written twice.
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
    use super::super::spec::example;
    use super::*;
    use proptest::prelude::*;

    fn fds(nics: usize) -> Fds {
        Fds::numbered((20..).take(nics).collect())
    }

    /// One option a line, as a person would read it.
    fn shown(args: &[String]) -> String {
        args.join(" ").replace(" -", "\n-")
    }

    #[test]
    fn a_spine_under_tcg() {
        insta::assert_snapshot!(shown(&argv(&example(2), true, &fds(2))));
    }

    #[test]
    fn kvm_a_chosen_cpu_a_comma_and_no_seccomp() {
        let spec = VmSpec {
            accel: Accel::Kvm { group: Some(107) },
            cpu: Some("Nehalem,+aes".into()),
            name: "odd,name".into(),
            ..example(0)
        };
        insta::assert_snapshot!(shown(&argv(&spec, false, &fds(0))));
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
        insta::assert_snapshot!("vhost_user_under_tcg", shown(&argv(&spec, true, &fds)));
        spec.accel = Accel::Kvm { group: None };
        let all = argv(&spec, true, &fds).join(" ");
        assert!(!all.contains("vectors"), "MSI-X works under KVM: {all}");
    }

    #[test]
    fn a_display_is_drawn_by_qemu_and_open_to_nobody() {
        let shown = |display| {
            let spec = VmSpec {
                display,
                ..example(0)
            };
            argv(&spec, true, &fds(0)).join(" ")
        };
        assert!(!shown(Display::None).contains("vnc"));
        assert!(shown(Display::Open).contains("-vnc none -chardev vc,id=screen,"));
        assert!(shown(Display::Password).contains("-vnc none,password=on -chardev vc,"));
        assert!(shown(Display::Open).contains("-device virtconsole,chardev=screen"));
    }

    #[test]
    fn a_bmc_is_found_at_its_line() {
        let with = Fds {
            bmc: Some(17),
            ..fds(0)
        };
        let all = argv(&example(0), true, &with).join(" ");
        assert!(all.contains(
            "-chardev socket,id=bmc,fd=17,server=on,wait=off \
             -device ipmi-bmc-extern,id=bmc0,chardev=bmc -device isa-ipmi-kcs,bmc=bmc0"
        ));
        let without = argv(&example(0), true, &fds(0)).join(" ");
        assert!(!without.contains("bmc"), "{without}");
    }

    #[test]
    fn nics_fill_the_slots_function_by_function() {
        let all = argv(&example(60), true, &fds(60));
        let places: Vec<_> = all
            .iter()
            .filter(|arg| arg.starts_with("virtio-net-pci"))
            .map(|arg| arg.split("addr=").nth(1).unwrap())
            .collect();
        assert_eq!(places.len(), 60);
        assert_eq!(places[0], "03.0,multifunction=on");
        assert_eq!(places[7], "03.7");
        assert_eq!(places[8], "04.0,multifunction=on");
        assert_eq!(places[59], "0a.3");
    }

    proptest! {
        #[test]
        fn pci_order_is_nic_order_and_slots_suffice(count in 0usize..=232) {
            let places = nic_places(count);
            prop_assert!(places.is_sorted_by_key(|place| (place.slot, place.function)));
            for (index, place) in places.iter().enumerate() {
                prop_assert!(NIC_SLOTS.contains(&place.slot) && place.function < 8);
                let alone = places.iter().filter(|other| other.slot == place.slot).count() == 1;
                prop_assert!(alone || place.shared, "{index}: {place:?}");
            }
        }
    }
}
