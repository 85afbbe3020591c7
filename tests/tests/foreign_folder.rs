//! A socket in a folder where another user could swap names: refused before anything is made.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use ikv_tests::panel::PanelHost;
use ikv_tests::{Answer, have_root};

/// No account has it.
const USER: u32 = 54_321;

fn ask(host: &PanelHost, socket: &Path, words: &[&str]) -> Answer {
    Answer::of(&mut host.command_at(socket, words))
}

#[test]
fn root_makes_nothing_where_another_user_could_swap_it() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("foreign");
    let outer = host.folder();
    let make = |name: &str, owner: Option<u32>, mode: u32| {
        let path = outer.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        chown(&path, owner, owner).unwrap();
        path
    };
    let home = make("home", Some(USER), 0o755);
    let roots = make("home/roots", None, 0o755);
    let shared = make("shared", None, 0o777);
    let own = make("own", None, 0o755);
    symlink(&roots, own.join("link")).unwrap();
    let belongs = format!("/home belongs to user {USER}");
    let cases = [
        (home.clone(), &*belongs),
        (home.join("new"), &belongs),
        (roots.clone(), &belongs),
        (own.join("link"), &belongs),
        (shared.clone(), "others may write to"),
    ];
    let before = host.state();
    for (folder, says) in &cases {
        let socket = folder.join("control.sock");
        for words in [
            &["run", "--switches", "none"][..],
            &["run"],
            &["patch", "tap:fa", "tap:fb"],
            &["clean"],
        ] {
            let answer = ask(&host, &socket, words);
            let refusal = answer.refusal();
            assert!(refusal.contains(says), "{words:?} in {folder:?}: {refusal}");
            assert!(refusal.contains("name another --socket"), "{refusal}");
        }
        let check = ask(&host, &socket, &["check", "--switches", "none"]);
        assert_eq!(check.code, Some(1), "{check:?}");
        assert!(format!("{check:?}").contains(says), "{check:?}");
        for path in [&home, &roots, &shared] {
            let only_ours = |name: &str| name == "roots";
            let mut left = fs::read_dir(path).unwrap().flatten();
            assert!(left.all(|it| only_ours(&it.file_name().to_string_lossy())));
        }
    }
    before.assert_unchanged(&host.state(), "after refusals");

    // With the sticky bit nobody can swap what belongs to root.
    fs::set_permissions(&shared, Permissions::from_mode(0o1777)).unwrap();
    let socket = shared.join("x/control.sock");
    let answer = ask(&host, &socket, &["clean"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let check = ask(&host, &socket, &["check", "--switches", "none"]);
    assert!(!format!("{check:?}").contains("swap"), "{check:?}");
}

#[test]
fn a_vhost_user_socket_is_not_given_away_in_another_users_folder() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("foreign-vhost");
    let home = host.folder().join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(USER), Some(USER)).unwrap();
    let port = format!("vhost-user:{}", home.join("a.sock").display());
    let answer = host.ask(&["patch", &port, "tap:fa"]);
    let says = format!("belongs to user {USER}");
    assert!(answer.refusal().contains(&says), "{answer:?}");
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
}
