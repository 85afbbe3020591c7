//! A user's server: a QEMU with the literal options of docs/src/plug.md, which runs FRR and plugs into
//! racks.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use vm::agent::{Agent, ExitStatus, Limits};
use vm::keys::FabricKeys;
use vm::seed::{self, SeedFile};

use crate::patience::deadline;
use crate::{Cli, Netns, block_on, ikv_fabric, patience, run};

/// Memory of the VM in MiB, the same as a switch's.
const MEMORY: &str = "192";

/// Limits of a command on the server.
const COMMAND: Limits = Limits {
    time: Duration::from_secs(60),
    output: 1 << 20,
};

/// How a NIC of the server is plugged in.
#[derive(Debug, Clone, Copy)]
pub enum Plug {
    /// By a tap: the options after `-netdev tap,id=netN,`, such as `ifname=ikvm2-6-1`.
    Tap(&'static str),
    /// By the vhost-user socket of this end, such as `ikvm1-7-2`.
    VhostUser(&'static str),
}

/// A NIC of the server.
#[derive(Debug, Clone, Copy)]
pub struct ServerNic {
    /// How it is plugged in.
    pub plug: Plug,
    /// Its MAC address, by which the guest names it `netN`.
    pub mac: &'static str,
    /// The VLAN of its interface `netN.VLAN`; 0 for untagged frames on `netN`.
    pub vlan: u16,
    /// Its address with prefix; `None` where BGP is unnumbered.
    pub address: Option<&'static str>,
}

/// A running VM; killed when dropped.
#[derive(Debug)]
pub struct ServerVm {
    process: Child,
    agent: PathBuf,
    console: PathBuf,
    errors: PathBuf,
}

impl ServerVm {
    /// Boots the switch image with `nics`, `addresses` on its loopback, and `frr` as its frr.conf.
    /// `run_folder` is the fabric's.
    ///
    /// # Panics
    /// When the image is missing, or QEMU cannot be started.
    pub fn start(
        host: &Netns,
        cli: &Cli,
        folder: &Path,
        run_folder: &Path,
        nics: &[ServerNic],
        addresses: &[&str],
        frr: &str,
    ) -> Self {
        let folder = folder.join("server");
        std::fs::create_dir(&folder).expect("a new folder");
        let files = seed_files(&folder, nics, addresses, frr);
        let image = cli.json(&["image", "path"]);
        let mut arguments = shared_memory();
        for (index, nic) in nics.iter().enumerate() {
            let mac = nic.mac;
            match nic.plug {
                Plug::Tap(netdev) => arguments.extend([
                    "-device".into(),
                    format!("virtio-net-pci,netdev=net{index},mac={mac}"),
                    "-netdev".into(),
                    format!("tap,id=net{index},{netdev}"),
                ]),
                Plug::VhostUser(end) => {
                    let socket = run_folder.join("vhost").join(format!("{end}.sock"));
                    arguments.extend(vhost_user(index, mac, &socket, ""));
                }
            }
        }
        // The VM must end also when the test is killed.
        Self::boot(host.command("setpriv"), &image, &folder, &arguments, &files)
    }

    /// Boots the switch image in `folder` with a NIC on each of the vhost-user `sockets`; the NICs'
    /// own `plug` is ignored. `devices` are further options of each virtio-net device, and `more`
    /// further files of the seed.
    ///
    /// # Panics
    /// As [`ServerVm::start`].
    pub fn on_wires(
        folder: &Path,
        sockets: &[PathBuf],
        devices: &[&str],
        nics: &[ServerNic],
        more: Vec<SeedFile>,
    ) -> Self {
        let output = run(Command::new(ikv_fabric()).args(["--json", "image", "path"]));
        let image = serde_json::from_slice(&output.stdout).expect("JSON");
        let mut files = seed_files(folder, nics, &[], "");
        files.extend(more);
        let mut arguments = shared_memory();
        for (index, ((nic, socket), device)) in nics.iter().zip(sockets).zip(devices).enumerate() {
            arguments.extend(vhost_user(index, nic.mac, socket, device));
        }
        Self::boot(Command::new("setpriv"), &image, folder, &arguments, &files)
    }

    fn boot(
        mut qemu: Command,
        image: &Value,
        folder: &Path,
        nics: &[String],
        files: &[SeedFile],
    ) -> Self {
        let seed = folder.join("seed.tar");
        seed::write(&seed, files).expect("a small seed");
        let file = |name: &str| image[name].as_str().expect("a path").to_owned();
        let (agent, console) = (folder.join("agent.sock"), folder.join("console.log"));
        let errors = folder.join("stderr");
        let disk = |path: &str| format!("file={path},format=raw,if=virtio,readonly=on");
        qemu.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-machine", "pc", "-accel", "tcg", "-m", MEMORY])
            .args(["-cpu", "qemu64,+rdrand"])
            .args(["-kernel", &file("kernel"), "-initrd", &file("initrd")])
            .args(["-append", vm::image::KERNEL_CMDLINE])
            .args(["-drive", &disk(&file("root"))])
            .args(["-drive", &disk(&seed.display().to_string())])
            .args(["-serial", &format!("file:{}", console.display())])
            .args(["-device", "virtio-serial-pci", "-chardev"])
            .arg(format!(
                "socket,id=agent,path={},server=on,wait=off",
                agent.display()
            ))
            .args([
                "-device",
                "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
            ]);
        qemu.args(nics);
        let stderr = std::fs::File::create(&errors).expect("the folder is ours");
        let process = qemu
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("ip can be started");
        ServerVm {
            process,
            agent,
            console,
            errors,
        }
    }

    /// Waits until its guest agent answers.
    ///
    /// # Panics
    /// If it does not within `limit`, with the end of its console.
    pub fn wait_booted(&self, limit: Duration) {
        let deadline = deadline(limit);
        patience::until("the server's boot", limit, || {
            let left = deadline.saturating_duration_since(Instant::now());
            let ping = async {
                Agent::new(self.agent.clone())
                    .ping(left.min(Duration::from_secs(5)))
                    .await
            };
            block_on(ping).map_err(|error| format!("{error}\n{}", self.console_tail()))
        });
    }

    /// Runs a command on it that must succeed; its standard output.
    ///
    /// # Panics
    /// When it fails.
    pub fn exec(&self, argv: &[&str]) -> String {
        let words: Vec<String> = argv.iter().map(ToString::to_string).collect();
        let answer = block_on(async {
            Agent::new(self.agent.clone())
                .exec(&words, b"", COMMAND)
                .await
        });
        let output = answer
            .unwrap_or_else(|error| panic!("server: {argv:?}: {error}\n{}", self.console_tail()));
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status,
            ExitStatus::Code(0),
            "server: {argv:?}: {stdout}{stderr}"
        );
        stdout
    }

    /// `vtysh -c COMMAND` on it, `json` appended.
    ///
    /// # Panics
    /// When it fails or prints no JSON.
    pub fn vtysh(&self, command: &str) -> Value {
        let text = self.exec(&["vtysh", "-c", &format!("{command} json")]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{command}: {error} in {text}"))
    }

    /// QEMU's standard error and the end of the console.
    pub fn console_tail(&self) -> String {
        let read = |path: &Path| {
            let bytes = std::fs::read(path).unwrap_or_default();
            let start = bytes.len().saturating_sub(2000);
            String::from_utf8_lossy(&bytes[start..]).replace('\r', "")
        };
        format!(
            "QEMU: {}\nconsole: {}",
            read(&self.errors),
            read(&self.console)
        )
    }

    /// Kills the VM, which unplugs it.
    pub fn stop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for ServerVm {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Options for memory that a vhost-user back end can map.
fn shared_memory() -> Vec<String> {
    [
        "-object",
        &format!("memory-backend-memfd,id=ram,size={MEMORY}M,share=on"),
        "-machine",
        "memory-backend=ram",
    ]
    .map(Into::into)
    .into()
}

/// Options for NIC `index` on a vhost-user socket; `more` are further options of its device.
fn vhost_user(index: usize, mac: &str, socket: &Path, more: &str) -> [String; 6] {
    let socket = socket.display();
    [
        "-chardev".into(),
        format!("socket,id=cable{index},path={socket},reconnect=1"),
        "-netdev".into(),
        format!("vhost-user,id=net{index},chardev=cable{index}"),
        "-device".into(),
        // QEMU 7.2 crashes under TCG when the guest uses MSI-X.
        format!(
            "virtio-net-pci,netdev=net{index},mac={mac},vectors=0,disable-legacy=on,romfile={more}"
        ),
    ]
}

fn seed_files(folder: &Path, nics: &[ServerNic], addresses: &[&str], frr: &str) -> Vec<SeedFile> {
    let mut names = String::new();
    let mut network = String::from("link set dev lo up\n");
    for address in addresses {
        let _ = writeln!(network, "address add {address} dev lo");
    }
    for (index, nic) in nics.iter().enumerate() {
        let ServerNic { mac, vlan, .. } = nic;
        let _ = writeln!(names, "{mac} net{index}");
        let _ = writeln!(network, "link set dev net{index} mtu 9000 up");
        let mut device = format!("net{index}");
        if *vlan != 0 {
            device = format!("net{index}.{vlan}");
            let _ = writeln!(
                network,
                "link add link net{index} name {device} up type vlan id {vlan}"
            );
        }
        if let Some(address) = nic.address {
            let _ = writeln!(network, "address add {address} dev {device}");
        }
    }
    let file = |path: &str, text: &str| SeedFile {
        path: path.into(),
        mode: 0o644,
        bytes: text.into(),
    };
    let sysctls = "net.ipv6.conf.all.accept_dad = 0\nnet.ipv6.conf.default.accept_dad = 0\n\
                   net.ipv4.fib_multipath_hash_policy = 1\n";
    let mut files = vec![
        file("etc/hostname", "server\n"),
        file("etc/hosts", "127.0.0.1 localhost\n"),
        file("etc/frr/frr.conf", frr),
        file("etc/frr/vtysh.conf", "service integrated-vtysh-config\n"),
        file("etc/ikv/nics", &names),
        file("etc/ikv/network.batch", &network),
        file("etc/ikv/sysctl.conf", sysctls),
    ];
    // Without a host key its sshd would restart endlessly.
    let keys = FabricKeys::load_or_create(&folder.join("keys"), ["server"], None)
        .expect("the folder is ours");
    files.extend(vm::ssh::seed_files(&keys, "server", &[], ""));
    files
}
