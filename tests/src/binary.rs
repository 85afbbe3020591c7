//! The program under test, built from the sources as they are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::run;

/// The `ikv-fabric` of this build: the one that `$IKV_FABRIC` names, else the one beside the
/// tests, made anew if its sources have changed.
///
/// # Panics
/// When it cannot be built.
pub fn ikv_fabric() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(named) = std::env::var_os("IKV_FABRIC") {
            return named.into();
        }
        let folder = build_folder();
        let binary = folder.join("ikv-fabric");
        if !is_fresh(&binary) {
            build(&folder);
        }
        assert!(binary.is_file(), "cargo has not made {}", binary.display());
        binary
    })
}

/// `target/debug`: two above this test's own program.
fn build_folder() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    test.ancestors()
        .nth(2)
        .expect("tests are in target/PROFILE/deps")
        .to_owned()
}

/// `cargo test --workspace` has built it. Asking cargo again would build its dependencies once
/// more, with fewer features; so it is only asked when a source is younger than the program.
fn is_fresh(binary: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|meta| meta.modified());
    let (Ok(built), Ok(list)) = (
        changed(binary),
        std::fs::read_to_string(binary.with_extension("d")),
    ) else {
        return false;
    };
    // cargo's list: `PROGRAM: SOURCE SOURCE …`, blanks in names escaped.
    let Some((_, sources)) = list.split_once(": ") else {
        return false;
    };
    let older = |source: &str| {
        let source = source.replace("\\\0", " ");
        changed(Path::new(source.trim())).is_ok_and(|changed: SystemTime| changed < built)
    };
    sources.replace("\\ ", "\\\0").split(' ').all(older)
}

fn build(folder: &Path) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--locked", "--package", "ikv-fabric"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if folder.ends_with("release") {
        command.arg("--release");
    }
    run(&mut command);
}
