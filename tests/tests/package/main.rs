//! The Debian package: what is in it, what Debian's own checks say of it, and that it works where it is
//! installed. `completion` has the shells, `installed` the roots of Debian.
#![allow(clippy::unwrap_used)]

mod completion;
mod installed;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use ikv_tests::panel::PanelHost;
use ikv_tests::patience::output_within;
use ikv_tests::{Answer, have_root, ikv_fabric, repository, run, skip};

/// Time to strip and pack a program with all its debug information, and for lintian.
const PACK: Duration = Duration::from_secs(120);

/// The package and its content, unpacked.
struct Package {
    deb: PathBuf,
    root: PathBuf,
}

/// The package of the program under test, made once; `None` says SKIP.
fn package() -> Option<&'static Package> {
    static PACKAGE: OnceLock<Package> = OnceLock::new();
    if lack(&[("dpkg-shlibdeps", "dpkg-dev"), ("strip", "binutils")]) {
        return None;
    }
    Some(PACKAGE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("package");
        let _ = std::fs::remove_dir_all(&folder);
        let mut pack = Command::new(repository().join("packaging/deb.sh"));
        pack.arg(ikv_fabric()).arg(&folder).env("LEVEL", "0");
        let output = output_within(&mut pack, PACK);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let deb = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end());
        let root = folder.join("root");
        run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&root));
        Package { deb, root }
    }))
}

impl Package {
    fn field(&self, name: &str) -> String {
        let mut command = Command::new("dpkg-deb");
        let output = run(command.arg("-f").arg(&self.deb).arg(name));
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path))
            .unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn pages(&self) -> Vec<PathBuf> {
        let folder = std::fs::read_dir(self.root.join("usr/share/man/man1")).unwrap();
        let mut pages: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
        pages.sort();
        pages
    }
}

/// Whether one of these programs is missing; then it says SKIP with the package that has it.
fn lack(programs: &[(&str, &str)]) -> bool {
    let found = |program| host::program::find(program).is_some();
    let missing = programs.iter().find(|(program, _)| !found(program));
    if let Some((program, package)) = missing {
        skip(&format!("needs {program} (apt-get install {package})"));
    }
    missing.is_some()
}

fn of_program(words: &[&str]) -> String {
    let output = run(Command::new(ikv_fabric()).args(words));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn everything_is_where_debian_expects_it() {
    let Some(package) = package() else { return };
    for (path, mode) in [
        ("usr/bin/ikv-fabric", 0o755),
        ("usr/lib/systemd/system/ikv-fabric.service", 0o644),
        ("etc/ikv-fabric/fabric.toml", 0o640),
        ("usr/share/bash-completion/completions/ikv-fabric", 0o644),
        ("usr/share/zsh/vendor-completions/_ikv-fabric", 0o644),
        ("usr/share/fish/vendor_completions.d/ikv-fabric.fish", 0o644),
        ("usr/share/doc/ikv-fabric/copyright", 0o644),
        ("usr/share/doc/ikv-fabric/changelog.gz", 0o644),
        ("usr/share/doc/ikv-fabric/README.md.gz", 0o644),
    ] {
        let found = package
            .root
            .join(path)
            .metadata()
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(found.permissions().mode() & 0o7777, mode, "{path}");
    }
    let names = of_program(&["man-page"]);
    let wanted: BTreeSet<_> = names.lines().map(|name| format!("{name}.1.gz")).collect();
    let pages = package.pages().into_iter();
    let found = pages.map(|page| page.file_name().unwrap().to_str().unwrap().to_owned());
    assert_eq!(found.collect::<BTreeSet<_>>(), wanted);
}

#[test]
fn its_fields_say_what_it_needs() {
    let Some(package) = package() else { return };
    assert_eq!(package.field("Package"), "ikv-fabric");
    let version = of_program(&["--version"]);
    assert_eq!(
        format!("ikv-fabric {}\n", package.field("Version")),
        version
    );
    let depends = package.field("Depends");
    let depends: BTreeSet<_> = depends
        .split(", ")
        .map(|one| one.split_once(' ').map_or(one, |(name, _)| name))
        .collect();
    // The first two are libraries, the others what `setup` installs.
    for name in [
        "libc6",
        "libpcap0.8",
        "nftables",
        "qemu-system-x86",
        "mmdebstrap",
        "passt",
        "openssh-client",
    ] {
        // Debian 13 gave some libraries another name.
        let renamed = format!("{name}t64");
        assert!(
            depends.contains(name) || depends.contains(&*renamed),
            "{name}: {depends:?}"
        );
    }
    for name in of_program(&["setup", "--list"]).lines() {
        assert!(
            name == "util-linux" || depends.contains(name),
            "{name}: {depends:?}"
        );
    }
    let mut conffiles = Command::new("dpkg-deb");
    let conffiles = run(conffiles.arg("-I").arg(&package.deb).arg("conffiles")).stdout;
    assert_eq!(
        String::from_utf8_lossy(&conffiles),
        "/etc/ikv-fabric/fabric.toml\n"
    );
}

#[test]
fn its_configuration_is_every_default_as_a_comment() {
    let Some(package) = package() else { return };
    let file = package.root.join("etc/ikv-fabric/fabric.toml");
    let text = package.read("etc/ikv-fabric/fabric.toml");
    let keys = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with(['#', '[']));
    assert_eq!(keys.collect::<Vec<_>>(), [""; 0]);
    let topology = |words: &[&str]| of_program(&[&["--json", "topology"], words].concat());
    assert_eq!(topology(&["-c", file.to_str().unwrap()]), topology(&[]));
    // With the marks in front of the keys taken away, it is the example again.
    let example = of_program(&["config", "example"]);
    let (_, body) = text.split_once("#\n").unwrap();
    for (shown, line) in body.lines().zip(example.lines()) {
        assert!(
            shown == line || shown.strip_prefix('#') == Some(line),
            "{shown:?} for {line:?}"
        );
    }
    assert_eq!(body.lines().count(), example.lines().count());
}

