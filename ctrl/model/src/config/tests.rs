//! The file against the structs, and the order of loading.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::*;

fn sets(sets: &[&str]) -> Vec<String> {
    sets.iter().map(|set| (*set).to_owned()).collect()
}

fn without_origin(mut config: Config) -> Config {
    config.origin = Origin::default();
    config
}

/// The example with the keys that have no default in use.
fn all_keys() -> String {
    let example = example();
    let (_, keys) = example.split_once("\n\n").unwrap();
    let is_key = |line: &str| {
        let name = line.split_once(" = ").map(|(name, _)| name);
        name.is_some_and(|name| {
            name.bytes()
                .all(|byte| b"_abcdefghijklmnopqrstuvwxyz".contains(&byte))
        })
    };
    let in_use = |line: &'_ str| match line.strip_prefix("# ") {
        Some(rest) if is_key(rest) || rest == "[[cable]]" => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    keys.lines().map(in_use).collect()
}

#[test]
fn the_example_says_exactly_the_defaults() {
    let example = parse("example.toml", &example(), &[]).unwrap();
    assert_eq!(without_origin(example), Config::default());
}

/// For readers of the repository: docs/src/configuration.md links to it.
#[test]
fn the_example_in_this_folder_is_the_generated_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/example.toml");
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(path, example()).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        example(),
        "write it anew: INSTA_UPDATE=always cargo test -p ikv-model"
    );
}

#[test]
fn every_key_stands_in_the_example_with_a_value_that_it_takes() {
    let config = parse("example.toml", &all_keys(), &[]).unwrap();
    assert_eq!(
        config.cable[0].impair.pairs().len(),
        crate::impairment::KEYS.len()
    );
    assert_eq!(config.problems(), []);
    // Written out and read again it is the same, so no key is lost on the way.
    let written = toml::to_string(&config).unwrap();
    assert_eq!(
        without_origin(parse("written", &written, &[]).unwrap()),
        without_origin(config)
    );
    for table in schema::tables() {
        for key in &table.keys {
            let line = format!("\n{} = ", key.name);
            assert!(all_keys().contains(&line), "{}", table.dotted(key));
        }
    }
}

#[test]
fn every_form_of_the_schema_can_be_checked() {
    for (table, key) in schema::keys() {
        for schema in [&key.schema, &key.schema["items"]] {
            let form = schema["format"].as_str();
            let unchecked = form.filter(|_| check::takes_text_alone(schema));
            let unchecked = unchecked.filter(|name| forms::form(name).is_none());
            assert_eq!(unchecked, None, "{}", table.dotted(key));
            assert!(
                key.schema["description"].is_string(),
                "{}",
                table.dotted(key)
            );
        }
    }
}

/// Whether a value is what a schema says: the keywords that the schema of the file uses, but for
/// the patterns of texts.
fn accepts(schema: &Value, value: &Value) -> bool {
    let Value::Object(keywords) = schema else {
        return true;
    };
    let nested = |keyword: &str, value: &Value| accepts(&schema[keyword], value);
    keywords
        .iter()
        .all(|(keyword, bound)| match (keyword.as_str(), value) {
            ("type", _) => {
                let kind = match value {
                    Value::String(_) => "string",
                    Value::Bool(_) => "boolean",
                    Value::Array(_) => "array",
                    Value::Object(_) => "object",
                    Value::Number(_) => "number",
                    Value::Null => "null",
                };
                let is = |one: &Value| one == kind || one == "integer" && value.is_i64();
                bound
                    .as_array()
                    .map_or(is(bound), |kinds| kinds.iter().any(is))
            }
            ("const", _) => bound == value,
            ("enum", _) => bound.as_array().unwrap().contains(value),
            ("not", _) => !nested("not", value),
            ("oneOf", _) => {
                let of = bound.as_array().unwrap();
                of.iter().filter(|one| accepts(one, value)).count() == 1
            }
            ("minimum", Value::Number(_)) => value.as_f64() >= bound.as_f64(),
            ("maximum", Value::Number(_)) => value.as_f64() <= bound.as_f64(),
            ("minLength", Value::String(text)) => text.len() as u64 >= bound.as_u64().unwrap(),
            ("maxLength", Value::String(text)) => text.len() as u64 <= bound.as_u64().unwrap(),
            ("minItems", Value::Array(list)) => list.len() as u64 >= bound.as_u64().unwrap(),
            ("maxItems", Value::Array(list)) => list.len() as u64 <= bound.as_u64().unwrap(),
            ("items", Value::Array(list)) => list.iter().all(|one| nested("items", one)),
            ("properties", Value::Object(table)) => table.iter().all(|(name, value)| {
                let known = bound.get(name);
                known.map_or(schema["additionalProperties"] != false, |known| {
                    accepts(known, value)
                })
            }),
            _ => true,
        })
}

