//! The patch panel without switches, `run --switches none`: its cost, its shapes, and the host's
//! link.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::time::{Duration, Instant};

use ikv_tests::panel::PanelHost;
use ikv_tests::patience::{SOON, wait_until};
use ikv_tests::process::resident_kib;
use ikv_tests::{NamespaceGuest, Netns, Nic, figure, have_root};

#[test]
fn a_patch_panel_starts_and_ends_quickly() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("times");
    let before = host.state();
    let mut times = Vec::new();
    for _ in 0..3 {
        let mut fabric = host.spawn(host.run_command(&[]));
        let up = fabric.wait_ready();
        let down = fabric.end();
        times.push((up, down));
    }
    let (up, down) = (
        times.iter().map(|time| time.0),
        times.iter().map(|time| time.1),
    );
    let (up, down) = (up.min().unwrap(), down.min().unwrap());
    figure(
        "patch panel of 141 cables, up, best of 3",
        &format!("{up:?} (wanted: 300 ms)"),
    );
    figure(
        "patch panel of 141 cables, down, best of 3",
        &format!("{down:?} (wanted: 300 ms)"),
    );
    // Other tests use the CPUs at the same time; ikvswitch alone needs 1.3 s and 11.9 s.
    assert!(
        up < Duration::from_secs(2) && down < Duration::from_secs(2),
        "{times:?}"
    );
    before.assert_unchanged(&host.state(), "a patch panel started and ended");
}

/// CPU time of all threads of a process.
fn cpu_time(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nanoseconds = threads.map(|thread| {
        let times = fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        times.split(' ').next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(nanoseconds.sum())
}

#[test]
fn idle_costs_nothing() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("idle");
    let fabric = host.run(&[]);
    // The kernel reports each link's state for a second or two after the start.
    host.settled_state();
    let (began, before) = (Instant::now(), cpu_time(fabric.pid()));
    // This sleep is the measured interval.
    std::thread::sleep(Duration::from_secs(3));
    let used = cpu_time(fabric.pid()).saturating_sub(before);
    let used = used.as_secs_f64() / began.elapsed().as_secs_f64();
    let [resident, _] = resident_kib(fabric.pid());
    figure(
        "idle, 141 cables, of one CPU",
        &format!("{:.3} % (wanted: 1 %)", used * 100.0),
    );
    figure(
        "idle, 141 cables, resident",
        &format!("{} MB (wanted: 100 MB)", resident / 1000),
    );
    assert!(used < 0.01, "{used}");
    assert!(resident < 100_000, "{resident} KiB");
    fabric.end();
}

#[test]
fn the_host_reaches_internets_machine_and_masquerades_its_packets() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("hostlink");
    let outside = Netns::new("outside");
    host.netns.ip(&format!(
        "link add wan type veth peer name lan netns {}",
        outside.name()
    ));
    host.netns.ip("address add 203.0.113.1/24 dev wan");
    host.netns.ip("link set wan up");
    outside.ip("address add 203.0.113.9/24 dev lan");
    outside.ip("link set lan up");
    let fabric = host.run(&[]);

    let internet = NamespaceGuest::plug(&host.netns, "ikht");
    internet.netns.ip("address add 192.168.96.2/24 dev eth0");
    internet.netns.ip("address add 192.168.98.1/32 dev lo");
    internet.netns.ip("route add default via 192.168.96.1");
    host.netns.run("ping -c 1 -W 10 192.168.96.2");
    // Over the route to the whole range, with a packet that needs the MTU of 9000.
    host.netns.run("ping -c 1 -W 10 -M do -s 8972 192.168.98.1");
    // The outside has no route to the range: it answers only because it sees the host's address.
    internet.netns.run("ping -c 1 -W 10 203.0.113.9");
    drop(internet);
    fabric.end();
}

#[test]
fn other_shapes_start_and_end() {
    if !have_root() {
        return;
    }
    // Racks, spines, highest U.
    for (racks, spines, num_u) in [
        (1, 2, 23),
        (5, 2, 23),
        (3, 3, 23),
        (3, 2, 3),
        (3, 2, 40),
        (3, 2, 60),
    ] {
        let host = PanelHost::new("shape");
        let before = host.state();
        let sets = [("racks", racks), ("spines", spines), ("num_u", num_u)]
            .map(|(key, value)| format!("--set=topology.{key}={value}"));
        let fabric = host.run(&sets.each_ref().map(String::as_str));
        let leaves = 2 * racks;
        let cables = 1 + spines + spines * leaves + leaves * (num_u - 2);
        assert_eq!(host.json(&["status"])["cables"], cables);
        assert_eq!(
            host.netns.ip("-o link show").lines().count(),
            1 + 2 * cables
        );
        let last = format!("rack{racks}:u{num_u}:2");
        let report = &host.json(&["cables", &last])[0];
        assert_eq!(report["lanes"][1]["from"], format!("ikvm{racks}-{num_u}-2"));
        fabric.end();
        before.assert_unchanged(&host.state(), &last);
    }
}

/// More than twice the racks, twice the spines, and high racks.
#[test]
fn a_large_panel_starts_and_ends() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("large");
    let before = host.state();
    let sets = ["racks=8", "spines=4", "num_u=40"].map(|set| format!("--set=topology.{set}"));
    let mut fabric = host.spawn(host.run_command(&sets.each_ref().map(String::as_str)));
    let up = fabric.wait_ready();
    let cables = 1 + 4 + 4 * 16 + 16 * 38;
    assert_eq!(host.json(&["status"])["cables"], cables);
    let [near, far] = host
        .netns
        .enter(|| ["ikls16-40", "ikvm8-40-2"].map(Nic::plain));
    let frame = [0xff; 60];
    near.send([0; 10], &frame);
    assert_eq!(far.receive().1, frame);
    let [resident, _] = resident_kib(fabric.pid());
    drop([near, far]);
    let down = fabric.end();
    figure(
        &format!("patch panel of {cables} cables, up and down"),
        &format!("{up:?}, {down:?}, {} MB resident", resident / 1000),
    );
    // Other tests use the CPUs at the same time.
    assert!(up.max(down) < Duration::from_secs(10), "{up:?}, {down:?}");
    before.assert_unchanged(&host.state(), "a large panel started and ended");
}

#[test]
fn workers_cpus_and_idle_mode_can_be_set() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("workers");
    let fabric = host.run(&["--workers", "3", "--cpus", "0", "--idle", "spin"]);
    assert_eq!(host.json(&["status"])["workers"], 3);
    let [near, far] = host
        .netns
        .enter(|| ["ikls6-23", "ikvm3-23-2"].map(Nic::plain));
    let frame = [0xff; 60];
    near.send([0; 10], &frame);
    assert_eq!(far.receive().1, frame);
    // All workers share one CPU and keep it busy.
    wait_until("the workers to spin", SOON, || {
        cpu_time(fabric.pid()) > Duration::from_millis(200)
    });
    fabric.end();
}