#[test]
fn lintian_finds_nothing() {
    let Some(package) = package() else { return };
    if lack(&[("lintian", "lintian")]) {
        return;
    }
    let mut lintian = Command::new("lintian");
    lintian
        .args(["--fail-on", "error,warning"])
        .arg(&package.deb);
    let output = output_within(&mut lintian, PACK);
    let found = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && found.is_empty(), "{found}");
}

#[test]
fn man_finds_its_pages_and_mandoc_no_mistake_in_them() {
    let Some(package) = package() else { return };
    if lack(&[("mandoc", "mandoc"), ("man", "man-db")]) {
        return;
    }
    let manual = package.root.join("usr/share/man");
    for page in ["ikv-fabric", "ikv-fabric-run", "ikv-fabric-recorder-dump"] {
        let found = run(Command::new("man")
            .arg("-M")
            .arg(&manual)
            .args(["-w", page]));
        assert!(String::from_utf8_lossy(&found.stdout).contains(page));
    }
    // mandoc reads one packed page, but not several.
    let plain = tempfile::tempdir().unwrap();
    let mut lint = Command::new("mandoc");
    lint.args(["-T", "lint", "-W", "error"]);
    for page in package.pages() {
        let text = run(Command::new("gzip").arg("-dc").arg(&page)).stdout;
        let path = plain.path().join(page.file_stem().unwrap());
        std::fs::write(&path, text).unwrap();
        lint.arg(path);
    }
    let said = Answer::of(&mut lint);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), ""), "{said:?}");
}

/// The unit, but with the program and its manual where the package was unpacked.
fn verify_unit(package: &Package) -> Answer {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("ikv-fabric.service");
    let program = package.root.join("usr/bin/ikv-fabric");
    let text = package.read("usr/lib/systemd/system/ikv-fabric.service");
    assert!(
        text.contains("ExecStart=/usr/bin/ikv-fabric run --config /etc/ikv-fabric/fabric.toml\n")
    );
    let text = text.replace(
        "ExecStart=/usr/bin/ikv-fabric",
        &format!("ExecStart={}", program.display()),
    );
    std::fs::write(&unit, text).unwrap();
    Answer::of(
        Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&unit),
    )
}

#[test]
fn systemd_understands_its_unit() {
    let Some(package) = package() else { return };
    if lack(&[("systemd-analyze", "systemd")]) {
        return;
    }
    let said = verify_unit(package);
    // It also says what it thinks of this machine's other units.
    let ours: Vec<_> = said
        .stderr
        .lines()
        .filter(|line| line.contains("ikv-fabric"))
        .collect();
    assert!(ours.is_empty() && said.code == Some(0), "{said:?}");
}

/// The words after `key=`, of all lines that set it.
fn setting<'t>(unit: &'t str, key: &str) -> impl Iterator<Item = &'t str> {
    let key = format!("{key}=");
    let lines = unit
        .lines()
        .filter_map(move |line| line.strip_prefix(&*key));
    lines.flat_map(|value| value.trim_start_matches('~').split(' '))
}

/// Makes the file system $1 read-only for the rest of the arguments, but for the folder $2.
const READ_ONLY: &str = r#"
set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro /
shift
exec "$@"
"#;

/// systemd is no part of the tests: setpriv and mount do what they can of what the unit asks for.
#[test]
fn a_fabric_works_with_what_its_unit_leaves_it() {
    let Some(package) = package() else { return };
    if !have_root() {
        return;
    }
    let unit = package.read("usr/lib/systemd/system/ikv-fabric.service");
    assert_eq!(setting(&unit, "NoNewPrivileges").next(), Some("yes"));
    assert_eq!(setting(&unit, "ProtectSystem").next(), Some("strict"));
    let taken: Vec<_> = setting(&unit, "CapabilityBoundingSet")
        .map(|name| format!("-{}", name.strip_prefix("CAP_").unwrap().to_lowercase()))
        .collect();
    assert!(taken.len() > 15, "{taken:?}");
    let host = PanelHost::new("unit");
    let config = package.root.join("etc/ikv-fabric/fabric.toml");
    let mut command = host.netns.command("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            READ_ONLY,
            "sh",
        ])
        .arg(host.folder())
        .args([
            "setpriv",
            "--no-new-privs",
            "--bounding-set",
            &taken.join(","),
        ])
        .arg(ikv_fabric())
        .arg("--socket")
        .arg(host.socket())
        .args(["run", "--switches", "none", "--config"])
        .arg(config);
    let before = host.state();
    let mut fabric = host.spawn(command);
    fabric.wait_ready();
    assert_eq!(host.ask(&["cable", "spine1:2", "down"]).code, Some(0));
    fabric.end();
    before.assert_unchanged(&host.state(), "a fabric ran with what its unit leaves it");
}
