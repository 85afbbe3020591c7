//! The recipe as files embedded in this binary, and its hash.

use std::fs;
use std::path::Path;

use crate::fingerprint::Fingerprint;

use super::error::ImageError;

/// The files from which the image is built: path below `images/`, and content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipe(Vec<(&'static str, &'static str)>);

macro_rules! embed {
    ($($path:literal),* $(,)?) => {
        vec![$(($path, include_str!(concat!("../../../../images/", $path)))),*]
    };
}

impl Recipe {
    /// The recipe that is embedded in this binary.
    pub(super) fn embedded() -> Self {
        Self(embed![
            "build.sh",
            "customize.sh",
            "initrd/init",
            "modules.txt",
            "overlay/etc/inittab",
            "overlay/etc/lldpd.d/ikv.conf",
            "overlay/etc/ssh/sshd_config",
            "overlay/usr/lib/ikv/boot",
            "overlay/usr/lib/ikv/console",
            "overlay/usr/lib/ikv/link-local-macs",
            "overlay/usr/lib/ikv/log-filter",
            "overlay/usr/lib/ikv/login",
            "overlay/usr/lib/ikv/routing",
            "overlay/usr/lib/ikv/services",
            "overlay/usr/lib/ikv/stages",
            "overlay/usr/lib/ikv/syslog",
            "overlay/usr/lib/ikv/wake",
            "overlay/usr/sbin/shutdown",
            "packages.txt",
        ])
    }

    /// A hash of 16 hexadecimal digits over all files of the recipe, the suite and the
    /// architecture.
    pub(super) fn hash(&self, suite: &str) -> String {
        let mut digest = Fingerprint::default();
        digest.field(std::env::consts::ARCH.as_bytes());
        digest.field(suite.as_bytes());
        for (path, content) in &self.0 {
            digest.field(path.as_bytes());
            digest.field(content.as_bytes());
        }
        digest.short()
    }

    /// Writes the files into `folder`.
    pub(super) fn write(&self, folder: &Path) -> Result<(), ImageError> {
        for (path, content) in &self.0 {
            let path = folder.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(ImageError::file("cannot create", parent))?;
            }
            fs::write(&path, content).map_err(ImageError::file("cannot write", &path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;

    fn files_below(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                files_below(&entry.path(), &format!("{name}/"), found);
            } else {
                found.insert(name);
            }
        }
    }

    #[test]
    fn every_file_of_the_folder_is_embedded() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../images");
        let mut on_disk = BTreeSet::new();
        files_below(&folder, "", &mut on_disk);
        on_disk.retain(|name| !name.to_ascii_lowercase().ends_with(".md"));
        let embedded = Recipe::embedded();
        let embedded: BTreeSet<_> = embedded.0.iter().map(|(path, _)| (*path).into()).collect();
        assert_eq!(embedded, on_disk);
    }

    #[test]
    fn the_hash_is_stable_and_sees_every_part() {
        let of = |files: &[(&'static str, &'static str)], suite| Recipe(files.to_vec()).hash(suite);
        let base = of(&[("a", "bc"), ("d", "")], "bookworm");
        assert_eq!(base.len(), 16);
        assert_eq!(base, of(&[("a", "bc"), ("d", "")], "bookworm"));
        for other in [
            of(&[("a", "bc"), ("d", "")], "trixie"),
            of(&[("a", "bC"), ("d", "")], "bookworm"),
            of(&[("ab", "c"), ("d", "")], "bookworm"),
            of(&[("a", "bc"), ("", "d")], "bookworm"),
            of(&[("a", "bc")], "bookworm"),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn the_recipe_contains_no_address() {
        for (path, content) in Recipe::embedded().0 {
            assert!(!content.contains("://"), "{path} has an address in it");
        }
    }

    #[test]
    fn it_is_written_with_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        Recipe(vec![("x/y/z", "content")])
            .write(folder.path())
            .unwrap();
        assert_eq!(
            fs::read_to_string(folder.path().join("x/y/z")).unwrap(),
            "content"
        );
    }
}
