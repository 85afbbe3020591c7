//! The host's part of a fabric is executed and undone in a namespace, which is then unchanged. What
//! another program takes of it meanwhile is seen, said and put back once.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use dataplane::sys::packet;
use dataplane::sys::tap::{TapFlags, open_tap};
use host::address::index_of;
use host::execute::{HostChangeError, HostChanges, clean, execute};
use host::journal::{Journal, Undo};
use host::lock::{Lock, StatePaths};
use host::plan::{HostStep, plan};
use host::sysctl::Family;
use host::upkeep::{Ours, Trouble};
use ikv_tests::panel::PanelHost;
use ikv_tests::patience::{SOON, ensure, until};
use ikv_tests::{HostState, have_root, host_plan_input, in_namespace, shell};
use rustix::net::SendFlags;

/// How soon a running fabric says that its host changed: twice what is promised, because other tests use
/// the CPUs at the same time.
const SAID: Duration = Duration::from_secs(2);

fn lock(folder: &Path) -> Lock {
    Lock::acquire(&StatePaths::beside(&folder.join("run/control.sock"))).unwrap()
}

#[test]
fn up_and_down_leaves_the_host_unchanged() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let before = HostState::of_network();
        let lock = lock(folder.path());
        let mut applied = execute(&plan(&host_plan_input(281, true)), &lock, |_| {}).unwrap();
        let tap = applied.take_host_taps();
        assert!(tap.contains_key("ikhn") && applied.take_host_taps().is_empty());

        let links = shell("ip -d link show");
        assert_eq!(links.matches("tun type tap").count(), 282);
        assert_eq!(links.matches("mtu 9000").count(), 282);
        assert_eq!(links.matches("addrgenmode none").count(), 282, "{links}");
        assert_eq!(links.matches("NOARP").count(), 281);
        assert_eq!(links.matches("user nobody").count(), 281);
        assert_eq!(links.matches("vnet_hdr on").count(), 282);
        let tap = shell("ip link show ikvm1-3-1");
        assert!(
            tap.contains(&format!("alias {} rack1:u3:1", applied.identity().tag())),
            "{tap}"
        );
        assert!(tap.contains(",UP"), "{tap}");
        assert!(shell("ip link show ikhn").contains("00:22:22:dd:ee:01"));
        assert_eq!(shell("ip -6 addr show dev ikhn"), "");
        assert_eq!(
            shell("ip route get 192.168.98.9 | head -1").trim(),
            "192.168.98.9 via 192.168.96.2 dev ikhn src 192.168.96.1 uid 0"
        );
        assert_eq!(shell("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
        let rules = shell("nft list ruleset");
        assert_eq!(rules.matches("hook ingress device").count(), 281);
        assert!(
            rules.contains("ip saddr 192.168.96.0/19 ip daddr != 192.168.96.0/19 masquerade"),
            "{rules}"
        );

        applied.undo().unwrap();
        before.assert_unchanged(&HostState::of_network(), "it was undone");
        lock.release().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    });
}

#[test]
fn a_failing_step_undoes_the_steps_before_it() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let lock = lock(folder.path());
        let mut input = host_plan_input(4, true);
        input.host.as_mut().unwrap().ipv6_forwarding = true;
        let good = plan(&input);
        let before = HostState::of_network();
        for index in 0..=good.len() {
            let mut steps = good.clone();
            steps.insert(
                index,
                HostStep::Route {
                    range: "198.51.100.0/24".parse().unwrap(),
                    via: "192.0.2.1".parse().unwrap(),
                    link: "not-there".into(),
                },
            );
            let mut seen = 0;
            let error = execute(&steps, &lock, |_| seen += 1).unwrap_err();
            assert_eq!(seen, index + 1);
            let words = error.to_string();
            assert!(
                words.starts_with("cannot route 198.51.100.0/24 via 192.0.2.1"),
                "{words}"
            );
            assert!(matches!(error, HostChangeError::Step { left, .. } if left.is_empty()));
            before.assert_unchanged(&HostState::of_network(), &format!("step {index} failed"));
            assert!(!lock.paths().journal.exists());
        }
        lock.release().unwrap();
    });
}

