//! Two QEMU guests with four wires between them: split and packed rings, each with and without
//! mergeable buffers. After a guest, a QEMU or the wires restart, frames pass again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ikv_tests::patience::{ensure, until};
use ikv_tests::{Plug, ServerNic, ServerVm, VhostWire, ensure_image, figure, run, skip};
use serde_json::Value;
use vm::seed::SeedFile;

/// Time for a boot under TCG while the other guest boots, too.
const BOOT: Duration = Duration::from_secs(240);

/// Time for frames to pass again: QEMU tries to reconnect each second and then reports the link up.
const HEALED: Duration = Duration::from_secs(60);

/// Name and options of the devices at each wire.
const KINDS: [(&str, &str); 4] = [
    ("split, mergeable", ""),
    ("split", ",mrg_rxbuf=off"),
    ("packed, mergeable", ",packed=on"),
    ("packed", ",packed=on,mrg_rxbuf=off"),
];

/// How many of them, the first ones, have split rings.
const SPLIT: usize = 2;

/// The folder in the guests with this machine's iperf3, its libraries and their loader.
const IPERF: &str = "opt/iperf3";

const fn nic(mac: &'static str, address: &'static str) -> ServerNic {
    ServerNic {
        plug: Plug::VhostUser("a wire"),
        mac,
        vlan: 0,
        address: Some(address),
    }
}

const LEFT: [ServerNic; 4] = [
    nic("02:00:00:00:0a:00", "10.11.0.1/24"),
    nic("02:00:00:00:0a:01", "10.11.1.1/24"),
    nic("02:00:00:00:0a:02", "10.11.2.1/24"),
    nic("02:00:00:00:0a:03", "10.11.3.1/24"),
];

const RIGHT: [ServerNic; 4] = [
    nic("02:00:00:00:0b:00", "10.11.0.2/24"),
    nic("02:00:00:00:0b:01", "10.11.1.2/24"),
    nic("02:00:00:00:0b:02", "10.11.2.2/24"),
    nic("02:00:00:00:0b:03", "10.11.3.2/24"),
];

struct Pair {
    wires: Vec<VhostWire>,
    left: ServerVm,
    right: ServerVm,
    folders: [tempfile::TempDir; 2],
    iperf: Vec<SeedFile>,
}

impl Pair {
    fn start() -> Self {
        let iperf = iperf_files();
        let wires: Vec<_> = KINDS.iter().map(|_| VhostWire::start()).collect();
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let left = boot(&wires, "a", folders[0].path(), &LEFT, &iperf);
        let right = boot(&wires, "b", folders[1].path(), &RIGHT, &iperf);
        let pair = Pair {
            wires,
            left,
            right,
            folders,
            iperf,
        };
        pair.left.wait_booted(BOOT);
        pair.right.wait_booted(BOOT);
        pair
    }

    /// Waits until a ping passes on every wire.
    fn wait_pings(&self, after: &str) {
        self.wait_pings_on(KINDS.len(), after);
    }

    /// As [`Pair::wait_pings`], on the first `wires` wires.
    fn wait_pings_on(&self, wires: usize, after: &str) {
        for (index, (kind, _)) in KINDS.iter().enumerate().take(wires) {
            let to = format!("10.11.{index}.2");
            let ping = format!("ping -c 2 -i 0.2 -W 1 {to} || true");
            until(&format!("{kind}: a ping after {after}"), HEALED, || {
                let said = self.left.exec(&["sh", "-c", &ping]);
                ensure(said.contains(" 2 received"), || said)
            });
        }
    }

