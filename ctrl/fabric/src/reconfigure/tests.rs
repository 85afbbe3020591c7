use std::io::Read;

use super::*;
use model::config;
use model::topology::{Topology, build};
use vm::accel::Accel;
use vm::{Display, Image};

fn topology(toml: &str) -> Topology {
    let config = config::parse("test.toml", toml, &[]).unwrap();
    build(&config).unwrap()
}

/// A switch of a topology, with files as its seed has them.
fn make(topology: &Topology, name: &str) -> SwitchMake {
    let switch = topology.switch(name).unwrap();
    let conf = topology.switch_conf(switch).unwrap();
    let files = frr_conf::render(&conf).unwrap().into_iter();
    SwitchMake {
        spec: VmSpec {
            name: name.into(),
            memory_mib: 192,
            vcpus: 1,
            accel: Accel::Tcg,
            cpu: None,
            uid: 70_001,
            image: Image {
                kernel: "/image/kernel".into(),
                initrd: "/image/initrd".into(),
                rootfs: "/image/root".into(),
            },
            cmdline: String::new(),
            seed: "/run/seed.tar".into(),
            run_dir: "/run".into(),
            display: Display::None,
            bmc: false,
            template: None,
            nics: Vec::new(),
        },
        files: files.map(SeedFile::from).collect(),
        conf,
    }
}

/// What the guest unpacks: path and text of each file.
fn unpacked(live: &LiveChange) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(live.archive.as_slice());
    let entries = archive.entries().unwrap();
    let unpack = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry: tar::Entry<'_, &[u8]> = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (path, text)
    };
    entries.map(unpack).collect()
}

#[test]
fn every_switch_takes_another_rack_while_it_runs() {
    let (three, four) = (topology(""), topology("[topology]\nracks = 4\n"));
    for switch in &three.switches {
        let (old, new) = (make(&three, &switch.name), make(&four, &switch.name));
        let live = compare(&old, &new).unwrap_or_else(|why| panic!("{}: {why}", switch.name));
        let files = unpacked(&live);
        let find = |path: &str| {
            let found = files.iter().find(|(known, _)| known == path);
            found.map(|(_, text)| text.as_str())
        };
        assert!(find("etc/hosts").unwrap().contains("leaf8"));
        assert_eq!(find("etc/hostname"), None, "it has not changed");
        let comes = find("run/ikv/change/nics").unwrap().lines().count();
        let spine = switch.name.starts_with("spine");
        assert_eq!(comes, if spine { 2 } else { 0 }, "{}", switch.name);
        assert_eq!(find("run/ikv/change/dnsmasq"), None);
        compare(&new, &old).unwrap_or_else(|why| panic!("back, {}: {why}", switch.name));
    }
}

#[test]
fn what_the_disk_alone_tells_needs_a_start() {
    let topology = topology("");
    let old = make(&topology, "leaf1");
    let other = |path: &str| {
        let mut new = old.clone();
        new.files.push(SeedFile {
            path: path.into(),
            mode: 0o600,
            bytes: b"x".into(),
        });
        new
    };
    let key = other("etc/ssh/ssh_host_ed25519_key");
    let words = "/etc/ssh/ssh_host_ed25519_key takes effect only at a start";
    assert_eq!(compare(&old, &key).unwrap_err().to_string(), words);
    assert_eq!(compare(&key, &old).unwrap_err().to_string(), words);
    assert!(compare(&old, &other("root/.ssh/authorized_keys")).is_ok());
    let mut much = other("etc/ssh/ssh_known_hosts");
    much.files.last_mut().unwrap().bytes = vec![0; MAX_STDIN];
    assert!(matches!(
        compare(&old, &much),
        Err(RestartReason::TooMuch(_))
    ));
}