#[test]
fn a_step_that_fails_halfway_is_undone() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let lock = lock(folder.path());
        let assert_refused = |conflict: &str, words: &[&str]| {
            shell(conflict);
            let before = HostState::of_network();
            let applied = execute(&plan(&host_plan_input(6, true)), &lock, |_| {});
            let error = applied.unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
            before.assert_unchanged(&HostState::of_network(), conflict);
        };
        // The last of the taps exists and belongs to another program.
        assert_refused(
            "ip tuntap add dev ikvm1-5-2 mode tap && ip link set ikvm1-5-2 alias precious",
            &["ikvm1-5-2", "exists"],
        );
        // A foreign route conflicts with ours.
        assert_refused(
            "ip link del ikvm1-5-2 && ip route add 192.168.96.0/19 dev lo",
            &["route 192.168.96.0/19"],
        );
        // A foreign table has our name.
        assert_refused(
            "ip route del 192.168.96.0/19 && nft add table inet ikv-fabric",
            &["File exists"],
        );
        lock.release().unwrap();
    });
}

#[test]
fn a_killed_fabric_is_cleaned_away() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let mut lock = lock(folder.path());
        let before = HostState::of_network();
        assert_eq!(clean(&mut lock).unwrap(), None);

        let steps = plan(&host_plan_input(281, true));
        let mut applied = execute(&steps, &lock, |_| {}).unwrap();
        let socket = lock.paths().folder.join("control.sock");
        applied.will_create(&socket).unwrap();
        std::fs::write(&socket, "").unwrap();
        // As after SIGKILL: descriptors are closed, and none of our code runs.
        drop(applied.take_host_taps());
        std::mem::forget(applied);
        assert_eq!(
            shell("ip -d link show").matches("tun type tap").count(),
            281
        );

        let cleaned = clean(&mut lock).unwrap().unwrap();
        assert_eq!(
            (cleaned.pid, cleaned.steps),
            (std::process::id(), steps.len() + 1)
        );
        before.assert_unchanged(&HostState::of_network(), "it was undone");
        assert!(!socket.exists());
        assert_eq!(clean(&mut lock).unwrap(), None);
        lock.release().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    });
}

#[test]
fn clean_removes_an_unmarked_tap_and_no_foreign_device() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let mut lock = lock(folder.path());
        let before = HostState::of_network();
        let names = ["ikvm1-3-1", "ikvm1-3-2", "ikvm1-4-1", "ikvm1-4-2"].map(str::to_owned);
        let mut journal = Journal::new(&lock.paths().journal, false).unwrap();
        journal
            .begin(Undo::Links {
                names: names.into(),
            })
            .unwrap();
        shell("ip tuntap add dev ikvm1-3-1 mode tap");
        clean(&mut lock).unwrap().unwrap();
        before.assert_unchanged(&HostState::of_network(), "it was undone");

        // Foreign devices with the same names: one has another alias, one is in use, one is a
        // bridge.
        journal.save().unwrap();
        shell("ip tuntap add dev ikvm1-3-2 mode tap && ip link set ikvm1-3-2 alias theirs");
        shell("ip tuntap add dev ikvm1-4-1 mode tap && ip link set ikvm1-4-1 up");
        shell("ip link add ikvm1-4-2 type bridge");
        let before = HostState::of_network();
        clean(&mut lock).unwrap().unwrap();
        before.assert_unchanged(&HostState::of_network(), "it was undone");
        lock.release().unwrap();
    });
}

#[test]
fn taps_with_several_queues_are_opened_with_all_of_them() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let lock = lock(folder.path());
        let mut input = host_plan_input(2, false);
        input.tap_form.multi_queue = true;
        let changes = execute(&plan(&input), &lock, |_| {}).unwrap();
        let open = |multi_queue| {
            let flags = TapFlags {
                vnet_hdr: true,
                multi_queue,
                ..TapFlags::default()
            };
            open_tap("ikvm1-3-1", flags)
        };
        let queues: Vec<_> = (0..4).map(|_| open(true).unwrap()).collect();
        assert_eq!(open(false).unwrap_err().kind(), ErrorKind::InvalidInput);
        drop(queues);
        changes.undo().unwrap();
        lock.release().unwrap();
    });
}

