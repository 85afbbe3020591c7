//! Machines without a disk boot from the network, as ikvswitch's users install theirs: leaf1 gives
//! them an address and a boot file, and a VM in the same rack, which announces its address by BGP,
//! serves the file. Machines of a VLAN network reach each other, their gateway and the outside.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use ikv_tests::patience::{ensure, until};
use ikv_tests::{
    Fabric, OUTSIDE, Plug, ServerNic, ServerVm, Site, ensure_image, lacks_for_vms, skip,
};

/// Time for emulated VMs to boot while other tests run.
const PATIENCE: Duration = Duration::from_secs(180);

/// The boot server's NICs. Over the first two it peers with both leaves; each of the others is a
/// machine of its own in the VLAN network behind leaf2's brvlan12.
const NICS: [ServerNic; 4] = [
    nic("ikvm1-6-1", "02:69:6b:01:06:01", 10),
    nic("ikvm1-6-2", "02:69:6b:01:06:02", 10),
    nic("ikvm1-9-2", "02:69:6b:01:09:02", 12),
    nic("ikvm1-10-2", "02:69:6b:01:0a:02", 12),
];

const fn nic(end: &'static str, mac: &'static str, vlan: u16) -> ServerNic {
    ServerNic {
        plug: Plug::VhostUser(end),
        mac,
        vlan,
        address: None,
    }
}

/// Moves the NICs of the VLAN network into namespaces, so that they are two machines.
const VLAN_MACHINES: &str = "\
for n in 2 3; do
    ip netns add vlan$n
    ip link set net$n.12 netns vlan$n
    ip -n vlan$n address add 192.168.114.1$n/24 dev net$n.12
    ip -n vlan$n link set net$n.12 up
    ip -n vlan$n route add default via 192.168.114.1
done";

/// FRR configuration that announces `dhcp.next_server`, the address that DHCP answers contain.
const ANNOUNCE: &str = "\
router bgp 65600
 bgp router-id 192.168.100.2
 no bgp ebgp-requires-policy
 bgp bestpath as-path multipath-relax
 neighbor net0.10 interface remote-as external
 neighbor net0.10 timers connect 1
 neighbor net1.10 interface remote-as external
 neighbor net1.10 timers connect 1
 address-family ipv4 unicast
  network 192.168.100.2/32
 exit-address-family
exit
";

/// The text that the network boot program writes to the serial port.
const BOOTED: &str = "booted from the network";

/// A network boot program for a BIOS, which loads it at 0000:7c00. It writes [`BOOTED`] to COM1 and
/// halts.
fn boot_program() -> Vec<u8> {
    let mut program = vec![
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xfc, // cld
        0xbe, 0x16, 0x7c, // mov si, the text
        0xba, 0xf8, 0x03, // mov dx, COM1
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x03, // jz end
        0xee, // out dx, al
        0xeb, 0xf8, // jmp next
        0xf4, // end: hlt
        0xeb, 0xfd, // jmp end
    ];
    program.extend(BOOTED.bytes());
    program.push(0);
    program
}

/// A VM without a disk; killed when dropped.
struct Diskless {
    process: Child,
    serial: PathBuf,
}

impl Diskless {
    /// Starts it on a tap, with `more` options of QEMU.
    fn start(fabric: &Fabric, tap: &str, mac: &str, more: &[&str]) -> Self {
        let serial = fabric.scratch().join(format!("{tap}.serial"));
        let mut qemu: Command = fabric.site.host.command("setpriv");
        qemu.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-accel", "tcg", "-m", "256", "-boot", "n"])
            .arg("-serial")
            .arg(format!("file:{}", serial.display()))
            .args([
                "-netdev",
                &format!("tap,id=n,ifname={tap},script=no,downscript=no"),
            ])
            .args(["-device", &format!("virtio-net-pci,netdev=n,mac={mac}")])
            .args(more);
        let process = qemu.spawn().unwrap();
        Diskless { process, serial }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.serial).unwrap_or_default()).into_owned()
    }
}

