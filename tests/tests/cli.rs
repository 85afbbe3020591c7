//! The command line as people and scripts use it: help, usage, configurations, pipes.
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Stdio;

use ikv_tests::panel::{PanelHost, ask_without_fabric, json_without_fabric};
use ikv_tests::patience::{SOON, ended};
use ikv_tests::{Answer, have_root};

/// Invalid configurations, and the sentence that each is refused with.
const BAD: &[(&str, &str)] = &[
    (
        "[topology]\nracks =\n",
        ", line 2, column 8: this is not TOML",
    ),
    (
        "racks = 5\n",
        ", line 1: racks: unknown key; did you mean topology.racks?",
    ),
    (
        "[topologi]\nracks = 5\n",
        ", line 1: topologi: unknown key; did you mean [topology]?",
    ),
    (
        "[topology]\nracks = \"three\"\n",
        ", line 2: topology.racks: \"three\" is not a whole number; it takes 1 to 255 racks",
    ),
    (
        "[topology]\n\nnum_u = 2\n",
        ", line 3: topology.num_u: 2 is out of bounds; it takes 3 to 255 as the highest U",
    ),
    (
        "[host]\ninternet = \"192.168.96\"\n",
        ", line 2: host.internet: \"192.168.96\" is not an IPv4 address such as \"192.168.96.2\"",
    ),
    (
        "[names]\nserver = \"datacentre-vm\"\n",
        ", line 2: names.server: the name \"datacentre-vm1-10-1\" has 19 characters, Linux allows 15; shorten it by 4",
    ),
    (
        "[names]\nspine_cable = \"ikst\"\n",
        ", line 2: names.spine_cable: the name \"ikst12\" is also what names.spine_leaf makes; give one of them another value",
    ),
    (
        "[topology]\nloopbacks = \"192.168.110.0/24\"\n",
        ", line 2: topology.loopbacks: 192.168.110.0/24 overlaps 192.168.110.0/24 of dhcp.subnets[0]; choose subnets that share no address",
    ),
    (
        "[mac]\nhost = \"01:00:5e:00:00\"\n",
        ", line 2: mac.host: \"01:00:5e:00:00\" begins multicast addresses; choose an even first octet, such as 02",
    ),
    (
        "[bgp]\nserver_vlan = 12\n",
        ", line 2: bgp.server_vlan: VLAN 12 is also one of the VLAN networks, 11 to 16; choose another",
    ),
    (
        "[ssh]\nroot_password = \"\"\n",
        ", line 2: ssh.root_password: the text is empty; give a value or remove the key",
    ),
];

#[test]
fn an_invalid_configuration_is_refused_with_file_line_and_key() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("bad");
    let file = host.folder().join("lab.toml");
    let name = file.to_str().unwrap();
    for (text, says) in BAD {
        std::fs::write(&file, text).unwrap();
        let before = host.state();
        let answer = Answer::of(&mut host.run_command(&["-c", name]));
        let sentence = answer.refusal();
        assert!(sentence.starts_with(&format!("{name}{says}")), "{sentence}");
        assert_eq!(
            ask_without_fabric(&["topology", "-c", name]),
            answer,
            "every command refuses it with the same sentence"
        );
        before.assert_unchanged(&host.state(), says);
    }
    std::fs::remove_file(&file).unwrap();
    let answer = ask_without_fabric(&["topology", "-c", name]);
    assert!(
        answer
            .refusal()
            .starts_with(&format!("cannot read the configuration {name}: "))
    );
}

#[test]
fn set_overrides_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lab.toml");
    std::fs::write(&file, "[topology]\nracks = 4\nspines = 4\n").unwrap();
    let topology = json_without_fabric(&[
        "topology",
        "-c",
        file.to_str().unwrap(),
        "--set",
        "topology.spines=1",
        "--set=bgp.as_start=4200000000",
    ]);
    let nodes = topology["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 1 + 1 + 8);
    assert_eq!(nodes[0]["asn"], 4_200_000_000_u32);
    for (set, says) in [
        (
            "topology.racks",
            "--set topology.racks: there is no value; write --set topology.racks=VALUE",
        ),
        (
            "topology.rack=5",
            "--set topology.rack: unknown key; did you mean topology.racks?",
        ),
        (
            "topology.racks=0",
            "--set topology.racks: 0 is out of bounds; it takes 1 to 255 racks",
        ),
    ] {
        assert_eq!(
            ask_without_fabric(&["topology", "--set", set]).refusal(),
            says
        );
    }
}