#[test]
fn nothing_of_the_hosts_stack_leaves_by_a_tap() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let lock = lock(folder.path());
        let changes = execute(&plan(&host_plan_input(2, false)), &lock, |_| {}).unwrap();
        let flags = TapFlags {
            vnet_hdr: true,
            nonblocking: true,
            ..TapFlags::default()
        };
        let guest = File::from(open_tap("ikvm1-3-1", flags).unwrap());
        let received = || (&guest).read(&mut [0; 2048]);
        // As a network manager does.
        shell("ip link set ikvm1-3-1 arp on && ip address add 10.9.9.1/24 dev ikvm1-3-1");
        shell("ping -c 1 -W 1 10.9.9.2 >/dev/null; true");
        assert_eq!(received().unwrap_err().kind(), ErrorKind::WouldBlock);
        let fabric = packet::open(index_of("ikvm1-3-1").unwrap()).unwrap();
        let header_and_frame = [0; 10 + 60];
        rustix::net::send(&fabric, &header_and_frame, SendFlags::empty()).unwrap();
        assert_eq!(received().unwrap(), header_and_frame.len());
        drop(guest);
        changes.undo().unwrap();
        lock.release().unwrap();
    });
}

fn troubles(changes: &mut HostChanges, leave: &[Ours]) -> Vec<String> {
    let left = changes.look_after(leave).unwrap().left;
    left.iter().map(ToString::to_string).collect()
}

#[test]
fn what_another_program_takes_is_seen_and_put_back() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let lock = lock(folder.path());
        let before = HostState::of_network();
        let mut changes = execute(&plan(&host_plan_input(4, true)), &lock, |_| {}).unwrap();
        let taps = changes.take_host_taps();
        let look = || shell("nft list ruleset; ip route; ip addr show ikhn | grep inet");
        let whole = look();
        assert_eq!(troubles(&mut changes, &[]), [""; 0]);
        let taken = [
            ("nft flush ruleset", 1),
            ("nft flush table inet ikv-fabric", 1),
            ("nft delete table netdev ikv-fabric", 1),
            (
                "nft flush chain netdev ikv-fabric guard-ikvm1-3-1; nft delete chain netdev ikv-fabric guard-ikvm1-3-1",
                1,
            ),
            ("ip route del 192.168.96.0/19", 1),
            ("ip addr del 192.168.96.1/24 dev ikhn", 2),
            ("ip link set ikhn down; ip link set ikhn up", 1),
            ("echo 0 >/proc/sys/net/ipv4/ip_forward", 1),
            (
                "nft flush ruleset; echo 0 >/proc/sys/net/ipv4/ip_forward; ip addr flush dev ikhn",
                4,
            ),
        ];
        for (command, things) in taken {
            shell(command);
            let looked = changes.look_after(&[]).unwrap();
            assert_eq!(looked.put_back.len(), things, "{command}: {looked:?}");
            assert!(looked.left.is_empty(), "{command}: {looked:?}");
            assert_eq!(look(), whole, "{command}");
            assert_eq!(shell("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
        }
        // No fight: what was put back lately is only told.
        shell("nft flush ruleset");
        let looked = changes.look_after(&[Ours::Tables]).unwrap();
        assert_eq!(looked.left, [Trouble::Gone(Ours::Tables)]);
        // Somebody else's table of our name is not ours to replace.
        shell("nft add table inet ikv-fabric");
        let looked = changes.look_after(&[]).unwrap();
        assert_eq!(
            (looked.left.len(), looked.failed.len()),
            (1, 1),
            "{looked:?}"
        );
        shell("nft flush ruleset");
        assert_eq!(troubles(&mut changes, &[]), [""; 0]);
        changes.undo().unwrap();
        drop(taps);
        before.assert_unchanged(&HostState::of_network(), "it was undone");
        lock.release().unwrap();
    });
}

#[test]
fn what_shadows_the_fabric_is_named() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let lock = lock(folder.path());
        let mut changes = execute(&plan(&host_plan_input(0, true)), &lock, |_| {}).unwrap();
        let _taps = changes.take_host_taps();
        shell("ip link add br-y type bridge && ip link set br-y up");
        let shadowed = |by: &str| vec![format!("the route to 192.168.96.0/19 is shadowed by {by}")];
        for (put, by, take) in [
            (
                "ip addr add 192.168.112.1/20 dev br-y",
                "192.168.112.0/20 on br-y",
                "ip addr flush dev br-y",
            ),
            (
                "ip addr add 192.168.97.5/32 dev br-y",
                "192.168.97.5/32 on br-y",
                "ip addr flush dev br-y",
            ),
            (
                "ip route add blackhole 192.168.100.0/24",
                "192.168.100.0/24, which leads nowhere",
                "ip route del blackhole 192.168.100.0/24",
            ),
            (
                "ip route add 192.168.0.0/16 dev br-y table 77; ip rule add pref 10 lookup 77",
                "192.168.0.0/16 on br-y",
                "ip rule del pref 10; ip route flush table 77",
            ),
        ] {
            shell(put);
            let found = troubles(&mut changes, &[]);
            let found: Vec<_> = found
                .iter()
                .map(|it| it.split(": ").next().unwrap())
                .collect();
            assert_eq!(found, shadowed(by), "{put}");
            shell(take);
            assert_eq!(troubles(&mut changes, &[]), [""; 0], "{take}");
        }
        // A wider route in the same table is in nobody's way.
        shell("ip route add 192.168.0.0/16 dev br-y");
        assert_eq!(troubles(&mut changes, &[]), [""; 0]);
        changes.undo().unwrap();
        lock.release().unwrap();
    });
}

