//! The switches' consoles over VNC: access to them, and a login of root.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ikv_tests::panel::PanelHost;
use ikv_tests::patience::{SOON, ensure, until};
use ikv_tests::{Fabric, Site, VncViewer, ensure_image, lacks_for_vms, skip};

/// Time for one emulated VM to boot, and for a login, while other tests run.
const PATIENCE: Duration = Duration::from_secs(120);

const PASSWORD: &str = "--set=ssh.root_password=let me in";

fn lacks() -> bool {
    let lacking = lacks_for_vms();
    if let Some(lacking) = lacking {
        skip(&format!("needs {lacking}"));
    }
    lacking.is_some()
}

fn in_time(stream: &TcpStream) {
    stream.set_read_timeout(Some(SOON)).unwrap();
}

#[test]
fn root_logs_in_over_the_owners_socket() {
    if lacks() {
        return;
    }
    ensure_image().unwrap();
    let options = ["--only", "internet", "--set=vnc.listen=unix", PASSWORD];
    let mut fabric = Fabric::start(Site::new("vnc"), &options);
    fabric.wait_ready(PATIENCE).unwrap();
    let cli = fabric.cli();
    let socket = fabric.run_folder().join("vnc/internet.sock");
    let mode = socket.metadata().unwrap().permissions().mode();
    assert_eq!((mode & 0o777, socket.metadata().unwrap().uid()), (0o600, 0));

    // An empty line brings back the login prompt, whatever an earlier attempt typed: after a name at
    // once, as a password after login's delay of 3 s.
    let mark = ["exec", "internet", "--", "test", "-e", "/run/was-here"];
    until("root to be logged in", PATIENCE, || {
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut viewer = VncViewer::connect(stream, None).map_err(|error| error.to_string())?;
        viewer.type_text("\n").unwrap();
        viewer.answer_after(Duration::from_secs(5), "root\n");
        viewer.answer("let me in\n");
        viewer.answer("touch /run/was-here\n");
        let said = cli.run(&mark);
        ensure(said.code == Some(0), || format!("{said:?}"))
    });

    // A switch that is off has no screen; once it is on again it has one.
    cli.ok(&["power", "internet", "off"]);
    let closed = UnixStream::connect(&socket).unwrap();
    assert!(VncViewer::connect(closed, None).is_err());
    cli.ok(&["power", "internet", "on"]);
    until(
        "the screen of a switch that was started again",
        PATIENCE,
        || {
            let stream = UnixStream::connect(&socket).unwrap();
            VncViewer::connect(stream, None).map_err(|error| error.to_string())
        },
    );
}

#[test]
fn a_tcp_display_asks_for_the_password() {
    if lacks() {
        return;
    }
    ensure_image().unwrap();
    let options = [
        "--only",
        "spine1",
        "--set=vnc.listen=tcp",
        "--set=vnc.password=8letters",
        PASSWORD,
    ];
    let mut fabric = Fabric::start(Site::new("vncport"), &options);
    fabric.wait_ready(PATIENCE).unwrap();
    assert!(fabric.stderr().contains("VNC: 127.0.0.1:81 spine1"));
    let connect = |password| {
        let stream = fabric
            .site
            .host
            .enter(|| TcpStream::connect("127.0.0.1:5981"));
        let stream = stream.unwrap();
        in_time(&stream);
        VncViewer::connect(stream, Some(password))
    };
    let refused = connect("8lettera").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    connect("8letters").unwrap().lit_pixels().unwrap();
    let elsewhere = fabric
        .site
        .host
        .enter(|| TcpStream::connect("10.99.0.2:5981"));
    assert!(elsewhere.is_err(), "only on 127.0.0.1");
}

#[test]
fn invalid_settings_are_refused_before_any_change() {
    if lacks() {
        return;
    }
    ensure_image().unwrap();
    let host = PanelHost::new("vncbad");
    let before = host.state();
    let tcp = ["--set=vnc.listen=tcp", "--set=vnc.password=8letters"];
    for (sets, says) in [
        (
            &["--set=vnc.listen=unix"][..],
            "--set vnc.listen: \"unix\" would show a login that no user can pass; set ssh.root_password too",
        ),
        (
            &["--set=vnc.listen=tcp", PASSWORD],
            "--set vnc.listen: \"tcp\" is open to every user of the host; set vnc.password too",
        ),
        (
            &["--set=vnc.password=nineletters"],
            "--set vnc.password: VNC takes at most 8 letters, digits and signs; choose others",
        ),
    ] {
        let answer = host.ask(&[&["run"], sets].concat());
        assert_eq!(answer.refusal(), says);
    }
    let _taken = host
        .netns
        .enter(|| TcpListener::bind("127.0.0.1:5980"))
        .unwrap();
    let answer = host.ask(&[&["run", "--only", "internet", PASSWORD][..], &tcp].concat());
    let sentence = answer.stderr.lines().last().unwrap();
    assert!(
        sentence.contains(
            "the VNC display of internet cannot be at 127.0.0.1:5980: Address already in use"
        ),
        "{answer:?}"
    );
    before.assert_unchanged(&host.state(), "it did not come up");
}
