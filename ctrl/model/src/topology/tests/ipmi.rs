//! The BMCs' segment: there only where it is wished for, and found by its names.

use crate::config;
use crate::topology::{Topology, build};
use dataplane::Side;

fn built(sets: &[&str]) -> Result<Topology, String> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let config = config::parse("f.toml", "", &sets).map_err(|error| error.to_string())?;
    build(&config).map_err(|errors| errors.to_string())
}

#[test]
fn there_is_none_unless_it_is_wished_for() {
    let topology = built(&["ipmi.tap=other"]).unwrap();
    assert_eq!((topology.ipmi.clone(), topology.cables.len()), (None, 141));
    assert!(topology.cable("bripmi").is_err());
}

#[test]
fn ikvswitchs_names_and_ports() {
    let topology = built(&["ipmi.enabled=true"]).unwrap();
    assert_eq!(topology.cables.len(), 142);
    for name in ["bripmi", "ikipmi", "ipmi", "host:ipmi"] {
        assert_eq!(topology.cable(name).unwrap().name, "bripmi", "{name}");
    }
    assert_eq!(topology.end("bripmi").unwrap().side, Side::A);
    assert_eq!(topology.end("ipmi").unwrap().end.tap, "ikipmi");
    let segment = topology.ipmi.as_ref().unwrap();
    assert_eq!((segment.port(0), segment.port(8)), (9080, 9088));
    assert_eq!(segment.mac.to_string(), "00:22:22:dd:ee:02");
    let text = topology.text(100);
    let row = text
        .lines()
        .find(|line| line.starts_with("bripmi"))
        .unwrap();
    let words: Vec<&str> = row.split_whitespace().collect();
    let row = [
        "bripmi",
        "bripmi",
        "host:ipmi",
        "-",
        "-",
        "ikipmi",
        "ipmi",
        "-",
        "-",
    ];
    assert_eq!(words, row);
    assert!(topology.dot(true).contains("bripmi"));
    let moved = ["ipmi.enabled=true", "ipmi.link=mgmt", "ipmi.tap=mgmt1"];
    assert_eq!(
        built(&moved).unwrap().end("mgmt1").unwrap().cable.name,
        "mgmt"
    );
}

#[test]
fn what_does_not_go_together_names_its_key() {
    let says = |sets: &[&str]| built(&[&["ipmi.enabled=true"], sets].concat()).unwrap_err();
    let said = [
        says(&["ipmi.address=192.168.97.1/24"]),
        says(&["ipmi.uid=70004"]),
        says(&["ipmi.tap=ikvm1-3-1"]),
        says(&["ipmi.link=ikhb"]),
        says(&["ipmi.tap=bripmi"]),
        says(&["ipmi.port=80"]),
    ];
    insta::assert_snapshot!(said.join("\n"), @r#"
    --set ipmi.address: 192.168.97.0/24 overlaps topology.range 192.168.96.0/19; choose a subnet outside of it
    --set ipmi.uid: 70004 and the 9 uids from there on share some with those from vm.uid 70000 on; choose one that is 9 or more away
    --set ipmi.tap: the name "ikvm1-3-1" is also what names.server makes; give one of them another value
    --set ipmi.link: the name "ikhb" is also what names.host_cable makes; give one of them another value
    --set ipmi.tap: the name "bripmi" is also what ipmi.link makes; give one of them another value
    --set ipmi.port: 80 is out of bounds; it takes 1024 to 64000 as first UDP port
    "#);
}