#[test]
fn forwarding_that_the_host_had_by_itself_becomes_ours_when_it_is_switched_off() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let lock = lock(folder.path());
        shell("echo 1 >/proc/sys/net/ipv4/ip_forward");
        let mut changes = execute(&plan(&host_plan_input(0, true)), &lock, |_| {}).unwrap();
        let _taps = changes.take_host_taps();
        let apart =
            || shell("nft list chain inet ikv-fabric forward").contains("nfproto ipv4 drop");
        assert!(!apart());
        shell("echo 0 >/proc/sys/net/ipv4/ip_forward");
        let looked = changes.look_after(&[]).unwrap();
        assert_eq!(looked.put_back, [Ours::Forwarding(Family::Ipv4)]);
        assert_eq!(shell("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
        assert!(apart(), "{}", shell("nft list ruleset"));
        changes.undo().unwrap();
        assert_eq!(shell("cat /proc/sys/net/ipv4/ip_forward"), "0\n");
        lock.release().unwrap();
    });
}

#[test]
fn a_running_fabric_says_within_a_second_that_its_host_changed() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("changed");
    let before = host.state();
    let fabric = host.run(&[]);
    let netns = &host.netns;
    // It ends with 1 while the fabric is not ready.
    let status = || -> serde_json::Value {
        serde_json::from_str(&host.ask(&["--json", "status"]).stdout).unwrap()
    };
    let becomes = |ready: bool, words: &str| {
        until(words, SAID, || {
            let status = status();
            let said = status["problems"].to_string();
            let holds = status["ready"] == ready && said.contains(words);
            ensure(holds, || status.to_string())
        });
    };
    netns.ip("link add br-y type bridge");
    netns.ip("link set br-y up");
    netns.ip("address add 192.168.112.1/20 dev br-y");
    becomes(false, "shadowed by 192.168.112.0/20 on br-y");
    fabric.wait_said("shadowed by 192.168.112.0/20 on br-y");
    netns.ip("link delete br-y");
    until("ready", SAID, || {
        ensure(status()["ready"] == true, || status().to_string())
    });

    let flush = || ikv_tests::run(netns.command("nft").args(["flush", "ruleset"]));
    flush();
    becomes(true, "took away the fabric's nftables tables");
    fabric.wait_said("took away the fabric's nftables tables: put back");
    flush();
    becomes(false, "took it away again");
    let off = "echo 0 >/proc/sys/net/ipv4/ip_forward";
    ikv_tests::run(netns.command("sh").args(["-c", off]));
    becomes(false, "took away IPv4 forwarding");
    netns.ip("route delete 192.168.96.0/19");
    becomes(false, "took away the route to 192.168.96.0/19 through ikhn");

    let answer = host.ask(&["apply"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    until("ready after apply", SOON, || {
        ensure(status()["ready"] == true, || status().to_string())
    });
    fabric.end();
    before.assert_unchanged(&host.state(), "it ended");
}

#[test]
fn another_fabric_is_named_where_its_names_are_in_the_way() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("two");
    let fabric = host.run(&[]);
    let second = host.folder().join("two/control.sock");
    let ask = |words: &[&str]| ikv_tests::Answer::of(&mut host.command_at(&second, words));
    let (socket, pid) = (
        host.socket().display().to_string(),
        fabric.pid().to_string(),
    );
    for words in [
        &["run", "--switches", "none"][..],
        &["check", "--switches", "none"],
        &["clean"],
    ] {
        let answer = ask(words);
        let said = format!("{}{}", answer.stdout, answer.stderr);
        for word in [&socket, &pid] {
            assert!(said.contains(word), "{words:?} without {word}: {said}");
        }
        assert!(!said.contains("; ikv-fabric clean"), "{said}");
    }
    fabric.end();
}
