//! The program on Debian 13, in a root that has nothing but apt: `setup` installs what is missing and builds
//! the image; then the patch panel alone, the nine switches with QEMU 10 and FRR 10, and the unit tests.
#![allow(clippy::unwrap_used)]

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ikv_tests::patience::{ended, ensure, until};
use ikv_tests::{DebianRoot as Root, Netns, Site};
use ikv_tests::{figure, ikv_fabric, lacks_for_vms, repository, skip};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Time for `setup` to install packages and to build an image.
const SETUP: Duration = Duration::from_secs(900);
/// Time for nine emulated switches to boot for the first time.
const READY: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(60);

/// `ikv-fabric run` in the root; ended when dropped.
struct Run {
    child: Child,
    log: std::path::PathBuf,
}

impl Run {
    fn start(root: &Root, netns: &Netns, options: &[&str]) -> Self {
        let log = root.path().join("run.log");
        let words = [&["ikv-fabric", "run"], options].concat();
        let mut command = root.command(Some(netns), &words);
        command
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            // A signal to the tests' own group is for the tests.
            .process_group(0);
        let child = command.spawn().unwrap();
        Self { child, log }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_ready(&mut self, limit: Duration) {
        until("the fabric to be ready", limit, || {
            let said = self.said();
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("run ended, {status}:\n{said}");
            }
            ensure(said.contains("✓ ready"), || said)
        });
    }

    fn interrupt(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = kill_process(pid.unwrap(), Signal::INT);
    }

    fn end(mut self) {
        self.interrupt();
        let status = ended(&mut self.child, SOON);
        assert!(status.is_some_and(|it| it.success()), "{}", self.said());
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.interrupt();
        if ended(&mut self.child, SOON).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[test]
fn a_bare_root_of_debian_13_runs_it_all() {
    if let Some(lacking) = lacks_for_vms() {
        return skip(&format!("needs {lacking}"));
    }
    let root = Root::new("trixie");
    root.bring(ikv_fabric());
    let began = Instant::now();
    root.run(None, &["ikv-fabric", "setup"], SETUP);
    let setup = began.elapsed();
    figure("setup in a bare root of Debian 13", &format!("{setup:.0?}"));
    unit_tests(&root);
    patch_panel(&root);
    switches(&root);
}

fn patch_panel(root: &Root) {
    let site = Site::new("d13");
    let mut run = Run::start(root, &site.host, &["--switches", "none"]);
    run.wait_ready(SOON);
    let cables = root.run(Some(&site.host), &["ikv-fabric", "--json", "cables"], SOON);
    let cables: Value = serde_json::from_str(&cables).unwrap();
    assert_eq!(cables.as_array().unwrap().len(), 141);
    run.end();
}

fn switches(root: &Root) {
    let site = Site::new("d13");
    let mut run = Run::start(root, &site.host, &[]);
    run.wait_ready(READY);
    // FRR 10's zebra gets this from mgmtd: see the image's script `routing`.
    let show = "show running-config";
    let words = ["ikv-fabric", "exec", "leaf1", "--", "vtysh", "-c", show];
    let running = root.run(Some(&site.host), &words, SOON);
    for line in [
        "ipv6 nd ra-interval 2",
        "no zebra nexthop kernel enable",
        "ip prefix-list SHORT seq 5 permit 0.0.0.0/0 le 7",
        "route-map FROM-SERVERS deny 60",
    ] {
        assert!(running.contains(line), "no {line}:\n{running}");
    }
    root.run(Some(&site.host), &["ikv-fabric", "probe"], SOON);
    let cable = |change| {
        let words = ["ikv-fabric", "cable", "spine1:2", change];
        root.run(Some(&site.host), &words, SOON)
    };
    cable("down");
    let mut status = root.command(Some(&site.host), &["ikv-fabric", "--json", "status"]);
    let status: Value = serde_json::from_slice(&status.output().unwrap().stdout).unwrap();
    assert_eq!(status["ready"], false, "{status}");
    cable("up");
    let words = ["ikv-fabric", "status", "--wait", "60"];
    root.run(Some(&site.host), &words, 2 * SOON);
    run.end();
}

/// Those of every library, built on this machine.
fn unit_tests(root: &Root) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .args(["test", "--workspace", "--lib", "--locked", "--no-run"])
        .arg("--message-format=json")
        .current_dir(repository());
    let built = ikv_tests::run(&mut build);
    let mut ran = 0;
    for line in String::from_utf8_lossy(&built.stdout).lines() {
        let message: Value = serde_json::from_str(line).unwrap_or_default();
        let (Some(program), Some(package)) = (
            message["executable"].as_str(),
            message["manifest_path"].as_str(),
        ) else {
            continue;
        };
        let program = root.bring(Path::new(program)).display().to_string();
        let folder = Path::new(package).parent().unwrap();
        let netns = Netns::new("d13-unit");
        let mut command = root.command(Some(&netns), &[&program, "-q"]);
        command.env("IKV_TESTS_FOLDER", folder);
        // Without cargo in there, insta would not know to what the snapshots' paths are relative.
        command.env("INSTA_WORKSPACE_ROOT", repository());
        let output = ikv_tests::patience::output_within(&mut command, SETUP);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{program}:\n{said}");
        ran += 1;
    }
    assert!(ran >= 8, "the unit tests of {ran} packages");
}