#[test]
fn a_configuration_of_ikvswitch_is_imported() {
    let folder = tempfile::tempdir().unwrap();
    let (theirs, ours) = (
        folder.path().join("ikvswitch.conf"),
        folder.path().join("o.toml"),
    );
    let (theirs, ours) = (theirs.to_str().unwrap(), ours.to_str().unwrap());
    std::fs::write(
        theirs,
        b"# caf\xe9\nBASE=10.9\nNUM_U=$((2*4))\nHOST_VIRTUAL_SUBNET_NET2=$BASE.97\n",
    )
    .unwrap();
    let answer = ask_without_fabric(&["import", theirs]);
    let said = format!(
        "{theirs}:4: HOST_VIRTUAL_SUBNET_NET2: ikvswitch does not use it either; nothing to do\n"
    );
    assert_eq!((answer.code, &*answer.stderr), (Some(0), &*said));
    std::fs::write(ours, &answer.stdout).unwrap();
    let topology = json_without_fabric(&["topology", "-c", ours]);
    assert_eq!(topology["cables"].as_array().unwrap().len(), 15 + 6 * 6);

    std::fs::write(theirs, "NUM_U=$(touch /tmp/never)\nVM_TAP_NIC=\x1b[2J\n").unwrap();
    let answer = ask_without_fabric(&["import", theirs]);
    assert_eq!(answer.code, Some(1), "part of it is lost");
    assert!(
        answer
            .stderr
            .starts_with(&format!("{theirs}:1: NUM_U: a command "))
    );
    assert!(!answer.stderr.contains('\x1b'), "{answer:?}");
    let json = ask_without_fabric(&["--json", "import", theirs]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["remarks"][0]["unread"], true, "{json}");

    for (file, said) in [
        ("/nowhere", "cannot read /nowhere; "),
        ("/dev/zero", "/dev/zero is longer "),
    ] {
        let answer = ask_without_fabric(&["import", file]);
        assert!(answer.refusal().starts_with(said), "{answer:?}");
    }
}

#[test]
fn every_command_has_help() {
    let help = ask_without_fabric(&["--help"]);
    assert_eq!(help.code, Some(0), "{help:?}");
    let (_, commands) = help.stdout.split_once("Commands:\n").unwrap();
    let (commands, _) = commands.split_once("\n\n").unwrap();
    // A line with a command's name is indented by two blanks; lines that continue a text by more.
    let names: Vec<&str> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    for name in
        "run setup check topology status cables cable exec console ssh power vm-args image import clean"
            .split(' ')
    {
        assert!(names.contains(&name), "{name} is missing: {names:?}");
    }
    for name in names {
        let words: &[&str] = if name == "help" {
            &["help"]
        } else {
            &[name, "--help"]
        };
        let help = ask_without_fabric(words);
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{name}");
        assert!(
            help.stdout.contains("Usage: ikv-fabric"),
            "{name}: {}",
            help.stdout
        );
    }
    let version = ask_without_fabric(&["--version"]).stdout;
    assert!(version.starts_with("ikv-fabric 0."), "{version}");
}

#[test]
fn wrong_usage_ends_with_status_2() {
    for words in [
        &["cable", "iksb12", "sideways"][..],
        &["cable", "iksb12"],
        &["cables", "--no-such-option"],
        &["run", "--switches", "some"],
        &["run", "--workers", "0"],
        &["power", "leaf1", "maybe"],
        &["no-such-command"],
        &[],
    ] {
        assert_eq!(
            ask_without_fabric(words).code,
            Some(2),
            "{words:?} is wrong usage"
        );
    }
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("pipe");
    let fabric = host.run(&[]);
    for words in [
        &["topology"][..],
        &["topology", "--json"],
        &["topology", "--dot"],
        &["status"],
        &["cables"],
        &["cables", "--json"],
        &["cables", "--watch"],
        &["cables", "--watch", "--json"],
        &["--help"],
    ] {
        let mut child = host
            .command(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let status = ended(&mut child, SOON);
        if status.is_none() {
            child.kill().unwrap();
        }
        let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
        assert_eq!(
            (status.and_then(|status| status.code()), said.as_str()),
            (Some(0), ""),
            "{words:?}"
        );
    }
    fabric.end();
}
