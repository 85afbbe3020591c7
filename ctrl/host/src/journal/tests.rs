use super::*;
use std::os::unix::fs::PermissionsExt;

fn state_file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    (folder, path)
}

#[test]
fn what_was_begun_is_what_is_loaded() {
    let (folder, path) = state_file();
    let mut journal = Journal::new(&path, true).unwrap();
    assert!(
        Journal::load(&path).unwrap().is_none(),
        "nothing is written before a step"
    );
    journal
        .begin(Undo::Links {
            names: vec!["ikvm1-3-1".into()],
        })
        .unwrap();
    journal.done();
    journal.begin(Undo::Tables).unwrap();
    let loaded = Journal::load(&path).unwrap().unwrap();
    assert_eq!(loaded.state(), journal.state());
    assert_eq!(
        loaded
            .state()
            .entries
            .iter()
            .map(|e| e.done)
            .collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    loaded.remove().unwrap();
    loaded.remove().unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_format_on_disk() {
    let saved = vec![Setting {
        key: "ipv4/ip_forward".into(),
        value: "0".into(),
    }];
    let state = State {
        format: FORMAT,
        identity: Identity {
            pid: 4711,
            started: 86420,
        },
        netns: NetnsId {
            boot: "b".into(),
            inode: 4_026_531_840,
            cookie: Some(1),
        },
        created_folder: true,
        entries: vec![
            Entry {
                done: true,
                undo: Undo::Links {
                    names: vec!["ikhn".into()],
                },
            },
            Entry {
                done: true,
                undo: Undo::Tables,
            },
            Entry {
                done: true,
                undo: Undo::Sysctl {
                    saved,
                    ours: "1".into(),
                },
            },
            Entry {
                done: false,
                undo: Undo::Path {
                    path: "control.sock".into(),
                },
            },
        ],
    };
    insta::assert_snapshot!(serde_json::to_string_pretty(&state).unwrap());
}

#[test]
fn a_journal_that_others_may_write_is_refused() {
    let (_folder, path) = state_file();
    let mut journal = Journal::new(&path, false).unwrap();
    journal.begin(Undo::Tables).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
    assert!(matches!(
        Journal::load(&path),
        Err(JournalError::Untrusted { .. })
    ));
}

#[test]
fn a_link_in_place_of_the_journal_is_refused() {
    let (folder, path) = state_file();
    let real = folder.path().join("elsewhere");
    Journal::new(&real, false)
        .unwrap()
        .begin(Undo::Tables)
        .unwrap();
    std::os::unix::fs::symlink(&real, &path).unwrap();
    assert!(matches!(Journal::load(&path), Err(JournalError::Io { .. })));
}

#[test]
fn rubbish_and_other_formats_say_so() {
    let (_folder, path) = state_file();
    fs::write(&path, "{").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(
        Journal::load(&path),
        Err(JournalError::Malformed { .. })
    ));
    let mut journal = Journal::new(&path, false).unwrap();
    journal.state.format = 99;
    journal.begin(Undo::Tables).unwrap();
    let error = Journal::load(&path).unwrap_err().to_string();
    assert!(error.contains("format 99"), "{error}");
}

#[test]
fn an_identity_marks_its_own_devices_only() {
    let identity = Identity {
        pid: 47,
        started: 5,
    };
    assert!(identity.marks("ikv-fabric 47.5 rack1:u3:1"));
    assert!(identity.marks("ikv-fabric 47.5"));
    assert!(!identity.marks("ikv-fabric 47.55 rack1:u3:1"));
    assert!(!identity.marks(""));
    assert_eq!(identity.group(), 0x6900_002f);
    assert_eq!(Identity::current().unwrap().pid, std::process::id());
}
