//! The released file, edited ones, and text that is not a list of assignments at all.

use std::fmt::Write;

use proptest::prelude::*;

use super::{Import, LONGEST_FILE, import};
use crate::config::{self, Config};
use crate::topology::{Topology, build};

/// The keys that ikvswitch 1.0.4 is released with, in its order.
const RELEASED: &str = include_str!("tests/released.conf");

fn of(text: &str) -> Import {
    import("lab.conf", text)
}

/// The released file with other values; each key has to be in it.
fn edited(edits: &[(&str, &str)]) -> String {
    let mut text = RELEASED.to_owned();
    for (key, value) in edits {
        let line = RELEASED
            .lines()
            .find(|line| line.starts_with(&format!("{key}=")))
            .unwrap();
        text = text.replace(&format!("\n{line}\n"), &format!("\n{key}={value}\n"));
    }
    text
}

fn topology(import: &Import) -> Topology {
    assert_eq!(import.problems, [""; 0], "{}", import.toml);
    build(&config::parse("imported", &import.toml, &[]).unwrap()).unwrap()
}

/// `line key: what` of each remark, with `!` before those about what could not be taken over.
fn remarks(import: &Import) -> String {
    let mut all = String::new();
    for remark in &import.remarks {
        let mark = if remark.unread { "!" } else { "" };
        let key = remark.key.as_deref().unwrap_or_default();
        writeln!(all, "{mark}{} {key}: {}", remark.line, remark.what).unwrap();
    }
    all
}

#[test]
fn the_released_file() {
    let import = of(RELEASED);
    insta::assert_snapshot!(format!("{}---\n{}", import.toml, remarks(&import)));
    let mut imported = topology(&import);
    let default = build(&Config::default()).unwrap();
    imported.host.snat = default.host.snat;
    assert_eq!(imported, default, "every name, address and number");
}

#[test]
fn an_edited_file() {
    let import = of(&edited(&[
        ("MY_IP", "10.20.30.40   # the uplink"),
        ("HOST_VIRTUAL_SUBNET_START_PREFIX", "'10.99'"),
        ("HOST_VIRTUAL_SUBNET_END_PREFIX", "\"64\""),
        ("HOST_VIRTUAL_SUBNET_NET1", "${HOST_VIRTUAL_SUBNET_PREFIX}"),
        (
            "HOST_VIRTUAL_SUBNET_NET3",
            "$HOST_VIRTUAL_SUBNET_START_PREFIX.$((HOST_VIRTUAL_SUBNET_END_PREFIX+2))",
        ),
        ("DHCPD_SUBNET_1", "10.99.70"),
        ("DHCPD_SUBNET_2", "10.99.71"),
        ("DHCPD_SUBNET_3", "10.99.72"),
        ("DHCP_RELAY_DESTINATION", "10.99.68.2"),
        ("VLAN_SUBNETS_NUM", "2"),
        ("VLAN_SBUNETS_START_IP", "80"),
        ("VLAN_SBUNET4_PREFIX", "10.99.200"),
        ("VLAN_START", "201"),
        ("NUM_U", "$(( (2 + 3) * 8 ))"),
        ("AS_START", "4200000000"),
        ("LEAF_TO_VM_VLAN_NUM", "7"),
        ("MAC_PREFIX", "02:22:22:DD:EE"),
        ("GUEST_MAC_ADDRESS_PREFIX", "02:00:27:06:AC:"),
        ("HOST_TAP_NAME_PREFIX", "vm"),
        ("HOST_DUMMYNET_IFNAME_PREFIX", "lab0"),
        ("HOST_IPMI_IP", "10.1.1.1"),
        ("VM_ROOT_PASS", "'a \"long\" one'"),
        ("DEBIAN_RELEASE", "bookworm"),
    ]));
    insta::assert_snapshot!(format!("{}---\n{}", import.toml, remarks(&import)));
    let topology = topology(&import);
    assert_eq!(topology.racks.len() * 2 * (40 - 2), 228);
    let taps: Vec<&str> = topology.ends().map(|found| &*found.end.tap).collect();
    assert!(
        taps.contains(&"vm2-6-1") && taps.contains(&"lab0"),
        "{taps:?}"
    );
    assert_eq!(topology.host.address.to_string(), "10.99.64.1/24");
    assert_eq!(topology.switches[3].loopback.to_string(), "10.99.66.4");
    assert_eq!(
        topology.switches[0].ports[0].mac.to_string(),
        "02:00:27:06:ac:10"
    );
}

