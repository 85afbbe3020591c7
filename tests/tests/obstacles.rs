//! Conflicts, missing programs and full disks are reported with a remedy, and nothing is changed.
#![allow(missing_docs, clippy::unwrap_used)]

use ikv_tests::panel::{PanelHost, as_from_a_plain_shell};
use ikv_tests::{Answer, ensure_image, have_root, ikv_fabric, run};

/// Something that keeps a fabric from starting, and what the sentence about it must contain.
struct Obstacle {
    what: &'static str,
    /// Shell commands that create it.
    put: &'static str,
    /// Shell commands that create it in the mount namespace of the command under test only.
    mount: &'static str,
    /// The command under test, as typed in a shell.
    command: &'static str,
    options: &'static [&'static str],
    says: &'static [&'static str],
}

const NONE: Obstacle = Obstacle {
    what: "nothing",
    put: "true",
    mount: "true",
    command: "run --switches none",
    options: &[],
    says: &[],
};

/// Conflicts with devices, tables, routes and addresses.
const CONFLICTS: &[Obstacle] = &[
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

/// Conflicts with files at the socket's path.
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
        what: "a folder where the socket should be",
        put: "mkdir -p $FOLDER/run/control.sock",
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
        says: &[
            "run/lock is not the lock file of a fabric",
            "another --socket",
        ],
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

/// Missing or broken programs and devices.
const MISSING: &[Obstacle] = &[
    Obstacle {
        what: "no tun driver, for a wire",
        mount: "mount -t tmpfs none /dev/net",
        command: "patch tap:xa tap:xb",
        says: &[
            "port `xa`: TUN driver unavailable: /dev/net/tun",
            "modprobe tun",
        ],
        ..NONE
    },
    Obstacle {
        what: "no nft",
        put: "touch $FOLDER/none",
        mount: "mount --bind $FOLDER/none $(command -v nft)",
        says: &["not installed: nft", "apt install nftables"],
        ..NONE
    },
    Obstacle {
        what: "no QEMU",
        put: "touch $FOLDER/none",
        mount: "mount --bind $FOLDER/none $(command -v qemu-system-x86_64)",
        command: "run --only internet",
        says: &[
            "not installed: qemu-system-x86_64",
            "apt install qemu-system-x86",
        ],
        ..NONE
    },
    Obstacle {
        what: "a QEMU that does not start",
        put: "printf '#!/bin/sh\necho libpixman: no such file >&2; exit 127' > $FOLDER/qemu; chmod 755 $FOLDER/qemu",
        mount: "mount --bind $FOLDER/qemu $(command -v qemu-system-x86_64)",
        command: "run --only internet",
        says: &[
            "qemu-system-x86_64 does not work here",
            "127: libpixman: no such file",
            "--reinstall",
        ],
        ..NONE
    },
    Obstacle {
        what: "a QEMU that crashes",
        put: "printf '#!/bin/sh\nkill -SEGV $$' > $FOLDER/qemu; chmod 755 $FOLDER/qemu",
        mount: "mount --bind $FOLDER/qemu $(command -v qemu-system-x86_64)",
        command: "run --only internet",
        says: &["does not work here: signal: 11 (SIGSEGV)", "--reinstall"],
        ..NONE
    },
    Obstacle {
        what: "no mmdebstrap",
        put: "touch $FOLDER/none",
        mount: "mount --bind $FOLDER/none $(command -v mmdebstrap)",
        command: "image --set image.dir=$FOLDER/cache build",
        says: &["needs mmdebstrap", "`ikv-fabric setup`"],
        ..NONE
    },
    Obstacle {
        what: "neither an image nor mmdebstrap",
        put: "touch $FOLDER/none",
        mount: "mount --bind $FOLDER/none $(command -v mmdebstrap)",
        command: "run --only internet --set image.dir=$FOLDER/cache",
        says: &["not installed: mmdebstrap", "apt install mmdebstrap"],
        ..NONE
    },
];

/// Full disks: no room for the first file, or for a later one.
const FULL: &[Obstacle] = &[
    Obstacle {
        what: "no room for the journal",
        put: "mkdir $FOLDER/run",
        mount: "mount -t tmpfs -o size=4k none $FOLDER/run",
        says: &["run/state.json: No space left", "make room"],
        ..NONE
    },
    Obstacle {
        what: "no room for the journal after some steps",
        put: "mkdir $FOLDER/run",
        mount: "mount -t tmpfs -o size=24k none $FOLDER/run",
        says: &["run/state.json: No space left", "make room"],
        ..NONE
    },
    Obstacle {
        what: "too few files",
        put: "mkdir $FOLDER/run",
        mount: "mount -t tmpfs -o nr_inodes=3 none $FOLDER/run",
        says: &["run/state.json: No space left", "make room"],
        ..NONE
    },
    Obstacle {
        what: "no room for what a switch boots from",
        put: "mkdir $FOLDER/run",
        mount: "mount -t tmpfs -o size=48k none $FOLDER/run",
        command: "run --only internet --set ssh.key_dir=$FOLDER/run/keys",
        says: &["No space left", "make room"],
        ..NONE
    },
    Obstacle {
        what: "no room for an image",
        put: "mkdir $FOLDER/cache",
        mount: "mount -t tmpfs -o size=64m none $FOLDER/cache",
        command: "image --set image.dir=$FOLDER/cache build",
        says: &[
            "building it takes 600 MiB",
            "/cache/image has 64 MiB",
            "image.dir",
        ],
        ..NONE
    },
    Obstacle {
        what: "no room for an image's many files",
        put: "mkdir $FOLDER/cache",
        mount: "mount -t tmpfs -o size=1g,nr_inodes=300 none $FOLDER/cache",
        command: "image --set image.dir=$FOLDER/cache build",
        says: &["8000 files", "297 files left", "image.dir"],
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
        command,
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
        // `ip netns exec` makes a mount namespace: what the shell mounts vanishes with it.
        let script = format!("{mount}; exec \"$0\" --socket $SOCKET {command} \"$@\"");
        let answer = Answer::of(shell(&script).arg(ikv_fabric()).args(*options));
        let sentence = answer.last_sentence();
        for words in *says {
            assert!(sentence.contains(words), "{what}: {sentence}");
        }
        before.assert_unchanged(&host.state(), what);
    }
}

#[test]
fn conflicts_are_reported_before_any_change() {
    try_each(CONFLICTS);
}

#[test]
fn foreign_files_are_not_touched() {
    try_each(FILES);
}

#[test]
fn missing_programs_are_reported_with_their_package() {
    if lacks_for_vms() {
        return;
    }
    ensure_image().unwrap();
    try_each(MISSING);
}

#[test]
fn a_full_disk_is_reported_with_its_folder() {
    if lacks_for_vms() {
        return;
    }
    ensure_image().unwrap();
    try_each(FULL);
}

/// Another program fills the disk during the build, which then ends at once and removes its files.
#[test]
fn a_disk_that_fills_up_ends_an_image_build() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("fills");
    let before = host.state();
    let script = r#"
        mkdir "$FOLDER/cache"
        mount -t tmpfs -o size=700m none "$FOLDER/cache"
        mkfifo "$FOLDER/said"
        "$0" image --set "image.dir=$FOLDER/cache" build 2> "$FOLDER/said" & build=$!
        exec < "$FOLDER/said"
        read -r line
        cat /dev/zero > "$FOLDER/cache/others" 2> /dev/null || true
        while read -r more; do line=$more; done
        wait $build && exit 0
        echo "$line" >&2
        ls -A "$FOLDER/cache/image" >&2
        umount "$FOLDER/cache"; rmdir "$FOLDER/cache"; rm "$FOLDER/said"
        exit 1
    "#;
    let mut command = host.netns.command("sh");
    as_from_a_plain_shell(command.env("FOLDER", host.folder()));
    let answer = Answer::of(command.args(["-ec", script]).arg(ikv_fabric()));
    assert_eq!(answer.code, Some(1), "{answer:?}");
    let mut lines = answer.stderr.lines();
    let sentence = lines.next().unwrap();
    for words in [
        "building it takes 600 MiB",
        "/cache/image has ",
        "image.dir",
    ] {
        assert!(sentence.contains(words), "{answer:?}");
    }
    let left: Vec<_> = lines.collect();
    assert_eq!(left, ["build.log", "lock"], "{answer:?}");
    before.assert_unchanged(&host.state(), "the disk filled up");
}

fn lacks_for_vms() -> bool {
    let lacking = ikv_tests::lacks_for_vms();
    if let Some(lacking) = lacking {
        ikv_tests::skip(&format!("needs {lacking}"));
    }
    lacking.is_some()
}

/// All of them, so that the user can mend them together.
#[test]
fn all_obstacles_are_reported_together() {
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
