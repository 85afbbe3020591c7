//! The package in fresh roots of Debian 12 and 13: apt finds all that it needs, dpkg installs it, and it works.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ikv_tests::patience::{SOON, ended, ensure, until};
use ikv_tests::{DebianRoot, Netns, have_root, own_release, skip};
use rustix::process::{Pid, Signal, kill_process};

use crate::{lack, package};

/// From old to new. The program runs where the C library is not older than that which it was built with.
const RELEASES: [&str; 2] = ["bookworm", "trixie"];

/// Time for apt.
const INSTALL: Duration = Duration::from_secs(300);

/// A process that does not outlive its test.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn debian_12() {
    works_in("bookworm");
}

#[test]
fn debian_13() {
    works_in("trixie");
}

fn works_in(release: &str) {
    let Some(package) = package() else { return };
    if !have_root() || lack(&[("mmdebstrap", "mmdebstrap")]) {
        return;
    }
    let age = |release: &str| RELEASES.iter().position(|it| *it == release);
    if age(&own_release()) > age(release) {
        return skip(&format!(
            "needs a program that was built on {release} or before"
        ));
    }
    let root = DebianRoot::new(release);
    std::fs::copy(&package.deb, root.path().join("root/package.deb")).unwrap();
    let asks = |words: &[&str]| root.run(None, words, INSTALL);
    asks(&["apt-get", "update"]);
    let simulated = asks(&["apt-get", "install", "--simulate", "/root/package.deb"]);
    assert!(simulated.contains("\nInst qemu-system-x86 "), "{simulated}");
    // QEMU and what builds images are large; what runs here needs neither.
    asks(&[
        "apt-get",
        "install",
        "-y",
        "--no-install-recommends",
        "nftables",
    ]);
    asks(&["dpkg", "--force-depends", "--install", "/root/package.deb"]);
    let enabled = root
        .path()
        .join("etc/systemd/system/multi-user.target.wants/ikv-fabric.service");
    assert!(!enabled.exists(), "nobody has asked for it");

    let netns = Netns::new("package");
    let config = "/etc/ikv-fabric/fabric.toml";
    let panel = ["--switches", "none", "--config", config];
    let inside = |words: &[&str]| root.run(Some(&netns), &[&["ikv-fabric"], words].concat(), SOON);
    let report = inside(&[&["check"], &panel[..]].concat());
    assert!(
        report.contains("`ikv-fabric run` will work here"),
        "{report}"
    );
    let mut run = root.command(Some(&netns), &[&["ikv-fabric", "run"], &panel[..]].concat());
    let log = root.path().join("run.log");
    run.stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap());
    let mut run = Guarded(run.spawn().unwrap());
    until("the fabric to be ready", SOON, || {
        let said = std::fs::read_to_string(&log).unwrap();
        ensure(said.contains("✓ ready"), || said)
    });
    assert!(inside(&["status"]).contains("ready"));
    kill_process(Pid::from_child(&run.0), Signal::INT).unwrap();
    let status = ended(&mut run.0, SOON);
    assert!(
        status.is_some_and(|it| it.success()),
        "{}",
        std::fs::read_to_string(&log).unwrap()
    );

    asks(&["dpkg", "--remove", "ikv-fabric"]);
    assert!(
        root.path().join(&config[1..]).exists(),
        "it is the administrator's"
    );
    let kept = root.path().join("var/lib/ikv-fabric/ssh");
    std::fs::create_dir_all(&kept).unwrap();
    asks(&["dpkg", "--purge", "ikv-fabric"]);
    let mut left = Command::new("find");
    left.arg(root.path());
    left.args(["-xdev", "-name", "*ikv-fabric*", "-printf", "/%P\n"]);
    let left = String::from_utf8(ikv_tests::run(&mut left).stdout).unwrap();
    let ours = [
        "/etc/",
        "/usr/",
        "/var/lib/ikv-fabric",
        "/var/cache/ikv-fabric",
    ];
    let ours = |line: &&str| ours.iter().any(|folder| line.starts_with(folder));
    assert_eq!(left.lines().filter(ours).collect::<Vec<_>>(), [""; 0]);
}
