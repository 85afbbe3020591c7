//! `[[cable]]`: cables that the user adds, and changes to existing ones.

use crate::config;
use crate::topology::{EndOwner, Topology, build};

fn built(file: &str) -> Result<Topology, String> {
    let config = config::parse("f.toml", file, &[]).map_err(|error| error.to_string())?;
    build(&config).map_err(|errors| errors.to_string())
}

#[test]
fn two_ports_get_a_cable_and_their_old_ones_keep_the_other_end() {
    let topology = built("[[cable]]\nends = [\"leaf1:u3\", \"rack2:u5:1\"]\n").unwrap();
    let cable = topology.cable("leaf1:u3").unwrap();
    assert_eq!((&*cable.name, cable.own), ("ikcb1", true));
    assert_eq!(cable.name, topology.cable("ikvm2-5-1").unwrap().name);
    assert_eq!((&*cable.a.tap, &*cable.b.tap), ("ikls1-3", "ikvm2-5-1"));
    assert_eq!(topology.port(&cable.a).unwrap().cable, "ikcb1");
    assert_eq!(topology.cables.len(), 142);

    let left = topology.cable("rack1:u3:1").unwrap();
    assert_eq!((&*left.name, left.a.owner), ("ikeb1-3", EndOwner::Open));
    let left = topology.cable("leaf3:u5").unwrap();
    assert_eq!((&*left.name, left.b.owner), ("ikeb3-5", EndOwner::Open));
    assert!(topology.end("nothing").is_err());
    assert!(
        topology
            .text(100)
            .contains("Left with one end: ikeb1-3, ikeb3-5")
    );
    assert!(topology.dot(true).contains("leaf1"));
}

#[test]
fn a_cable_that_lost_both_ends_is_gone() {
    let topology = built(
        "[[cable]]\nname = \"direct\"\nends = [\"leaf1:u3\", \"leaf3:u3\"]\n\
         [[cable]]\nends = [\"rack1:u3:1\", \"rack2:u3:1\"]\ndelay = \"5ms\"\n",
    )
    .unwrap();
    assert_eq!(topology.cables.len(), 141, "two more, two less");
    assert!(topology.cable("ikeb1-3").is_err());
    assert_eq!(topology.cable("leaf3:u3").unwrap().name, "direct");
    assert_eq!(topology.cable("rack2:u3:1").unwrap().name, "ikcb2");
    // The table's row of a leaf is that of its next server then.
    assert!(
        topology.text(100).contains("ikeb1-U"),
        "{}",
        topology.text(100)
    );
}

#[test]
fn mistakes_name_file_line_and_key() {
    let cable = |keys: &str| format!("[[cable]]\n{keys}\n");
    let bad = [
        cable("delay = \"10ms\""),
        cable("name = \"iksb1\""),
        cable("name = \"iksb12\"\ndealy = \"10ms\""),
        cable("name = \"iksb12\"\ncolour = \"red\""),
        cable("name = \"iksb12\"\ndelay = \"10\""),
        cable("name = \"iksb12\"\nloss = 1"),
        cable("name = \"iksb12\"\nloss = [\"1%\"]"),
        cable("name = \"iksb12\"\nstate = \"broken\""),
        cable("name = \"iksb12\"\nfrom = \"ikst13\"\ndelay = \"1ms\""),
        cable("name = \"iksb12\"\nfrom = \"ikst\"\ndelay = \"1ms\""),
        cable("name = \"iksb12\"\ngap = 5"),
        cable(
            "name = \"iksb12\"\njitter = \"1ms\"\n[[cable]]\nname = \"leaf1:1\"\ncorrelation = \"5%\"\n[[cable]]\nname = \"iksb12\"\nreorder = \"5%\"\njitter = \"0\"",
        ),
        cable("ends = [\"leaf1:u3\"]"),
        cable("ends = \"leaf1:u3\""),
        cable("ends = [\"leaf1:u3\", \"leaf9:u3\"]"),
        cable("ends = [\"spine1:2\", \"host\"]"),
        cable("ends = [\"leaf1:u3\", \"rack1:u3:1\"]"),
        cable("ends = [\"leaf1:u3\", \"leaf1:u3\"]"),
        cable("ends = [\"leaf1:u3\", \"leaf3:u3\"]\n[[cable]]\nends = [\"leaf5:u3\", \"ikls1-3\"]"),
        cable("name = \"iksb12\"\nends = [\"leaf1:u3\", \"leaf3:u3\"]"),
        cable("name = \"a name of many letters\"\nends = [\"leaf1:u3\", \"leaf3:u3\"]"),
        "[cable]\nname = \"iksb12\"\n".into(),
        "cable = [5]\n".into(),
    ];
    let said: Vec<_> = bad
        .iter()
        .map(|file| built(file).map(|_| ()).expect_err(file))
        .collect();
    insta::assert_snapshot!(said.join("\n"));
    let set = config::parse("", "", &["cable=[]".to_owned()]).unwrap_err();
    assert_eq!(
        set.to_string(),
        "--set cable: cables are written in the file alone, below [[cable]]"
    );
}