#[test]
fn editors_accept_the_example_and_refuse_what_is_out_of_bounds() {
    let schema = json_schema();
    let accepts = |text: &str| {
        let file: toml::Table = toml::from_str(text).unwrap();
        accepts(&schema, &serde_json::to_value(file).unwrap())
    };
    for good in [
        &*example(),
        &*all_keys(),
        "",
        "owner = 1000\n[vm]\nmemory = 256\n",
    ] {
        assert!(accepts(good), "{good}");
    }
    for bad in [
        "[topology]\nracks = 0\n",
        "[topology]\nracks = 256\n",
        "[topology]\nracks = \"three\"\n",
        "[topology]\nrack = 3\n",
        "[bgp]\nserver_vlan = 4095\n",
        "[host]\nlink = \"lo\"\n",
        "[vm]\naccel = \"hvf\"\n",
        "[vm]\nmemory = 64\n",
        "[vm]\ncpu = \"\"\n",
        "[dhcp]\ndns = \"9.9.9.9\"\n",
        "[[cable]]\nname = \"iksb12\"\nstate = \"broken\"\n",
        "[[cable]]\nends = [\"leaf1:u3\"]\n",
        "[[cable]]\nname = \"iksb12\"\ndealy = \"10ms\"\n",
    ] {
        assert!(!accepts(bad), "{bad}");
        assert!(parse("f.toml", bad, &[]).is_err(), "{bad}");
    }
}

#[test]
fn cables_know_where_they_were_written() {
    let file = "[[cable]]\nname = \"iksb12\"\ndelay = \"10ms\"\n\n[[cable]]\nends = [\n\"leaf1:u3\",\n\"leaf3:u5\"]\nstate = \"down\"\n";
    let config = parse("f.toml", file, &[]).unwrap();
    let line = |key: &str| config.location(key).line();
    assert_eq!(line("cable[0].delay"), 3);
    assert_eq!(line("cable[1].ends[1]"), 8);
    assert_eq!(config.cable[0].impair.words(), "delay 10ms");
    assert_eq!(
        config.cable[1].state,
        Some(crate::cable_change::CableState::Down)
    );
    assert_eq!(config.problems(), []);
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
        config.location("topology.racks"),
        Location::File {
            path: "f.toml".into(),
            line: 2
        }
    );
    assert_eq!(config.location("topology.spines"), Location::Set);
    assert_eq!(config.location("topology.num_u"), Location::Default);
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
    assert_eq!(config.owner, Some(Account::Name("anna".into())));
    assert_eq!(config.vm.memory.map(Memory::mib), Some(1024));
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
    assert_eq!(config.owner, Some(Account::Id(1000)));
    assert_eq!(config.vm.memory.unwrap().to_string(), "256M");
}

#[test]
fn memory_has_the_same_bounds_in_every_form() {
    let refused = |value: &str| parse("f.toml", &format!("vm.memory = {value}\n"), &[]).is_err();
    for (value, expected) in [
        ("95", true),
        ("\"95M\"", true),
        ("96", false),
        ("16777216", false),
        ("\"16777216M\"", false),
        ("16777217", true),
        ("\"16777217M\"", true),
    ] {
        assert_eq!(refused(value), expected, "{value}");
    }
}

#[test]
fn a_list_replaced_by_set_is_no_longer_the_files() {
    let file = "[dhcp]\nsubnets = [\n\"192.168.99.0/24\",\n\"192.168.101.0/24\"]\n";
    let config = parse("f.toml", file, &[]).unwrap();
    let line = |line| Location::File {
        path: "f.toml".into(),
        line,
    };
    assert_eq!(config.location("dhcp.subnets[1]"), line(4));
    assert_eq!(config.location("dhcp.subnets[7]"), line(2));
    let config = parse("f.toml", file, &sets(&["dhcp.subnets=[]"])).unwrap();
    assert_eq!(config.location("dhcp.subnets[1]"), Location::Set);
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
