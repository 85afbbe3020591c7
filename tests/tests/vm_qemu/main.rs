//! The VM modules against a real QEMU without an operating system: the "kernel" is 56 bytes of
//! machine code that use the serial line (`kernel.rs`), so a VM boots in a second even under TCG.
//!
//! Needs root, QEMU and iproute2. Where one is missing the tests fail rather than skip, because no
//! other test covers these modules. The process first moves into a network namespace of its own.

// Clippy sees no tests here, because they are not marked by an attribute but listed in `trials`.
#![allow(clippy::unwrap_used)]

mod kernel;
mod lab;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ikv_tests::process::{descriptors, is_alive};
use ikv_tests::{block_on, leave_namespace};
use lab::{Lab, until};
use libtest_mimic::{Arguments, Failed, Trial};
use model::power::PowerAction;
use vm::{Launcher, PowerError, SpecError, VmSpec, VmState, strays};

/// Names the test's folder in a process that plays the fabric to be killed.
const DOOMED: &str = "IKV_TEST_DOOMED_FABRIC";

fn main() -> ExitCode {
    if let Some(dir) = std::env::var_os(DOOMED) {
        return block_on(lab::doomed_fabric(dir.into()));
    }
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        leave_namespace();
    }
    // Tests run on the main thread: a QEMU ends with the thread that started it (PR_SET_PDEATHSIG).
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials()).exit_code()
}

fn trials() -> Vec<Trial> {
    vec![
        trial("a_qemu_with_25_nics_is_confined", || confined(25)),
        trial("a_qemu_with_60_nics_is_confined", || confined(60)),
        trial("the_console_echoes_and_keeps_its_output", console),
        trial(
            "a_guest_that_powered_off_can_be_powered_on",
            guest_power_off,
        ),
        trial("a_guest_may_reset_itself", guest_reset),
        trial("a_boot_loop_is_stopped_and_retried_later", boot_loop),
        trial("a_killed_qemu_is_restarted", killed),
        trial("power_off_on_reset_and_cycle", power),
        trial("a_new_specification_applies_to_the_next_qemu", respec),
        trial("a_refused_start_reports_qemus_words", refused),
        trial("missing_files_and_taps_are_named", missing),
        trial("nine_busy_vms_stop_in_time", nine),
        trial("qemus_end_with_a_killed_fabric", parent_death),
    ]
}

fn trial<F, W>(name: &'static str, test: F) -> Trial
where
    F: FnOnce() -> W + Send + 'static,
    W: Future<Output = ()>,
{
    Trial::test(name, move || {
        block_on(test());
        Ok::<(), Failed>(())
    })
}

async fn confined(nics: usize) {
    let lab = Lab::new().await;
    let before = descriptors(std::process::id());
    let spec = lab.spec("leaf1", nics);
    let begun = Instant::now();
    let vm = lab.start(spec.clone());
    vm.said("R").await;
    let booted = begun.elapsed();
    let pid = vm.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace()
            .skip(1)
            .map(Into::into)
            .collect::<Vec<String>>()
    };
    let uid = spec.uid.to_string();
    assert_eq!(field("Uid:"), [&uid; 4].map(String::as_str));
    assert_eq!(field("Gid:"), [&uid; 4].map(String::as_str));
    assert_eq!(field("Groups:"), [""; 0]);
    for caps in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(caps), ["0000000000000000"]);
    }
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    assert_eq!(field("Seccomp:"), ["2"], "a filter is installed");
    jailed(pid, &spec);
    for index in 0..nics {
        assert!(
            lab::has_carrier(&lab::tap("leaf1", index)),
            "NIC {index} is not on its tap"
        );
    }
    vm.set_link(nics - 1, false).await.unwrap();
    assert!(
        vm.set_link(nics, false).await.is_err(),
        "the NIC does not exist"
    );
    println!(
        "    {nics} NICs: code runs after {booted:?}, resident {} kB of {} MiB guest memory",
        field("VmRSS:")[0],
        spec.memory_mib
    );
    vm.stop().await;
    assert_eq!(vm.status().state, VmState::Off);
    assert!(!is_alive(pid));
    let own = std::process::id().to_string();
    assert_eq!(cgroups_of(&own), Vec::<PathBuf>::new());
    drop(vm);
    // Possibly fewer: the launcher's probe may have had some open at first.
    until("all descriptors closed", || {
        descriptors(std::process::id()) <= before
    })
    .await;
}

