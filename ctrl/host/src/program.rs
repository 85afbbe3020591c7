//! Finds the programs that a fabric starts on its host.

use std::path::{Path, PathBuf};

/// Folders of administrators' programs, which the PATH of an ordinary user often lacks.
pub const ADMINISTRATORS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A program and the Debian package that contains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// The file name.
    pub name: &'static str,
    /// The package's name for `apt-get install`.
    pub package: &'static str,
}

impl Program {
    /// The program `name` of `package`.
    pub const fn of(name: &'static str, package: &'static str) -> Self {
        Self { name, package }
    }
}

/// The full path of a program in PATH or in the administrators' folders.
pub fn find(name: &str) -> Option<PathBuf> {
    find_in(std::env::var_os("PATH").as_deref(), name)
}

fn find_in(path: Option<&std::ffi::OsStr>, name: &str) -> Option<PathBuf> {
    let folders: Vec<PathBuf> = path
        .map(|path| std::env::split_paths(path).collect())
        .unwrap_or_default();
    folders
        .into_iter()
        .chain(ADMINISTRATORS.map(PathBuf::from))
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|file| executable(file))
}

fn executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_comes_first_and_relative_folders_are_skipped() {
        assert_eq!(
            find_in(Some("/bin".as_ref()), "sh"),
            Some(PathBuf::from("/bin/sh"))
        );
        assert_eq!(find_in(Some(".:bin".as_ref()), "no-such-program"), None);
        assert_eq!(find_in(None, "no-such-program"), None);
    }
}
