//! What is in the way of a fabric is named with its remedy, and nothing is touched.
#![allow(missing_docs, clippy::unwrap_used)]

use ikv_tests::panel::{Answer, PanelHost, as_from_a_plain_shell};
use ikv_tests::{have_root, ikv_fabric, run};

/// Something in the way, and what is said then.
struct Obstacle {
    what: &'static str,
    /// Shell commands that put it there.
    put: &'static str,
    /// The same, but only for the fabric: it sees another file system.
    mount: &'static str,
    options: &'static [&'static str],
    says: &'static [&'static str],
}

const NONE: Obstacle = Obstacle {
    what: "nothing",
    put: "true",
    mount: "true",
    options: &[],
    says: &[],
};

/// Found before anything is touched.
const SEEN_BEFORE: &[Obstacle] = &[
    Obstacle {
        what: "a link of one of our names",
        put: "ip tuntap add dev ikvm2-4-1 mode tap",
        says: &["link ikvm2-4-1 exists already", "ip link del ikvm2-4-1"],
        ..NONE
    },
    Obstacle {
        what: "a link of the host link's name",
        put: "ip link add ikhn type bridge",
        says: &["link ikhn exists already", "ip link del ikhn"],
        ..NONE
    },
    Obstacle {
        what: "a table of our name",
        put: "nft 'add table inet ikv-fabric; add chain inet ikv-fabric precious'",
        says: &[
            "nftables table inet ikv-fabric exists",
            "nft delete table inet ikv-fabric",
        ],
        ..NONE
    },
    Obstacle {
        what: "a route into our range",
        put: "ip route add 192.168.100.0/24 dev lo",
        says: &["route to 192.168.100.0/24", "ip route del 192.168.100.0/24"],
        ..NONE
    },
    Obstacle {
        what: "a route in another table",
        put: "ip route add 192.168.96.0/20 dev lo table 77",
        says: &["route to 192.168.96.0/20", "192.168.96.0/19"],
        ..NONE
    },
    Obstacle {
        what: "the host's address on another link",
        put: "ip address add 192.168.96.1/32 dev lo",
        says: &[
            "lo has 192.168.96.1/32",
            "ip addr del 192.168.96.1/32 dev lo",
        ],
        ..NONE
    },
    Obstacle {
        what: "no tun driver",
        mount: "mount -t tmpfs none /dev/net",
        says: &["/dev/net/tun", "modprobe tun"],
        ..NONE
    },
    Obstacle {
        what: "an owner that the host does not know",
        options: &["--set", "owner=no-such-user"],
        says: &["owner = no-such-user", "getent passwd"],
        ..NONE
    },
];

/// Around the socket.
const FILES: &[Obstacle] = &[
    Obstacle {
        what: "a folder that may not be written",
        put: "mkdir $FOLDER/run",
        mount: "mount -t tmpfs -o ro none $FOLDER/run",
        says: &["cannot lock", "run/lock", "Read-only file system"],
        ..NONE
    },
    Obstacle {
        what: "a file where the folder should be",
        put: "touch $FOLDER/run",
        says: &["cannot lock", "/run"],
        ..NONE
    },
    Obstacle {
        what: "a file where the socket should be",
        put: "mkdir $FOLDER/run; echo precious > $FOLDER/run/control.sock",
        says: &["run/control.sock is in the way", "move it away"],
        ..NONE
    },
    Obstacle {
        what: "a folder of somebody's where the switches' files go",
        put: "mkdir -p $FOLDER/run/vm; echo precious > $FOLDER/run/vm/disk",
        says: &["run/vm is in the way", "move it away"],
        ..NONE
    },
    Obstacle {
        what: "a file where the lock should be",
        put: "mkdir $FOLDER/run; echo precious > $FOLDER/run/lock",
        says: &["run/lock is no lock file of a fabric", "another --socket"],
        ..NONE
    },
    Obstacle {
        what: "a journal that somebody else may have written",
        put: "mkdir $FOLDER/run; echo '{}' > $FOLDER/run/state.json; chmod 666 $FOLDER/run/state.json",
        says: &["state.json", "not trusted", "remove it"],
        ..NONE
    },
    Obstacle {
        what: "a socket with a path that is too long",
        mount: "SOCKET=$FOLDER/$(printf %0120d 0)/control.sock",
        says: &["0000/", " bytes, Linux allows 107", "shorter --socket"],
        ..NONE
    },
];

fn try_each(obstacles: &[Obstacle]) {
    if !have_root() {
        return;
    }
    for Obstacle {
        what,
        put,
        mount,
        options,
        says,
    } in obstacles
    {
        let host = PanelHost::new("way");
        let shell = |script: &str| {
            let mut command = host.netns.command("sh");
            command
                .env("FOLDER", host.folder())
                .env("SOCKET", host.socket())
                .args(["-ec", script]);
            as_from_a_plain_shell(&mut command);
            command
        };
        run(&mut shell(put));
        let before = host.state();
        // `ip netns exec` gives the shell file systems of its own: what it mounts goes with it.
        let script = format!("{mount}; exec \"$0\" --socket $SOCKET run --switches none \"$@\"");
        let answer = Answer::of(shell(&script).arg(ikv_fabric()).args(*options));
        let sentence = answer.refusal();
        for words in *says {
            assert!(sentence.contains(words), "{what}: {sentence}");
        }
        before.assert_unchanged(&host.state(), what);
    }
}

#[test]
fn conflicts_are_found_before_anything_is_touched() {
    try_each(SEEN_BEFORE);
}

#[test]
fn files_of_others_are_left_alone() {
    try_each(FILES);
}

/// All at once, so that one go mends them.
#[test]
fn several_obstacles_are_told_at_once() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("several");
    host.netns.ip("link add ikhn type bridge");
    host.netns.ip("route add 192.168.100.0/24 dev lo");
    let before = host.state();
    let answer = Answer::of(&mut host.run_command(&[]));
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert_eq!(answer.stderr.lines().count(), 2, "{answer:?}");
    for words in ["link ikhn exists already", "192.168.100.0/24"] {
        assert!(answer.stderr.contains(words), "{answer:?}");
    }
    before.assert_unchanged(&host.state(), "several obstacles");
}