    /// Sends TCP in both directions on every wire.
    fn iperf(&self) {
        let loader = format!("/{IPERF}/loader --library-path /{IPERF} /{IPERF}/iperf3");
        let sh = |vm: &ServerVm, line: String| vm.exec(&["sh", "-c", &line]);
        sh(&self.right, format!("{loader} --server --daemon"));
        for (index, (kind, _)) in KINDS.iter().enumerate() {
            let before = self.wires[index].lanes();
            let rates = ["", "--reverse"].map(|way| {
                let line = format!("{loader} --client 10.11.{index}.2 --time 2 --json {way}");
                let said: Value = serde_json::from_str(&sh(&self.left, line)).unwrap();
                let rate = said["end"]["sum_received"]["bits_per_second"].as_f64();
                rate.unwrap_or_else(|| panic!("{kind}: {said}"))
            });
            let after = self.wires[index].quiet();
            for lane in [0, 1] {
                assert!(
                    after[lane].frames_out > before[lane].frames_out + 100,
                    "{kind}"
                );
            }
            assert!(rates.iter().all(|rate| *rate > 1e6), "{kind}: {rates:?}");
            let [to, from] = rates.map(|rate| rate / 1e6);
            figure(
                &format!("TCP between two emulated guests, {kind}"),
                &format!("{to:.0} and {from:.0} Mbit/s"),
            );
        }
    }

    fn reboot_right(&self) {
        let reboot = "(sleep 0.2; echo b > /proc/sysrq-trigger) > /dev/null 2>&1 &";
        self.right.exec(&["sh", "-c", reboot]);
        until("the guest to go down", BOOT, || {
            let console = self.right.console_tail();
            ensure(console.contains("sysrq: Resetting"), || console)
        });
        self.right.wait_booted(BOOT);
    }

    fn kill_right(&mut self) {
        self.right.stop();
        self.folders[1] = tempfile::tempdir().unwrap();
        self.right = boot(
            &self.wires,
            "b",
            self.folders[1].path(),
            &RIGHT,
            &self.iperf,
        );
        self.right.wait_booted(BOOT);
    }

    fn kill_wires(&mut self) {
        for wire in &mut self.wires {
            wire.kill_and_start_again();
        }
    }
}

fn boot(
    wires: &[VhostWire],
    end: &str,
    folder: &Path,
    nics: &[ServerNic],
    iperf: &[SeedFile],
) -> ServerVm {
    let sockets: Vec<_> = wires.iter().map(|wire| wire.socket(end)).collect();
    let devices = KINDS.map(|(_, device)| device);
    ServerVm::on_wires(folder, &sockets, &devices, nics, iperf.to_vec())
}

/// This machine's iperf3 with its libraries: the switch image has none.
fn iperf_files() -> Vec<SeedFile> {
    let program = host::program::find("iperf3").unwrap();
    let libraries = run(Command::new("ldd").arg(&program));
    let libraries = String::from_utf8_lossy(&libraries.stdout).into_owned();
    let file = |name: &str, path: &Path| SeedFile {
        path: format!("{IPERF}/{name}"),
        mode: 0o755,
        bytes: std::fs::read(path).unwrap(),
    };
    let mut files = vec![file("iperf3", &program)];
    for path in libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let path = PathBuf::from(path);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let name = if name.starts_with("ld-linux") {
            "loader"
        } else {
            &name
        };
        files.push(file(name, &path));
    }
    files
}

fn can_run() -> bool {
    for (program, package) in [
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("iperf3", "iperf3"),
    ] {
        if host::program::find(program).is_none() {
            skip(&format!("needs {program} (apt-get install {package})"));
            return false;
        }
    }
    if let Err(error) = ensure_image() {
        skip(&format!("needs the switch image: {error}"));
        return false;
    }
    true
}

#[test]
fn linux_guests_talk_again_after_every_restart() {
    if !can_run() {
        return;
    }
    let mut pair = Pair::start();
    pair.wait_pings("boot");
    pair.iperf();
    pair.reboot_right();
    pair.wait_pings("a reboot of the guest");
    pair.kill_right();
    pair.wait_pings("kill -9 of QEMU");
    pair.kill_wires();
    // Only the last back end knew the position in a packed ring, and QEMU (7.2) continues where it
    // saw it last: the guests would have to reset these devices.
    pair.wait_pings_on(SPLIT, "kill -9 of the wires");
    for wire in &pair.wires {
        let [there, back] = wire.lanes();
        assert!(there.frames_out > 0 && back.frames_out > 0);
    }
    drop((pair.left, pair.right));
    for wire in pair.wires {
        wire.end();
    }
}