/// The QEMU is alone in an empty network namespace, has limits, and is alone in its cgroup.
fn jailed(pid: u32, spec: &VmSpec) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let devices = read("net/dev");
    let devices: Vec<_> = devices.lines().skip(2).collect();
    assert!(
        devices.len() == 1 && devices[0].trim().starts_with("lo:"),
        "{devices:?}"
    );
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(namespace(pid), namespace(std::process::id()));
    let limits = read("limits");
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        let mut values = line.unwrap().split_whitespace();
        [values.next(), values.next()].map(|value| value.unwrap().parse::<u64>().unwrap())
    };
    assert_eq!(limit("Max core file size"), [0, 0]);
    assert_eq!(limit("Max processes"), [256, 256]);
    assert!(limit("Max open files")[1] <= 4096);
    let most = limit("Max file size")[1];
    let guest = u64::from(spec.memory_mib) << 20;
    assert!(most > guest && most < guest + (2 << 30), "{most}");
    let folders = cgroups(pid);
    assert!(!folders.is_empty(), "{}", read("cgroup"));
    for folder in &folders {
        let members = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap();
        assert_eq!(members.trim(), pid.to_string(), "{}", folder.display());
    }
    let value = |file: &str| {
        let mut values = folders
            .iter()
            .filter_map(|folder| std::fs::read_to_string(folder.join(file)).ok());
        values
            .next()
            .map(|value| value.trim().parse::<u64>().unwrap())
    };
    assert_eq!(value("pids.max"), Some(256));
    let memory = value("memory.max").or(value("memory.limit_in_bytes"));
    assert!(memory.is_some_and(|memory| memory > guest && memory < guest + (2 << 30)));
}

/// The folders of the cgroups that a fabric made for a process.
fn cgroups(pid: u32) -> Vec<PathBuf> {
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let names = own.lines().filter_map(|line| line.rsplit_once('/'));
    let names: Vec<_> = names
        .map(|(_, name)| name.to_owned())
        .filter(|name| name.starts_with("ikv-fabric."))
        .collect();
    cgroups_of("*")
        .into_iter()
        .filter(|folder| names.iter().any(|name| folder.ends_with(name)))
        .collect()
}

/// The folders of all cgroups that a fabric made for its children.
fn cgroups_of(fabric: &str) -> Vec<PathBuf> {
    let name = format!("ikv-fabric.{fabric}.*");
    let found = Command::new("find")
        .args(["/sys/fs/cgroup/", "-type", "d", "-name", &name])
        .output()
        .unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    found.lines().map(PathBuf::from).collect()
}

async fn console() {
    let lab = Lab::new().await;
    let vm = lab.start(lab.spec("spine1", 0));
    vm.said("R").await;
    let mut client = vm.console().attach();
    assert_eq!(client.backlog, b"R");
    client.write(b"hi\x1b".to_vec()).await;
    let mut echoed = Vec::new();
    while echoed.len() < 3 {
        echoed.extend_from_slice(&client.read().await.unwrap());
    }
    assert_eq!(echoed, b"hi\x1b");
    assert_eq!(vm.console().tail_escaped(100), "Rhi\\u{1b}");
    assert_eq!(
        vm.status().state,
        VmState::Booting,
        "no agent runs in this guest"
    );
    vm.stop().await;
}