impl Drop for Diskless {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes a file on the boot server.
fn put(server: &ServerVm, path: &str, bytes: &[u8]) {
    let mut octal = String::new();
    for byte in bytes {
        write!(octal, "\\0{byte:03o}").unwrap();
    }
    let script = format!("mkdir -p $(dirname {path}); printf '%b' '{octal}' >{path}");
    server.exec(&["sh", "-ec", &script]);
}

#[test]
fn machines_boot_over_the_network_and_reach_each_other_in_a_vlan() {
    if let Some(lacking) = lacks_for_vms() {
        return skip(&format!("needs {lacking}"));
    }
    ensure_image().unwrap();
    let only = ["--only", "rack1,spine1,internet"];
    let mut fabric = Fabric::start(Site::new("pxe"), &only);
    fabric.wait_ready(PATIENCE).unwrap();
    let cli = fabric.cli();
    let (host, scratch, run) = (&fabric.site.host, fabric.scratch(), fabric.run_folder());
    let loopback = ["192.168.100.2/32"];
    let server = ServerVm::start(host, &cli, scratch, &run, &NICS, &loopback, ANNOUNCE);
    server.wait_booted(PATIENCE);
    put(&server, "/srv/lpxelinux.0", &boot_program());
    put(
        &server,
        "/srv/shimx64.efi.signed",
        b"no program, but fetched",
    );
    let script = b"#!ipxe\nchain tftp://192.168.100.2/lpxelinux.0\n";
    put(&server, "/srv/oci/ipxe.php", script);
    let serve = "dnsmasq --port=0 --enable-tftp --tftp-root=/srv --log-facility=/tmp/tftp.log
                 busybox httpd -p 80 -h /srv";
    server.exec(&["sh", "-ec", serve]);
    until("the leaf to have a route to the server", PATIENCE, || {
        let said = cli.run(&["exec", "leaf1", "--", "fping", "-q", "192.168.100.2"]);
        ensure(said.code == Some(0), || format!("{said:?}"))
    });

    server.exec(&["sh", "-ec", VLAN_MACHINES]);
    for to in ["192.168.114.1", "192.168.114.13", &OUTSIDE.to_string()] {
        let ping = ["ping", "-c", "1", "-W", "10", to];
        server.exec(&[&["ip", "netns", "exec", "vlan2"][..], &ping].concat());
    }

    // QEMU's boot ROM is iPXE, which gets the address of a script over HTTP. It asks for some
    // seconds only, and a leaf on a busy machine may answer later: so the machine boots again, as a
    // real one does. Its console is in the message of a failure.
    let more = [
        "-boot",
        "reboot-timeout=1000",
        "-machine",
        "pc,graphics=off",
    ];
    let bios = Diskless::start(&fabric, "ikvm1-7-1", "02:69:6b:01:07:01", &more);
    until("the boot program of a BIOS", PATIENCE, || {
        ensure(bios.said().contains(BOOTED), || {
            bios.said() + &server.console_tail()
        })
    });
    drop(bios);

    let firmware = Path::new("/usr/share/OVMF/OVMF_CODE.fd");
    if !firmware.exists() {
        return skip("UEFI needs OVMF (apt-get install ovmf)");
    }
    let drive = format!(
        "if=pflash,format=raw,unit=0,readonly=on,file={}",
        firmware.display()
    );
    // Without QEMU's boot ROM, the firmware's own PXE asks.
    let more = [
        "-machine",
        "q35",
        "-drive",
        &drive,
        "-global",
        "virtio-net-pci.romfile=",
    ];
    let uefi = Diskless::start(&fabric, "ikvm1-8-1", "02:69:6b:01:08:01", &more);
    until("the boot program of UEFI to be fetched", PATIENCE, || {
        let log = server.exec(&["cat", "/tmp/tftp.log"]);
        let sent = log
            .lines()
            .any(|line| line.contains("sent /srv/shimx64.efi.signed"));
        ensure(sent, || format!("{log}\n{}", uefi.said()))
    });
}
