//! `run --only` starts some of the switches, and all cables. In the end the fabric is killed.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use ikv_tests::panel::PanelHost;
use ikv_tests::patience::{SOON, ensure, until};
use ikv_tests::{
    Fabric, HostState, Nic, Site, ensure_image, figure, have_root, lacks_for_vms, skip,
};

/// Time for four emulated VMs to boot while other tests run.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn one_rack_under_one_spine_runs_and_can_be_killed() {
    if let Some(lacking) = lacks_for_vms() {
        return skip(&format!("needs {lacking}"));
    }
    ensure_image().unwrap();
    let only = ["--only", "rack1,spine1,internet"];
    let mut fabric = Fabric::start(Site::new("subset"), &only);
    let ready = fabric.wait_ready(PATIENCE).unwrap();
    figure("four switches of nine, ready", &format!("{ready:?}"));
    let cli = fabric.cli();

    let status = cli.json(&["status"]);
    let nodes = status["nodes"].as_array().unwrap();
    let sessions = nodes.iter().map(|node| {
        let bgp = &node["bgp"];
        assert_eq!(bgp["established"], bgp["expected"], "{node}");
        (
            node["name"].as_str().unwrap(),
            bgp["expected"].as_u64().unwrap(),
        )
    });
    assert_eq!(
        sessions.collect::<Vec<_>>(),
        [("internet", 1), ("spine1", 3), ("leaf1", 1), ("leaf2", 1)]
    );
    assert_eq!(status["cables"], 141, "{status}");
    cli.exec("internet", &["ping", "-c", "1", "-W", "10", "192.168.98.5"]);

    // The ends of switches that do not run are free to plug into: a spine's frames arrive there.
    let free = fabric.site.host.enter(|| Nic::plain("iklt31"));
    while free.receive().1[12..14] != [0x86, 0xdd] {}
    let refused = cli.run(&["power", "leaf3", "on"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused
            .stderr
            .contains("leaf3 is not a VM of this fabric: it was started with --only others"),
        "{refused:?}"
    );
    drop(free);
    assert_a_kill_can_be_cleaned(&mut fabric);
}

/// Its QEMUs end with it, and `clean` undoes the rest.
fn assert_a_kill_can_be_cleaned(fabric: &mut Fabric) {
    assert_eq!(fabric.qemus().len(), 4);
    let pid = fabric.pid();
    fabric.kill();
    until("its QEMUs to end", SOON, || {
        let left = fabric.qemus();
        ensure(left.is_empty(), || format!("{left:?}"))
    });
    let said = fabric.cli().ok(&["clean"]);
    let says = format!("took away what the fabric with pid {pid} had left");
    assert!(said.starts_with(&says), "{said}");
    let now = HostState::of(&fabric.site.host, &fabric.run_folder());
    fabric
        .before
        .assert_unchanged(&now, "killed, and cleaned away");
}

#[test]
fn invalid_names_for_only_are_refused() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("only");
    for (words, says) in [
        (
            &["run", "--only", "rack9"][..],
            "there is no switch or rack \"rack9\"",
        ),
        (
            &["check", "--only", "spine1,leaf7"],
            "there is no switch or rack \"leaf7\"",
        ),
        (
            &["run", "--switches", "none", "--only", "leaf1"],
            "--only starts switches and --switches none starts none",
        ),
    ] {
        let answer = host.ask(words);
        assert!(answer.refusal().starts_with(says), "{answer:?}");
    }
}
