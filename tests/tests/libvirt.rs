//! `vm-args --libvirt`: Debian's libvirt starts a domain with what it prints, by tap and by socket.
//!
//! The daemon is this test's own: it runs in the namespace of the test's host, sees empty folders in
//! place of the machine's /etc/libvirt and so on, and finds the user that Debian's libvirt runs QEMU as.
#![allow(missing_docs, clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ikv_tests::ipxe::{assert_talks, have_qemu};
use ikv_tests::panel::PanelHost;
use ikv_tests::patience::{SOON, ended, output_within, wait_until};
use ikv_tests::{Nic, skip};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The uid and gid that Debian gives to libvirt-qemu. The group may plug in.
const LIBVIRT_QEMU: u32 = 64_055;

/// Time for libvirt to start a domain: it asks QEMU for its abilities first, many times over.
const STARTED: Duration = Duration::from_secs(180);

/// Places a daemon of our own beside the machine's: `$0` is the folder of the test.
const DAEMON: &str = r#"
set -e
for folder in /run/libvirt /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
  mkdir -p $folder
  mount -t tmpfs none $folder
done
for table in passwd group; do
  grep -v ^libvirt-qemu: /etc/$table > "$0/$table"
done
echo "libvirt-qemu:x:$1:$1::/:/bin/false" >> "$0/passwd"
echo "libvirt-qemu:x:$1:" >> "$0/group"
mount --bind "$0/passwd" /etc/passwd
mount --bind "$0/group" /etc/group
cp "$0/qemu.conf" /etc/libvirt/qemu.conf
exec setpriv --pdeathsig KILL -- libvirtd --config "$0/libvirtd.conf"
"#;

/// A running libvirtd. Its domains, which would outlive it, end before it does.
struct Libvirt<'h> {
    host: &'h PanelHost,
    daemon: Child,
    folder: PathBuf,
}

impl<'h> Libvirt<'h> {
    fn start(host: &'h PanelHost) -> Self {
        let folder = host.folder().join("libvirt");
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let sockets = folder.join("sockets");
        std::fs::create_dir(&sockets).unwrap();
        let daemon = format!(
            "unix_sock_dir = \"{}\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n\
             log_outputs = \"3:stderr\"\n",
            sockets.display()
        );
        std::fs::write(folder.join("libvirtd.conf"), daemon).unwrap();
        // The parts that a namespace without a system in it lacks.
        let qemu = "user = \"libvirt-qemu\"\ngroup = \"libvirt-qemu\"\nsecurity_driver = \"none\"\n\
                    cgroup_controllers = []\nnamespaces = []\nstdio_handler = \"file\"\n";
        std::fs::write(folder.join("qemu.conf"), qemu).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let daemon = host
            .netns
            .command("unshare")
            .args(["--mount", "sh", "-c", DAEMON])
            .arg(&folder)
            .arg(LIBVIRT_QEMU.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let libvirt = Libvirt {
            host,
            daemon,
            folder,
        };
        wait_until("libvirtd to answer", SOON, || {
            libvirt.virsh(&["list"], SOON).is_ok()
        });
        libvirt
    }

    fn virsh(&self, words: &[&str], limit: Duration) -> Result<String, String> {
        let socket = self.folder.join("sockets/libvirt-sock");
        let uri = format!("qemu+unix:///system?socket={}", socket.display());
        let mut command = self.host.netns.command("virsh");
        let output = output_within(command.args(["--connect", &uri]).args(words), limit);
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let error = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(format!("{words:?}: {error}\n{log}")),
        }
    }

    /// Defines and starts a domain without a disk, which boots from its network card.
    fn start_domain(&self, name: &str, xml: &Value) {
        let elements: Vec<&str> = xml.as_array().unwrap().iter().map(text).collect();
        let (memory, interfaces): (Vec<&str>, Vec<&str>) = elements
            .iter()
            .partition(|element| element.starts_with("<memoryBacking>"));
        // QEMU 7.2 crashes with vhost-user and MSI-X under TCG, as a remark of vm-args says.
        let domain = format!(
            "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
             <name>{name}</name><memory unit='MiB'>64</memory>{}<vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='network'/></os>\
             <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{}</devices>\
             <qemu:override><qemu:device alias='net0'><qemu:frontend>\
             <qemu:property name='vectors' type='unsigned' value='0'/>\
             </qemu:frontend></qemu:device></qemu:override></domain>",
            memory.concat(),
            interfaces.concat(),
        );
        let file = self.folder.join(format!("{name}.xml"));
        std::fs::write(&file, domain).unwrap();
        let file = file.display().to_string();
        for words in [["define", &file], ["start", name]] {
            self.virsh(&words, STARTED).unwrap();
        }
    }
}

impl Drop for Libvirt<'_> {
    fn drop(&mut self) {
        let names = self.virsh(&["list", "--name"], SOON).unwrap_or_default();
        for name in names.split_whitespace() {
            let _ = self.virsh(&["destroy", name], SOON);
        }
        if let Some(pid) = Pid::from_raw(self.daemon.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if ended(&mut self.daemon, SOON).is_none() {
            let _ = self.daemon.kill();
            let _ = self.daemon.wait();
        }
    }
}

fn text(element: &Value) -> &str {
    element.as_str().unwrap()
}

fn installed() -> bool {
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let all = Path::new("/usr/sbin/libvirtd").exists() && has("virsh");
    if !all {
        skip(
            "needs libvirt (apt-get install libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients)",
        );
    }
    all
}

#[test]
fn a_domain_of_libvirt_talks_by_tap_and_by_socket() {
    if !have_qemu() || !installed() {
        return;
    }
    let host = PanelHost::new("libvirt");
    let group = format!("host.plug_group={LIBVIRT_QEMU}");
    let fabric = host.run(&["--set", &group]);
    let libvirt = Libvirt::start(&host);
    for (name, words, leaf, mac) in [
        (
            "by-tap",
            &["vm-args", "rack2:u6:1", "--libvirt"][..],
            "ikls3-6",
            "02:69:6b:02:06:01",
        ),
        (
            "by-socket",
            &["vm-args", "rack2:u7:1", "--libvirt", "--nic", "vhost-user"],
            "ikls3-7",
            "02:69:6b:02:07:01",
        ),
    ] {
        let leaf = host.netns.enter(|| Nic::plain(leaf));
        libvirt.start_domain(name, &host.json(words)["xml"]);
        assert_talks(&leaf, mac);
    }
    // What a script gets is XML, and nothing but XML.
    let printed = host.ask(&["vm-args", "rack2:u7:1", "--libvirt", "--nic", "vhost-user"]);
    assert!(printed.stdout.starts_with("<memoryBacking>"), "{printed:?}");
    assert!(printed.stdout.ends_with("</interface>\n"), "{printed:?}");
    drop(libvirt);
    // libvirt leaves the tap, which is not its own.
    host.netns.ip("link show ikvm2-6-1");
    fabric.end();
}