async fn guest_power_off() {
    let lab = Lab::new().await;
    let vm = lab.start(lab.spec("spine1", 1));
    vm.said("R").await;
    let first = vm.pid();
    vm.types("p").await;
    vm.reaches(VmState::Off).await;
    assert!(!is_alive(first));
    assert_eq!(vm.status().last_error, None);
    assert_eq!(vm.power(PowerAction::Reset).await, Err(PowerError::Off));
    vm.power(PowerAction::On).await.unwrap();
    vm.said("RR").await;
    assert_ne!(vm.pid(), first);
    assert_eq!(vm.status().restarts, 0, "nothing died");
    vm.stop().await;
    assert_eq!(vm.power(PowerAction::On).await, Err(PowerError::Stopped));
}

async fn guest_reset() {
    let lab = Lab::new().await;
    let vm = lab.start(lab.spec("spine1", 0));
    vm.said("R").await;
    let pid = vm.pid();
    vm.types("r").await;
    vm.said("RR").await;
    assert_eq!(vm.pid(), pid);
    vm.stop().await;
}

/// The error contains the console's end, as it would for a switch whose init fails.
async fn boot_loop() {
    let lab = Lab::new().await;
    let vm = lab.start(lab.spec("spine1", 0));
    vm.said("R").await;
    let restarting = || vm.status().state == VmState::Restarting;
    for boots in 2.. {
        vm.types("r").await;
        let more = "R".repeat(boots);
        until("another boot, or the end of the loop", || {
            restarting() || vm.console().tail_escaped(100) == more
        })
        .await;
        if restarting() {
            break;
        }
        assert!(boots <= 7, "no end after {boots} boots");
    }
    let error = vm.status().last_error.unwrap();
    assert!(
        error.contains("resets itself") && error.contains("RR"),
        "{error}"
    );
    vm.stop().await;
}

async fn killed() {
    let lab = Lab::new().await;
    let vm = lab.start(lab.spec("spine1", 2));
    vm.said("R").await;
    let first = vm.pid();
    lab::kill(first);
    vm.reaches(VmState::Restarting).await;
    let error = vm.status().last_error.unwrap();
    assert!(error.contains("signal: 9"), "{error}");
    vm.said("RR").await;
    assert_eq!(vm.status().restarts, 1);
    assert_ne!(vm.pid(), first);
    vm.stop().await;
}

async fn power() {
    let lab = Lab::new().await;
    let vm = lab.start(lab.spec("spine1", 1));
    vm.said("R").await;
    let first = vm.pid();
    vm.power(PowerAction::Reset).await.unwrap();
    vm.said("RR").await;
    assert_eq!(vm.pid(), first, "{:?}", vm.status());
    vm.power(PowerAction::Cycle).await.unwrap();
    assert!(!is_alive(first));
    vm.said("RRR").await;
    let second = vm.pid();
    assert_ne!(second, first);
    vm.power(PowerAction::On).await.unwrap();
    assert_eq!(vm.pid(), second, "it was on");
    vm.power(PowerAction::Off).await.unwrap();
    assert!(!is_alive(second));
    assert_eq!((vm.status().state, vm.status().pid), (VmState::Off, None));
    vm.stop().await;
}

async fn respec() {
    let lab = Lab::new().await;
    let two = lab.spec("spine1", 2);
    let one = VmSpec {
        nics: two.nics[..1].to_vec(),
        ..two.clone()
    };
    let second = lab::tap("spine1", 1);
    let vm = lab.start(one.clone());
    vm.said("R").await;
    let first = vm.pid();
    vm.respec(two.clone()).await.unwrap();
    assert_eq!((vm.pid(), lab::has_carrier(&second)), (first, false));
    // Even when the guest resets itself, another QEMU boots the new specification.
    vm.types("r").await;
    vm.said("RR").await;
    let replaced = vm.pid();
    assert_ne!(replaced, first);
    assert!(lab::has_carrier(&second));
    vm.respec(one).await.unwrap();
    vm.power(PowerAction::Reset).await.unwrap();
    vm.said("RRR").await;
    assert_ne!(vm.pid(), replaced);
    until("the NIC is gone", || !lab::has_carrier(&second)).await;
    vm.respec(two).await.unwrap();
    lab::kill(vm.pid());
    vm.said("RRRR").await;
    assert!(lab::has_carrier(&second));
    vm.stop().await;
}

