//! The program under test, built from the present sources.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::run;

/// The path of `ikv-fabric`: `$IKV_FABRIC` if set, otherwise the program beside the tests, which is
/// built again if a source has changed.
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
        assert!(binary.is_file(), "cargo has not built {}", binary.display());
        binary
    })
}

/// A copy of the program in `folder` that every user may execute: the build's own may be closed to
/// others.
///
/// # Panics
/// When the folder cannot be written to.
pub fn executable_by_all(folder: &Path) -> PathBuf {
    let copy = folder.join("ikv-fabric");
    if !copy.exists() && std::fs::hard_link(ikv_fabric(), &copy).is_err() {
        std::fs::copy(ikv_fabric(), &copy).expect("a copy of the program");
    }
    copy
}

/// `target/PROFILE`, two levels above this test's program.
fn build_folder() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    test.ancestors()
        .nth(2)
        .expect("tests are in target/PROFILE/deps")
        .to_owned()
}

/// Whether the program is newer than its sources. `cargo test --workspace` has built it, and cargo
/// would build the dependencies again with fewer features: so it runs only if a source is newer.
fn is_fresh(binary: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|meta| meta.modified());
    let (Ok(built), Ok(list)) = (
        changed(binary),
        std::fs::read_to_string(binary.with_extension("d")),
    ) else {
        return false;
    };
    // cargo's list is `PROGRAM: SOURCE SOURCE …`, with blanks in names escaped.
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
