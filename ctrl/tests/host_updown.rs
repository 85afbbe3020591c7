//! The host's part of a fabric goes up and down in a namespace, and leaves it as it was.
#![allow(clippy::unwrap_used)] // what the tests share is a test too

mod namespace;

use std::path::Path;

use host::execute::{HostChangeError, apply, clean};
use host::journal::{Journal, Undo};
use host::lock::{Lock, StatePaths};
use host::plan::{Step, plan};
use namespace::{in_namespace, input, picture, shell};

fn lock(folder: &Path) -> Lock {
    Lock::acquire(&StatePaths::beside(&folder.join("run/control.sock"))).unwrap()
}

#[test]
fn up_and_down_leaves_no_trace() {
    in_namespace("up_and_down_leaves_no_trace", || {
        let folder = tempfile::tempdir().unwrap();
        let before = picture();
        let lock = lock(folder.path());
        let mut applied = apply(&plan(&input(281, true)), &lock, |_| {}).unwrap();
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
        assert_eq!(picture(), before);
        lock.release().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    });
}

#[test]
fn a_failing_step_at_every_place_undoes_those_before_it() {
    in_namespace("a_failing_step_at_every_place", || {
        let folder = tempfile::tempdir().unwrap();
        let lock = lock(folder.path());
        let mut input = input(4, true);
        input.host.as_mut().unwrap().ipv6_forwarding = true;
        let good = plan(&input);
        let before = picture();
        for place in 0..=good.len() {
            let mut steps = good.clone();
            steps.insert(
                place,
                HostStep::Route {
                    range: "198.51.100.0/24".parse().unwrap(),
                    via: "192.0.2.1".parse().unwrap(),
                    link: "not-there".into(),
                },
            );
            let mut seen = 0;
            let error = apply(&steps, &lock, |_| seen += 1).unwrap_err();
            assert_eq!(seen, place + 1);
            let words = error.to_string();
            assert!(
                words.starts_with("cannot route 198.51.100.0/24 via 192.0.2.1"),
                "{words}"
            );
            assert!(matches!(error, HostChangeError::Step { left, .. } if left.is_empty()));
            assert_eq!(picture(), before, "after a failure at step {place}");
            assert!(!lock.paths().journal.exists());
        }
        lock.release().unwrap();
    });
}

#[test]
fn a_step_that_fails_half_way_is_undone_too() {
    in_namespace("a_step_that_fails_half_way", || {
        let folder = tempfile::tempdir().unwrap();
        let lock = lock(folder.path());
        // The last of the taps exists, as somebody else's.
        shell("ip tuntap add dev ikvm1-5-2 mode tap && ip link set ikvm1-5-2 alias precious");
        let before = picture();
        let error = apply(&plan(&input(6, true)), &lock, |_| {})
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("ikvm1-5-2") && error.contains("exists"),
            "{error}"
        );
        assert_eq!(picture(), before);

        // A route in the way of ours.
        shell("ip link del ikvm1-5-2 && ip route add 192.168.96.0/19 dev lo");
        let before = picture();
        let error = apply(&plan(&input(6, true)), &lock, |_| {})
            .unwrap_err()
            .to_string();
        assert!(error.contains("route 192.168.96.0/19"), "{error}");
        assert_eq!(picture(), before);

        // A table of our name.
        shell("ip route del 192.168.96.0/19 && nft add table inet ikv-fabric");
        let before = picture();
        let error = apply(&plan(&input(6, true)), &lock, |_| {})
            .unwrap_err()
            .to_string();
        assert!(error.contains("File exists"), "{error}");
        assert_eq!(picture(), before);
        lock.release().unwrap();
    });
}

#[test]
fn a_killed_fabric_is_cleaned_away() {
    in_namespace("a_killed_fabric_is_cleaned_away", || {
        let folder = tempfile::tempdir().unwrap();
        let mut lock = lock(folder.path());
        let before = picture();
        assert_eq!(clean(&mut lock).unwrap(), None);

        let steps = plan(&input(281, true));
        let mut applied = apply(&steps, &lock, |_| {}).unwrap();
        let socket = lock.paths().folder.join("control.sock");
        applied.will_create(&socket).unwrap();
        std::fs::write(&socket, "").unwrap();
        // What SIGKILL does: descriptors are closed and no code of ours runs.
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
        assert_eq!(picture(), before);
        assert!(!socket.exists());
        assert_eq!(clean(&mut lock).unwrap(), None);
        lock.release().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    });
}

#[test]
fn a_fabric_killed_between_making_and_marking_a_tap_is_cleaned_away() {
    in_namespace("a_fabric_killed_between_making_and_marking", || {
        let folder = tempfile::tempdir().unwrap();
        let mut lock = lock(folder.path());
        let before = picture();
        let names = ["ikvm1-3-1", "ikvm1-3-2", "ikvm1-4-1", "ikvm1-4-2"].map(str::to_owned);
        let mut journal = Journal::new(&lock.paths().journal, false).unwrap();
        journal
            .begin(Undo::Links {
                names: names.into(),
            })
            .unwrap();
        shell("ip tuntap add dev ikvm1-3-1 mode tap");
        clean(&mut lock).unwrap().unwrap();
        assert_eq!(picture(), before);

        // Of the same names, but surely not ours: marked by another, in use, no tap.
        journal.save().unwrap();
        shell("ip tuntap add dev ikvm1-3-2 mode tap && ip link set ikvm1-3-2 alias theirs");
        shell("ip tuntap add dev ikvm1-4-1 mode tap && ip link set ikvm1-4-1 up");
        shell("ip link add ikvm1-4-2 type bridge");
        let before = picture();
        clean(&mut lock).unwrap().unwrap();
        assert_eq!(picture(), before);
        lock.release().unwrap();
    });
}
