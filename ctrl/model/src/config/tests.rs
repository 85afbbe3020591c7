//! The file against the structs, and the order of loading.

use super::*;

fn sets(sets: &[&str]) -> Vec<String> {
    sets.iter().map(|set| (*set).to_owned()).collect()
}

fn without_origin(mut config: Config) -> Config {
    config.origin = Origin::default();
    config
}

#[test]
fn the_example_says_exactly_the_defaults() {
    let example = parse("example.toml", EXAMPLE, &[]).unwrap();
    assert_eq!(without_origin(example), Config::default());
}

#[test]
fn every_key_stands_in_the_example_once_and_nothing_else_does() {
    let mut table = String::new();
    let mut found = Vec::new();
    let (tables, cable) = EXAMPLE.split_once("# [[cable]]\n").unwrap();
    for line in tables.lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            table = format!("{name}.");
        } else if let Some((name, _)) = line.trim_start_matches("# ").split_once(" = ") {
            found.push(format!("{table}{name}"));
        }
    }
    let known: Vec<&str> = keys::KEYS.iter().map(|(key, _)| *key).collect();
    assert_eq!(found, known);
    let own = cable::OWN_KEYS.iter().map(|(key, _)| *key);
    let known: Vec<&str> = own
        .chain(crate::impairment::KEYS.iter().map(|key| key.name))
        .collect();
    let written: Vec<&str> = cable
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.contains(" = "))
        .collect();
    let found: Vec<_> = written
        .iter()
        .filter_map(|line| Some(line.split_once(" = ")?.0))
        .collect();
    assert_eq!(found, known);
    let written = format!("[[cable]]\n{}", written.join("\n"));
    let config = parse("example.toml", &written, &[]).unwrap();
    assert_eq!(
        config.cable[0].impair.pairs().len(),
        crate::impairment::KEYS.len()
    );
}

#[test]
fn cables_know_where_they_were_written() {
    let file = "[[cable]]\nname = \"iksb12\"\ndelay = \"10ms\"\n\n[[cable]]\nends = [\n\"leaf1:u3\",\n\"leaf3:u5\"]\nstate = \"down\"\n";
    let config = parse("f.toml", file, &[]).unwrap();
    let line = |key: &str| config.place(key).line();
    assert_eq!(line("cable[0].delay"), 3);
    assert_eq!(line("cable[1].ends[1]"), 8);
    assert_eq!(config.cable[0].impair.words(), "delay 10ms");
    assert_eq!(
        config.cable[1].state,
        Some(crate::cable_change::CableState::Down)
    );
    assert_eq!(config.problems(), []);
}

/// The table of keys refuses what it does not know; this shows that it knows all fields.
#[test]
fn every_field_is_a_key() {
    let mut config = Config {
        owner: Some(Owner::Name("anna".into())),
        ..Config::default()
    };
    config.vm.cpu = Some("max".into());
    config.image.dir = Some("/a".into());
    config.image.release = Some("a".into());
    config.image.mirror = Some("a".into());
    config.image.security_mirror = Some("a".into());
    config.ssh.root_password = Some("secret".into());
    config.ssh.key_dir = Some("/b".into());
    config.vnc.password = Some("secret".into());
    config.recorder.matches = Some("arp".into());
    config.recorder.drop_rate = Some("1%".parse().unwrap());
    config.recorder.dir = Some("/c".into());
    let table = toml::Table::try_from(&config).unwrap();
    let mut fields: Vec<String> = Vec::new();
    for (name, value) in &table {
        match value.as_table() {
            Some(inner) => fields.extend(inner.keys().map(|field| format!("{name}.{field}"))),
            None => fields.push(name.clone()),
        }
    }
    let mut known: Vec<&str> = keys::KEYS.iter().map(|(key, _)| *key).collect();
    known.sort_unstable();
    fields.sort_unstable();
    assert_eq!(fields, known);
    let written = toml::to_string(&config).unwrap();
    assert_eq!(
        without_origin(parse("written", &written, &[]).unwrap()),
        config
    );
}

#[test]
fn set_wins_over_the_file_and_the_file_over_the_defaults() {
    let file = "[topology]\nracks = 5\nspines = 4\n";
    let config = parse("f.toml", file, &sets(&["topology.spines=1", "vm.cpus = 2"])).unwrap();
    let found = (
        config.topology.racks,
        config.topology.spines,
        config.vm.cpus,
    );
    assert_eq!((found, config.topology.num_u), ((5, 1, 2), 23));
    assert_eq!(
        config.place("topology.racks"),
        Place::File {
            path: "f.toml".into(),
            line: 2
        }
    );
    assert_eq!(config.place("topology.spines"), Place::Set);
    assert_eq!(config.place("topology.num_u"), Place::Default);
}

#[test]
fn set_takes_toml_and_bare_texts() {
    let config = parse(
        "",
        "",
        &sets(&[
            "owner=anna",
            "vm.memory=1G",
            "host.snat=10.0.0.1",
            "mac.server=02:00:00",
            "ssh.root_password=12345",
            "dhcp.domain=\"lab.example\"",
            "dhcp.dns=[\"10.0.0.53\"]",
            "dhcp.boot_bios=a=b",
            "host.ipv6_forwarding=true",
        ]),
    )
    .unwrap();
    assert_eq!(config.owner, Some(Owner::Name("anna".into())));
    assert_eq!(config.vm.memory.mib(), 1024);
    assert_eq!(config.host.snat, Snat::Address(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(config.mac.server, MacPrefix([2, 0, 0]));
    assert_eq!(config.ssh.root_password.as_deref(), Some("12345"));
    assert_eq!(config.dhcp.domain, "lab.example");
    assert_eq!(config.dhcp.dns, [Ipv4Addr::new(10, 0, 0, 53)]);
    assert_eq!(config.dhcp.boot_bios, "a=b");
    assert!(config.host.ipv6_forwarding);
}

#[test]
fn an_owner_by_uid_and_memory_in_mib() {
    let config = parse("f.toml", "owner = 1000\nvm.memory = 256\n", &[]).unwrap();
    assert_eq!(config.owner, Some(Owner::Uid(1000)));
    assert_eq!(config.vm.memory.to_string(), "256M");
}

#[test]
fn a_list_replaced_by_set_is_no_longer_the_files() {
    let file = "[dhcp]\nsubnets = [\n\"192.168.99.0/24\",\n\"192.168.101.0/24\"]\n";
    let config = parse("f.toml", file, &[]).unwrap();
    let line = |line| Place::File {
        path: "f.toml".into(),
        line,
    };
    assert_eq!(config.place("dhcp.subnets[1]"), line(4));
    assert_eq!(config.place("dhcp.subnets[7]"), line(2));
    let config = parse("f.toml", file, &sets(&["dhcp.subnets=[]"])).unwrap();
    assert_eq!(config.place("dhcp.subnets[1]"), Place::Set);
}

#[test]
fn a_file_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.toml");
    let error = load(Some(&path), &[]).unwrap_err().to_string();
    let expected = format!(
        "cannot read the configuration {}: No such file or directory (os error 2); name another \
         file with -c",
        path.display()
    );
    assert_eq!(error, expected);
}
