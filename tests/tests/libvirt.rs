//! `vm-args --libvirt`: Debian's libvirt starts domains with what it prints, by tap and by socket.
//!
//! The daemon is the test's own: in the namespace of the test's host, with empty folders in place of the
//! machine's /etc/libvirt and so on, and with the user that Debian's libvirt runs QEMU as.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ikv_tests::ipxe::{assert_talks, have_qemu};
use ikv_tests::panel::{PanelHost, json_without_fabric};
use ikv_tests::patience::{SOON, ended, ensure, output_within, until, wait_until};
use ikv_tests::{Nic, have_root, skip};
use rustix::process::{Pid, Signal, kill_process};

/// The uid and gid that Debian gives to libvirt-qemu. The group may plug in.
const LIBVIRT_QEMU: &str = "64055";

/// Time for libvirt to start a domain: it first asks QEMU what it can do, which takes most of a minute
/// without KVM.
const STARTED: Duration = Duration::from_secs(180);

/// Starts the daemon. `$0` is the folder of the test, `$1` the uid of libvirt-qemu. What it mounts is seen
/// by the daemon and its children alone.
const DAEMON: &str = r#"
set -e
for folder in /run /var/lib /var/log /var/cache /etc/libvirt; do
  mount -t tmpfs -o mode=755 none $folder
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

/// Without what a namespace that has no system in it lacks: cgroups, a security module, virtlogd.
const QEMU_CONF: &str = r#"
user = "libvirt-qemu"
group = "libvirt-qemu"
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
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
        let sockets = folder.join("sockets");
        fs::create_dir_all(&sockets).unwrap();
        let daemon = format!(
            "unix_sock_dir = \"{}\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n\
             log_outputs = \"3:stderr\"\n",
            sockets.display()
        );
        fs::write(folder.join("libvirtd.conf"), daemon).unwrap();
        fs::write(folder.join("qemu.conf"), QEMU_CONF).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = host.netns.command("unshare");
        command
            .args(["--mount", "sh", "-c", DAEMON])
            .arg(&folder)
            .arg(LIBVIRT_QEMU)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let libvirt = Libvirt {
            host,
            daemon: command.spawn().unwrap(),
            folder,
        };
        until("libvirtd to answer", SOON, || {
            libvirt.virsh(&["list"], SOON)
        });
        libvirt
    }

    fn virsh(&self, words: &[&str], limit: Duration) -> Result<String, String> {
        let socket = self.folder.join("sockets/libvirt-sock");
        let uri = format!("qemu+unix:///system?socket={}", socket.display());
        let mut command = self.host.netns.command("virsh");
        let output = output_within(command.args(["--connect", &uri]).args(words), limit);
        ensure(output.status.success(), || {
            let error = String::from_utf8_lossy(&output.stderr);
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            format!("{words:?}: {error}\n{log}")
        })?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a transient domain without a disk, which boots from its first network card. libvirt checks
    /// it against its schema first.
    fn start_domain(&self, name: &str, elements: &[String]) {
        let (devices, others): (Vec<&str>, Vec<&str>) = elements
            .iter()
            .map(String::as_str)
            .partition(|element| element.starts_with("<interface"));
        let domain = format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='network'/></os>\
             <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{}</devices>{}</domain>",
            devices.concat(),
            others.concat(),
        );
        let file = self.folder.join(format!("{name}.xml"));
        fs::write(&file, domain).unwrap();
        let file = file.display().to_string();
        self.virsh(&["create", "--validate", &file], STARTED)
            .unwrap();
    }

    /// Ends all domains, then the daemon; nothing of it is left in the namespace.
    fn end(mut self) {
        self.destroy_all();
        signal(&self.daemon);
        let status = ended(&mut self.daemon, SOON).expect("libvirtd ends");
        assert!(status.success(), "{status}");
    }

    fn destroy_all(&self) {
        let names = self.virsh(&["list", "--name"], SOON).unwrap_or_default();
        for name in names.split_whitespace() {
            let _ = self.virsh(&["destroy", name], SOON);
        }
    }
}

impl Drop for Libvirt<'_> {
    fn drop(&mut self) {
        if let Ok(None) = self.daemon.try_wait() {
            self.destroy_all();
            let _ = self.daemon.kill();
        }
        let _ = self.daemon.wait();
    }
}