async fn refused() {
    let lab = Lab::new().await;
    let vm = lab.start(VmSpec {
        cpu: Some("no-such-cpu".into()),
        ..lab.spec("spine1", 0)
    });
    vm.reaches(VmState::Failed).await;
    let error = vm.status().last_error.unwrap();
    assert!(
        error.contains("no-such-cpu"),
        "QEMU's own words are missing: {error}"
    );
    assert_eq!(vm.power(PowerAction::Reset).await, Err(PowerError::Failed));
    vm.stop().await;
}

async fn missing() {
    let lab = Lab::new().await;
    let spec = lab.spec("spine1", 1);
    let closed = lab.path("closed-kernel");
    std::fs::copy(&spec.image.kernel, &closed).unwrap();
    lab::chmod(&closed, 0o640);
    let mut kernel = spec.clone();
    kernel.image.kernel = closed;
    let mut seed = spec.clone();
    seed.seed = lab.path("no-seed");
    let mut tap = spec.clone();
    ikv_tests::shell(&format!("ip link del {}", lab::tap("spine1", 0)));
    tap.name = "tapless".into();
    let mut socket = spec.clone();
    socket.run_dir = lab.path(&"x".repeat(100));
    for (spec, words) in [
        (kernel, "chmod o+r"),
        (seed, "no-seed: No such file"),
        (tap, "tap ikspine1-0:"),
        (socket, "--socket"),
    ] {
        let vm = lab.start_without_taps(spec);
        vm.reaches(VmState::Failed).await;
        let error = vm.status().last_error.unwrap();
        assert!(error.contains(words), "{error}");
        let again = vm.power(PowerAction::On).await.unwrap_err().to_string();
        assert!(again.contains(words), "{again}");
        vm.stop().await;
    }
    let full = lab.spec("spine2", 0);
    let nics = vec![lab::nic("x", 0); 233];
    let error = VmSpec { nics, ..full }.check().unwrap_err();
    assert!(matches!(error, SpecError::TooManyNics { .. }));
}

/// Their guests spin, which slows the end of a QEMU most.
async fn nine() {
    let lab = Lab::new().await;
    let begun = Instant::now();
    let vms: Vec<_> = (0..9)
        .map(|i| lab.start(lab.spec(&format!("leaf{i}"), 23)))
        .collect();
    join_all(vms.iter().map(|vm| vm.said("R"))).await;
    let booted = begun.elapsed();
    let pids: Vec<_> = vms.iter().map(lab::TestVm::pid).collect();
    let begun = Instant::now();
    join_all(vms.iter().map(|vm| vm.stop())).await;
    let took = begun.elapsed();
    println!("    nine VMs with 23 NICs: code runs after {booted:?}, stopped in {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(!pids.into_iter().any(is_alive));
}

async fn parent_death() {
    let lab = Lab::new().await;
    drop(lab.spec("doomed", 1));
    let mut fabric = Command::new(std::env::current_exe().unwrap())
        .env(DOOMED, lab.root())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let qemu = async {
        until("a QEMU of the doomed fabric", || {
            !strays(lab.root()).unwrap().is_empty()
        })
        .await;
        until("its guest to run", || lab.path("up").exists()).await;
        strays(lab.root()).unwrap()
    }
    .await;
    assert_eq!(qemu.len(), 1, "{qemu:?}");
    assert!(is_alive(qemu[0]));
    let folders = cgroups(qemu[0]);
    assert!(!folders.is_empty());
    fabric.kill().unwrap();
    fabric.wait().unwrap();
    until("QEMU ends by itself", || !is_alive(qemu[0])).await;
    assert_eq!(strays(lab.root()).unwrap(), [0u32; 0]);
    // The kernel takes a moment to leave a cgroup after it has reported a process as ended.
    until("its cgroup to be removed, as `clean` does", || {
        host::cgroup::remove_unused();
        folders.iter().all(|folder| !folder.exists())
    })
    .await;
    let elsewhere = Launcher::probe(lab::opener()).await.unwrap();
    assert_eq!(elsewhere.not_jailed(), [""; 0]);
}