/// As in a shell, the last value counts, and quotes, continued lines and comments have their
/// meaning.
#[test]
fn reads_what_a_shell_reads() {
    for (text, num_u) in [
        ("NUM_U=30", 30),
        ("NUM_U=30; NUM_U=31", 31),
        ("NUM_U=30 AS_START=1", 30),
        ("export NUM_U=30\nexport NUM_U", 30),
        ("  NUM_U=30 # NUM_U=31", 30),
        ("NUM_U=\\\n30", 30),
        ("NUM_\\\nU=30", 30),
        ("NUM_U=\"3\"'0'", 30),
        ("NUM_U=3\\0", 30),
        ("A=3\nNUM_U=${A}0", 30),
        ("A=3\nNUM_U=\"$A\"0\nA=4", 30),
        ("A='2 + 3'\nNUM_U=$((6*$A))", 15),
        ("A=5\nNUM_U=$((6*A))", 30),
        ("NUM_U=$(( 2 * $(( 1+1 )) * 5 ))", 20),
        ("NUM_U=\"$(( \n10 + 1 ))\"", 11),
        ("A=7#7\nNUM_U=9", 9),
    ] {
        let import = of(text);
        assert_eq!(topology(&import).num_u, num_u, "{text}: {import:?}");
        assert_eq!(import.unread(), 0, "{text}");
    }
}

#[test]
fn remarks_name_the_line_of_what_is_refused() {
    for (text, said) in [
        ("\nNUM_U=$(cat /etc/u)", "!2 NUM_U: a command stands in it"),
        ("NUM_U=`id`", "!1 NUM_U: a command stands in it"),
        (
            "NUM_U=\"$(echo \")\" ')' `x` $(y))\"; AS_START=7",
            "!1 NUM_U: a command",
        ),
        (
            "NUM_U=${U:-20}",
            "!1 NUM_U: only ${NAME} and $NAME are read",
        ),
        (
            "NUM_U=$1",
            "!1 NUM_U: it has a parameter that only a running shell knows",
        ),
        ("NUM_U=$'20'", "!1 NUM_U: $'…' and"),
        (
            "NUM_U=$U",
            "!1 NUM_U: it refers to U, which is not set above",
        ),
        (
            "U=`x`\nNUM_U=$U",
            "!2 NUM_U: it refers to U, which is not read from line 1",
        ),
        ("NUM_U=$((1/0))", "!1 NUM_U: it divides by 0"),
        ("NUM_U=$((`id`))", "!1 NUM_U: a command stands in it"),
        (
            "NUM_U=$((U+1))",
            "!1 NUM_U: it refers to U, which is not set above",
        ),
        ("NUM_U=$((1+1)", "!1 NUM_U: $(( is not closed"),
        ("A=x\nNUM_U=$((A))", "!2 NUM_U: A: x is not a whole number"),
        ("NUM_U='20", "!1 NUM_U: a quote is not closed"),
        ("NUM_U=\"20", "!1 NUM_U: a quote is not closed"),
        (
            "VM_ROOT_PASS=~/x",
            "!1 VM_ROOT_PASS: ~ stands for a home directory",
        ),
        ("NUM_U=20 reboot", "!1 : `reboot` is a command"),
        ("[ -e /x ] && NUM_U=20", "!1 : `[` is a command"),
        (". /etc/other.conf", "!1 : another file is not read"),
        ("NUM_U+=1", "!1 : `NUM_U+=1` is a command"),
        ("NUM_U=20 >/tmp/x", "!1 : this is a command"),
        (
            "if true; then\nNUM_U=20\nfi",
            "!2 : it stands in a command that begins in line 1",
        ),
        (
            "f() {\nNUM_U=20\n}",
            "!2 : it stands in a command that begins in line 1",
        ),
        (
            "(\nNUM_U=20\n)",
            "!2 : it stands in a command that begins in line 1",
        ),
        ("cat <<END\nNUM_U=20\nEND", "!1 : a here-document begins"),
        ("NUM_U=2", "!1 NUM_U: topology.num_u: 2 is out of bounds"),
        ("NUM_U=many", "!1 NUM_U: \"many\" is not a whole number"),
        ("MY_IP=example.com", "!1 MY_IP: host.snat: "),
        (
            "HOST_VIRTUAL_SUBNET_PREFIX=192.168.100",
            "!1 HOST_VIRTUAL_SUBNET_PREFIX: topology.range",
        ),
        (
            "HOST_VIRTUAL_SUBNET_NET1=192.168",
            "!1 HOST_VIRTUAL_SUBNET_NET1: \"192.168\" is not the",
        ),
        ("MAC_PREFIX=00:22", "!1 MAC_PREFIX: "),
        (
            "VLAN_SUBNETS_NUM=200",
            "!1 VLAN_SUBNETS_NUM: 113 and 200 networks",
        ),
        ("DHCPD_SUBNET_2=x", "!1 DHCPD_SUBNET_2: \"x\" is not"),
        (
            "HOST_TAP_NAME_PREFIX=a.b",
            "!1 HOST_TAP_NAME_PREFIX: names.server: ",
        ),
        (
            "VM_ROOT_PASS=a\u{fffd}b",
            "!1 VM_ROOT_PASS: it has a letter that is not UTF-8",
        ),
        ("COLOR=blue", "1 COLOR: ikvswitch has no such key"),
    ] {
        let import = of(text);
        let remarks = remarks(&import);
        assert!(remarks.contains(said), "{text}: {remarks}");
        let left = config::parse("", &import.toml, &[]).unwrap();
        assert_eq!(
            left.topology.num_u, 23,
            "{text}: nothing of it is taken: {import:?}"
        );
        assert_eq!(import.unread() > 0, remarks.starts_with('!'), "{text}");
    }
}