fn signal(child: &Child) {
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
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

/// The elements that `vm-args PLACE --libvirt` prints for a domain that TCG runs.
fn elements(host: &PanelHost, place: &str, nic: &str) -> Vec<String> {
    let words = [
        "vm-args",
        place,
        "--libvirt",
        "--nic",
        nic,
        "--accel",
        "tcg",
    ];
    let elements: Vec<String> = serde_json::from_value(host.json(&words)["xml"].clone()).unwrap();
    // What a script gets from standard output is the same, and nothing but XML.
    let printed = host.ask(&words);
    assert_eq!(printed.stdout, elements.join("\n") + "\n");
    assert!(printed.stderr.contains("note: "), "{printed:?}");
    elements
}

/// Asserts that the cable of this end has counted frames in both directions.
fn assert_counted(host: &PanelHost, end: &str) {
    let cables = host.json(&["cables", end]);
    for lane in cables[0]["lanes"].as_array().unwrap() {
        let counted = |key: &str| lane[key].as_u64().unwrap();
        assert!(
            counted("frames_in") > 0 && counted("frames_out") > 0,
            "{end}: {lane}"
        );
    }
}

#[test]
fn domains_of_libvirt_talk_by_tap_and_by_socket() {
    if !have_qemu() || !installed() {
        return;
    }
    let host = PanelHost::new("libvirt");
    let empty = host.state();
    let fabric = host.run(&["--set", &format!("host.plug_group={LIBVIRT_QEMU}")]);
    let before = as_made(&host, "ikvm2-6-1");
    let libvirt = Libvirt::start(&host);

    // Of both NICs, the first is asked to boot: the second is plugged in beside it.
    let leaf = host.netns.enter(|| Nic::plain("ikls3-6"));
    libvirt.start_domain("by-tap", &elements(&host, "rack2:u6", "tap"));
    assert_talks(&leaf, "02:69:6b:02:06:01");
    assert_counted(&host, "ikvm2-6-1");
    wait_until("both taps to be plugged in", SOON, || {
        let held = |tap| {
            host.netns
                .ip(&format!("-o link show {tap}"))
                .contains("LOWER_UP")
        };
        held("ikvm2-6-1") && held("ikvm2-6-2")
    });

    let leaf = host.netns.enter(|| Nic::plain("ikls3-7"));
    libvirt.start_domain("by-socket", &elements(&host, "rack2:u7", "vhost-user"));
    assert_talks(&leaf, "02:69:6b:02:07:01");
    assert_counted(&host, "ikvm2-7-1");

    libvirt.end();
    // libvirt has left the tap, which is not its own, as it found it.
    wait_until("the tap to be as before", SOON, || {
        as_made(&host, "ikvm2-6-1") == before
    });
    assert_eq!(host.netns.pids(), [fabric.pid()], "nothing else runs here");
    assert!(
        !fabric.stderr().contains("made anew"),
        "{}",
        fabric.stderr()
    );
    fabric.end();
    fs::remove_dir_all(host.folder().join("libvirt")).unwrap();
    empty.assert_unchanged(&host.state(), "libvirt's domains had plugged in");
}

/// A tap as `ip link` shows it, without its queueing discipline: libvirt leaves `noqueue`, which suits a tap,
/// whose queue is the descriptor's.
fn as_made(host: &PanelHost, tap: &str) -> String {
    let shown = host.netns.ip(&format!("-o link show {tap}"));
    let mut words: Vec<_> = shown.split_whitespace().collect();
    let qdisc = words.iter().position(|word| *word == "qdisc");
    words.drain(qdisc.map_or(0..0, |at| at..at + 2));
    words.join(" ")
}

/// Without the key, QEMU may not connect: the hint on standard error names it, and only then.
#[test]
fn the_hint_names_the_group_that_is_missing() {
    if !have_root() {
        return;
    }
    for (set, hinted) in [(None, true), (Some(LIBVIRT_QEMU), false)] {
        let host = PanelHost::new("hint");
        let group = set.map(|group| format!("--set=host.plug_group={group}"));
        let fabric = host.run(&group.iter().map(String::as_str).collect::<Vec<_>>());
        let ask = |nic| host.ask(&["vm-args", "rack1:u3", "--libvirt", "--nic", nic]);
        let printed = ask("vhost-user");
        assert_eq!(
            printed.stderr.contains("host.plug_group"),
            hinted,
            "{printed:?}"
        );
        assert!(!printed.stdout.contains("plug_group"), "{printed:?}");
        // libvirt opens taps as root.
        assert!(!ask("tap").stderr.contains("plug_group"));
        fabric.end();
    }
    let offline = json_without_fabric(&["vm-args", "rack1:u3", "--libvirt"]);
    assert_eq!(offline["xml"].as_array().unwrap().len(), 2);
}
