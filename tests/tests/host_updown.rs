//! The host's part of a fabric is executed and undone in a namespace, which is then unchanged.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;

use host::execute::{HostChangeError, clean, execute};
use host::journal::{Journal, Undo};
use host::lock::{Lock, StatePaths};
use host::plan::{HostStep, plan};
use ikv_tests::{HostState, host_plan_input, in_namespace, shell};

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