#[test]
fn reads_on_after_what_is_refused() {
    let text = "echo \"\nNUM_U=20\n\"\ncase $x in a) AS_START=1;; esac\nMY_IP=$(ip -o addr\n)\nLEAF_TO_VM_VLAN_NUM=9";
    let import = of(text);
    let config = config::parse("", &import.toml, &[]).unwrap();
    let read = (
        config.topology.num_u,
        config.bgp.as_start,
        config.bgp.server_vlan,
    );
    assert_eq!(read, (23, 65500, 9), "{}", remarks(&import));
}

#[test]
fn problems_name_the_line_of_the_toml() {
    let import = of(&edited(&[("HOST_TAP_NAME_PREFIX", "datacentre-vm")]));
    let problems = import.problems.join("\n");
    assert!(problems.starts_with("the TOML, line "), "{problems}");
    assert!(problems.contains("names.server: the name"), "{problems}");
}

#[test]
fn values_made_of_values_are_bounded() {
    let mut text = String::from("A0=xxxxxxxxxx\n");
    for index in 1..60 {
        writeln!(text, "A{index}=$A{0}$A{0}$A{0}", index - 1).unwrap();
    }
    let import = of(&text);
    assert!(
        remarks(&import).contains("longer than 1024 bytes"),
        "{import:?}"
    );
}

/// Each would be deep or quadratic for a reader that recurses or looks back.
#[test]
fn hostile_files_take_linear_time() {
    let began = std::time::Instant::now();
    for unit in [
        "$((",
        "$(",
        "`",
        "\"",
        "'",
        "(",
        "{ ",
        "if ",
        "\\\n",
        "${",
        "$(\"",
        "A=$((-",
        "$\\\n((",
        "A=$A",
        "A=1;",
        "<",
        "x ",
        "\"$(",
        "A=$((A+1))\n",
    ] {
        for begin in ["", "A=", "A=$((", "A=\"", "A=1\nA="] {
            let mut text = begin.to_owned();
            while text.len() + unit.len() <= LONGEST_FILE {
                text += unit;
            }
            let import = of(&text);
            assert!(
                config::parse("", &import.toml, &[]).is_ok(),
                "{begin}{unit}"
            );
        }
    }
    let took = began.elapsed();
    assert!(took.as_secs() < 60, "95 files in {took:?}");
}

/// Pieces that a shell gives a meaning to, so that random files get somewhere.
fn shell() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "NUM_U",
        "MY_IP",
        "VLAN_SBUNETS_START_IP",
        "A",
        "=",
        "=",
        "1",
        "20",
        "192.168.1",
        "$",
        "${",
        "}",
        "$((",
        "))",
        "(",
        ")",
        "+",
        "*",
        "/",
        "'",
        "\"",
        "`",
        "\\",
        "\n",
        "\n",
        ";",
        " ",
        "#",
        "if",
        "fi",
        "<<",
        "&&",
        "é",
        "\r",
        "\u{202e}",
        "export ",
    ];
    prop::collection::vec(prop::sample::select(PIECES), 0..60).prop_map(|all| all.concat())
}

proptest! {
    #[test]
    fn our_loader_takes_the_toml_of_any_text(text in shell(), any in any::<String>()) {
        for text in [text, any] {
            let import = of(&text);
            prop_assert!(config::parse("", &import.toml, &[]).is_ok(), "{:?}: {}", text, import.toml);
            for remark in &import.remarks {
                prop_assert!(remark.line >= 1 && remark.line <= 1 + text.matches('\n').count());
            }
        }
    }

    /// Values of many kinds under every key.
    #[test]
    fn any_value_under_any_key(
        values in prop::collection::vec(("[A-Z0-9_]{1,8}|[ -~]{0,20}", 0..45_usize), 0..10)
    ) {
        let keys: Vec<&str> = RELEASED.lines().filter_map(|line| line.split_once('=')).map(|(key, _)| key).collect();
        let mut text = String::new();
        for (value, index) in values {
            let value = value.replace('\'', "");
            writeln!(text, "{}='{value}'", keys[index % keys.len()]).unwrap();
        }
        let import = of(&text);
        prop_assert!(config::parse("", &import.toml, &[]).is_ok(), "{}: {}", text, import.toml);
    }
}
