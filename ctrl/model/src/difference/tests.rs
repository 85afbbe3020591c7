use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::config::parse;
use crate::topology::build;

/// A fabric as the file says it, with all its switches running or none.
fn plan(text: &str, vms: bool) -> FabricPlan {
    let config = parse("fabric.toml", text, &[]).unwrap();
    let topology = build(&config).unwrap();
    let switches = if vms {
        Selection::all(&topology)
    } else {
        Selection::none()
    };
    FabricPlan {
        config,
        topology,
        switches,
    }
}

fn racks(number: u16) -> String {
    format!("[topology]\nracks = {number}\n")
}

#[test]
fn a_rack_more_in_words() {
    let difference = Difference::between(&plan("", true), &plan(&racks(4), true));
    insta::assert_snapshot!(difference.to_string(), @r"
    ~ topology.racks: 4, was 3
    + leaf7, leaf8: started
    ~ internet, leaf1, leaf2, leaf3, leaf4, leaf5, leaf6: names other switches
    ~ spine1, spine2: 2 ports added, names other switches
    + 46 cables plugged in: iksb18, iksb19, iksb28, iksb29, ikeb7-3, ikeb7-4, ikeb7-5 … ikeb8-23
    + 42 taps made on the host: ikvm4-3-1, ikvm4-4-1, ikvm4-5-1, ikvm4-6-1, ikvm4-7-1, ikvm4-8-1, ikvm4-9-1 … ikvm4-23-2
    = 141 cables not touched: no frame of theirs is lost
    ");
    assert_eq!(difference.cables.kept.len(), 141);
    assert!(difference.needs_root().is_some());
}

#[test]
fn a_rack_less_is_the_way_back() {
    let (three, four) = (plan("", true), plan(&racks(4), true));
    let there = Difference::between(&three, &four);
    let back = Difference::between(&four, &three);
    assert_eq!(back.cables.removed, there.cables.added);
    assert_eq!(back.switches.removed, ["leaf7", "leaf8"]);
    insta::assert_snapshot!(back.to_string(), @r"
    ~ topology.racks: 3, was 4
    - leaf7, leaf8: stopped
    ~ internet, leaf1, leaf2, leaf3, leaf4, leaf5, leaf6: names other switches
    ~ spine1, spine2: 2 ports removed, names other switches
    - 46 cables unplugged: iksb18, iksb19, iksb28, iksb29, ikeb7-3, ikeb7-4, ikeb7-5 … ikeb8-23
    - 42 taps removed from the host: ikvm4-3-1, ikvm4-4-1, ikvm4-5-1, ikvm4-6-1, ikvm4-7-1, ikvm4-8-1, ikvm4-9-1 … ikvm4-23-2
    = 141 cables not touched: no frame of theirs is lost
    ");
}

#[test]
fn a_cable_of_ones_own_takes_its_ends_from_two_others() {
    let own =
        "[[cable]]\nname = \"mine\"\nends = [\"leaf1:u3\", \"rack2:u5:1\"]\nstate = \"down\"\n";
    let difference = Difference::between(&plan("", true), &plan(own, true));
    insta::assert_snapshot!(difference.to_string(), @r"
    ~ 2 cables plugged in again: ikeb1-3, ikeb3-5
    + 1 cable plugged in: mine
    ~ mine: down
    = 139 cables not touched: no frame of theirs is lost
    ");
    assert_eq!(difference.needs_root(), None, "no device is made");
    assert!(difference.switches.is_same());
}

#[test]
fn only_settings_that_are_configured_otherwise_are_set() {
    let before = "[[cable]]\nname = \"iksb12\"\ndelay = \"10ms\"\n\n[[cable]]\nname = \"iksb13\"\nstate = \"down\"\n";
    let after = "[[cable]]\nname = \"iksb12\"\ndelay = \"10ms\"\n\n[[cable]]\nname = \"iksb14\"\nfrom = \"spine1:4\"\nloss = \"1%\"\n";
    let difference = Difference::between(&plan(before, false), &plan(after, false));
    insta::assert_snapshot!(difference.to_string(), @r"
    ~ iksb13: up
    ~ iksb14: from ikst14 loss 1%
    = 141 cables not touched: no frame of theirs is lost
    ");
}

#[test]
fn more_memory_changes_every_switch_that_runs() {
    let more = "[vm]\nmemory = \"256M\"\n";
    let difference = Difference::between(&plan("", true), &plan(more, true));
    insta::assert_snapshot!(difference.to_string(), @r#"
    ~ vm.memory: "256M", was unset
    ~ internet, spine1, spine2, leaf1, leaf2, leaf3, leaf4 … leaf6: other memory or CPUs
    = 141 cables not touched: no frame of theirs is lost
    "#);
    assert!(difference.needs_root().is_some());
    let none = Difference::between(&plan("", false), &plan(more, false));
    assert!(none.is_empty(), "nobody has that memory");
    insta::assert_snapshot!(none.to_string(), @r#"
    ~ vm.memory: "256M", was unset
    = no part of the running fabric changes
    "#);
}

#[test]
fn dhcp_is_changed_where_it_is_served() {
    let other = "[dhcp]\nlease = 300\n";
    let difference = Difference::between(&plan("", true), &plan(other, true));
    insta::assert_snapshot!(difference.to_string(), @r"
    ~ dhcp.lease: 300, was 600
    ~ leaf1, leaf3, leaf5: serves or peers differently
    = 141 cables not touched: no frame of theirs is lost
    ");
}

#[test]
fn what_cannot_be_is_refused_by_key() {
    let other = "owner = 1000\n[topology]\nspines = 3\n[vm]\nnic = \"tap\"\ncpus = 2\n[recorder]\nsnap = 100\n";
    let said = |vms| -> Vec<String> {
        let refused = refusals(&plan("", vms), &plan(other, vms));
        let said = refused
            .into_iter()
            .map(|it| format!("{}: {}", it.key, it.what));
        said.collect()
    };
    insta::assert_snapshot!(said(true).join("\n"), @r"
    owner: this cannot be changed while the fabric runs; leave it as it was, or restart the fabric
    recorder.snap: the flight recorder of a running fabric stays as it is (`ikv-fabric recorder trigger` sets its triggers); leave the key as it was, or restart the fabric
    vm.nic: this cannot be changed while the fabric runs; leave it as it was, or restart the fabric
    topology.spines: the running fabric has 2, and with 3 every leaf would have another AS number and loopback; restart the fabric
    ");
    assert_eq!(said(false).len(), 3, "a panel alone takes another spine");
    assert_eq!(refusals(&plan("", true), &plan("", true)), []);
}

/// The keys by which fabrics differ here, as small as they may be.
fn any_plan() -> impl Strategy<Value = FabricPlan> {
    let own = prop::option::of((1u16..=2, 3u16..=4, 1u16..=2, 3u16..=4));
    (1u16..=4, 1u16..=3, 3u16..=6, own, any::<bool>(), 0u8..3).prop_map(
        |(racks, spines, num_u, own, vms, cut)| {
            let mut text =
                format!("[topology]\nracks = {racks}\nspines = {spines}\nnum_u = {num_u}\n");
            if let Some((leaf, u, nic, other)) = own
                && u < num_u
                && other < num_u
            {
                text += &format!(
                    "[[cable]]\nends = [\"leaf{leaf}:u{u}\", \"rack1:u{}:{nic}\"]\n",
                    other + 1
                );
                if leaf == nic && u == other + 1 {
                    text = text.replace("[[cable]]\nends", "[[cable]]\nname = \"ikib1\"\n#");
                }
            }
            if cut > 0 {
                text += "[[cable]]\nname = \"iksb12\"\nstate = \"down\"\n";
            }
            if cut > 1 {
                text += "delay = \"5ms\"\n";
            }
            plan(&text, vms)
        },
    )
}

fn set(names: impl IntoIterator<Item = impl Into<String>>) -> BTreeSet<String> {
    names.into_iter().map(Into::into).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_fabric_differs_from_itself_in_nothing(a in any_plan()) {
        let difference = Difference::between(&a, &a);
        prop_assert!(difference.is_empty(), "{difference}");
        prop_assert_eq!(difference.cables.kept.len(), a.topology.cables.len());
        prop_assert_eq!(difference.needs_root(), None);
        prop_assert_eq!(refusals(&a, &a), []);
    }

    /// Taking away and making what the difference says leads from one to the other.
    #[test]
    fn it_leads_from_one_to_the_other(a in any_plan(), b in any_plan()) {
        let difference = Difference::between(&a, &b);
        let shapes = |plan: &FabricPlan| plan.cables();
        let [before, after] = [shapes(&a), shapes(&b)];
        let mut there = set(before.iter().map(|(name, _)| name.as_str()));
        for name in difference.cables.to_take() {
            prop_assert!(there.remove(name), "{} was there", name);
        }
        prop_assert_eq!(&there, &set(&difference.cables.kept));
        for name in difference.cables.to_make() {
            prop_assert!(there.insert(name.into()), "{} was not", name);
        }
        prop_assert_eq!(there, set(after.iter().map(|(name, _)| name.as_str())));
        // Kept is exactly what both have alike.
        let alike: Vec<_> = before.iter().filter(|cable| after.contains(cable)).collect();
        prop_assert_eq!(
            set(alike.iter().map(|(name, _)| name.as_str())),
            set(&difference.cables.kept)
        );
        // No end that is needed is held by a cable that stays.
        let ends = |names: &[&str], all: &[(String, [Shape; 2])]| -> Vec<String> {
            let named = all.iter().filter(|(name, _)| names.contains(&&**name));
            let ends = named.flat_map(|(_, ends)| ends.clone());
            ends.filter(|end| end.2 != EndBackend::Nobody).map(|end| end.0).collect()
        };
        let made: Vec<_> = difference.cables.to_make().collect();
        let kept: Vec<_> = difference.cables.kept.iter().map(String::as_str).collect();
        let (made, kept) = (set(ends(&made, &after)), set(ends(&kept, &after)));
        prop_assert!(made.is_disjoint(&kept));
    }

    #[test]
    fn the_way_back_takes_what_the_way_there_made(a in any_plan(), b in any_plan()) {
        let there = Difference::between(&a, &b);
        let back = Difference::between(&b, &a);
        for (there, back) in [
            (&there.cables, &back.cables),
            (&there.taps, &back.taps),
            (&there.switches, &back.switches),
        ] {
            prop_assert_eq!(set(&there.added), set(&back.removed));
            prop_assert_eq!(set(&there.removed), set(&back.added));
            prop_assert_eq!(set(&there.kept), set(&back.kept));
            prop_assert_eq!(set(&there.changed), set(&back.changed));
        }
    }
}

#[test]
fn who_reaches_the_host_changes_live_and_by_root_alone() {
    let old = plan("", true);
    let new = plan(
        "[host]\nallow = [\"tcp/22\"]\nreachable_from = [\"10.0.0.0/8\"]\n",
        true,
    );
    assert_eq!(refusals(&old, &new), []);
    let difference = Difference::between(&old, &new);
    insta::assert_snapshot!(difference.to_string(), @r#"
    ~ host.allow: ["tcp/22"], was []
    ~ host.reachable_from: ["10.0.0.0/8"], was []
    ~ host: guests reach tcp/22 of the host, and 10.0.0.0/8 reach the fabric
    = 141 cables not touched: no frame of theirs is lost
    "#);
    assert!(!difference.is_empty());
    assert!(difference.needs_root().is_some());
    assert_eq!(Difference::between(&new, &new).reach, None);
}
