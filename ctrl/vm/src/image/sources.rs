//! Selects those of the host's apt sources from which the image is built: the ones of the Debian
//! archive, in both of apt's formats (sources.list(5)). Third parties' sources are left out: their
//! packages are meant for the host and not for a switch, and each could break the build.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::error::ImageError;
use host::os_release::OsRelease;

const APT: &str = "/etc/apt";
const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One apt source: a `deb822` stanza or a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Source {
    binary: bool,
    enabled: bool,
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    /// The remaining fields, by deb822's names in lower case. A value may have several lines.
    options: Vec<(String, String)>,
}

/// The archive from the configuration, used instead of the host's sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mirror {
    pub(super) uri: String,
    pub(super) security: Option<String>,
}

/// The code name of the host's Debian release.
pub(super) fn host_release() -> Result<String, ImageError> {
    release(&OsRelease::of_host())
}

/// The code name in the os-release(5) of Debian itself. Derivatives have another ID and other
/// packages.
fn release(host: &OsRelease) -> Result<String, ImageError> {
    match (host.value("ID"), host.value("VERSION_CODENAME")) {
        (Some("debian"), Some(codename)) => Ok(codename.to_owned()),
        _ => Err(ImageError::NotDebian {
            host: host.value("PRETTY_NAME").unwrap_or("unknown").to_owned(),
        }),
    }
}

/// The sources for mmdebstrap as a deb822 file.
pub(super) fn for_build(suite: &str, mirror: Option<&Mirror>) -> Result<String, ImageError> {
    if let Some(mirror) = mirror {
        let keyring = Path::new(DEBIAN_KEYRING).is_file();
        return Ok(of_mirror(suite, mirror, keyring));
    }
    let apt = Path::new(APT);
    let chosen = select(read(apt), suite);
    // The updates alone do not contain a whole system.
    if !chosen.iter().any(|source| source.has_release(suite)) {
        return Err(ImageError::NoSources {
            folder: apt.into(),
            suite: suite.into(),
        });
    }
    Ok(chosen.iter().map(Source::stanza).collect())
}

fn of_mirror(suite: &str, mirror: &Mirror, keyring: bool) -> String {
    let source = |uri: &str, suites: &[String]| Source {
        binary: true,
        enabled: true,
        uris: vec![uri.into()],
        suites: suites.into(),
        components: vec!["main".into()],
        options: Vec::from_iter(keyring.then(|| ("signed-by".into(), DEBIAN_KEYRING.into()))),
    };
    let mut text = source(&mirror.uri, &[suite.into(), format!("{suite}-updates")]).stanza();
    if let Some(security) = &mirror.security {
        text += &source(security, &[format!("{suite}-security")]).stanza();
    }
    text
}

/// All sources in the folder, in apt's order. Files that cannot be read are skipped.
fn read(apt: &Path) -> Vec<Source> {
    let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let mut sources = one_line(&text(&apt.join("sources.list")));
    let mut parts: Vec<_> = fs::read_dir(apt.join("sources.list.d"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    parts.sort();
    for part in parts {
        match part.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(one_line(&text(&part))),
            Some("sources") => sources.extend(deb822(&text(&part))),
            _ => {}
        }
    }
    sources
}

/// Parses lines of the form `deb [option=value …] uri suite component…`.
fn one_line(text: &str) -> Vec<Source> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next()?.trim();
            let (kind, rest) = line.split_once(char::is_whitespace)?;
            let rest = rest.trim_start();
            let (options, rest) = match rest.strip_prefix('[') {
                Some(rest) => rest.split_once(']')?,
                None => ("", rest),
            };
            let mut words = rest.split_whitespace().map(str::to_owned);
            Some(Source {
                binary: kind == "deb",
                enabled: true,
                uris: vec![words.next()?],
                suites: vec![words.next()?],
                components: words.collect(),
                options: options
                    .split_whitespace()
                    .filter_map(|option| option.split_once('='))
                    .map(|(key, value)| (key.to_lowercase(), value.replace(',', " ")))
                    .collect(),
            })
        })
        .collect()
}

/// Parses stanzas of `Key: value` lines. A line that begins with a blank continues the previous
/// value.
fn deb822(text: &str) -> Vec<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    let mut sources = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .chain([""])
    {
        if line.trim().is_empty() {
            if !fields.is_empty() {
                sources.push(Source::from_fields(std::mem::take(&mut fields)));
            }
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((key, value)) = line.split_once(':') {
            fields.push((key.trim().to_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

impl Source {
    fn from_fields(fields: Vec<(String, String)>) -> Self {
        let mut source = Self {
            enabled: true,
            ..Self::default()
        };
        for (key, value) in fields {
            let words = || value.split_whitespace().map(str::to_owned).collect();
            match key.as_str() {
                "types" => source.binary = value.split_whitespace().any(|kind| kind == "deb"),
                "uris" => source.uris = words(),
                "suites" => source.suites = words(),
                "components" => source.components = words(),
                // apt accepts all of these as false.
                "enabled" => {
                    source.enabled = !["no", "false", "without", "off", "disable", "0"]
                        .contains(&value.as_str());
                }
                _ => source.options.push((key, value)),
            }
        }
        source
    }

    fn signed_by(&self) -> Option<&str> {
        let mut options = self.options.iter();
        options
            .find(|(key, _)| key == "signed-by")
            .map(|(_, value)| value.as_str())
    }

    /// Whether this is the Debian archive. Third parties sign with their own keys, so a named key
    /// decides. Without one the path decides: every mirror of the archive keeps the names of its
    /// folders.
    fn is_debian(&self) -> bool {
        match self.signed_by() {
            Some(key) => key.contains("debian-archive"),
            None => self.uris.iter().all(|uri| {
                let path = uri.split_once("://").map_or(uri.as_str(), |(_, rest)| rest);
                path.split('/')
                    .skip(1)
                    .any(|part| part.starts_with("debian"))
            }),
        }
    }

    fn has_release(&self, suite: &str) -> bool {
        self.suites.iter().any(|name| is_release(name, suite))
    }

    /// The source as a deb822 stanza, which can express everything that either format can.
    fn stanza(&self) -> String {
        let mut text = format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\n",
            self.uris.join(" "),
            self.suites.join(" "),
            self.components.join(" ")
        );
        for (key, value) in &self.options {
            // Writing to a String cannot fail.
            _ = writeln!(text, "{key}: {value}");
        }
        text + "\n"
    }
}

/// Whether a suite is the release itself, by its code name or by a name such as `stable`.
fn is_release(name: &str, suite: &str) -> bool {
    name == suite || ["stable", "testing", "unstable", "sid"].contains(&name)
}

/// Selects Debian's sources for this release (with updates, without backports), and of them only
/// `main`, which contains all packages of the image.
fn select(sources: Vec<Source>, suite: &str) -> Vec<Source> {
    let wanted = |name: &String| {
        let base = name.strip_suffix("-updates");
        let base = base.or_else(|| name.strip_suffix("-security"));
        is_release(base.unwrap_or(name), suite)
    };
    sources
        .into_iter()
        .filter(|source| source.binary && source.enabled && source.is_debian())
        .filter_map(|mut source| {
            source.suites.retain(wanted);
            source.components.retain(|name| name == "main");
            source.uris.retain(|uri| !uri.starts_with("cdrom:"));
            // The image is built only for the host's architecture.
            source
                .options
                .retain(|(key, _)| key != "arch" && key != "architectures");
            let complete = !source.suites.is_empty()
                && !source.components.is_empty()
                && !source.uris.is_empty();
            complete.then_some(source)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb deb-src
# a comment between two fields
URIs: http://archive.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://third.example/debian
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abcd
 -----END PGP PUBLIC KEY BLOCK-----


Types: deb
URIs: http://archive.example/debian-security
Suites: bookworm-security
Components: main
";

    const ONE_LINE: &str = "\
# deb http://comment.example/debian bookworm main
deb [ arch=amd64,i386 Signed-By=/k/debian-archive-keyring.gpg ] http://a.example/x bookworm main non-free # end
deb-src http://a.example/debian bookworm main
deb http://b.example/debian-security stable-security main
deb cdrom:[Debian 12]/ bookworm main
deb https://apt.vendor.example bookworm main
deb [signed-by=/etc/apt/keyrings/vendor.gpg] https://vendor.example/debian bookworm main
deb http://c.example/debian trixie main
deb http://d.example/debian ./
";

    fn chosen(sources: Vec<Source>) -> String {
        let chosen = select(sources, "bookworm");
        chosen.iter().map(Source::stanza).collect()
    }

    #[test]
    fn debian_stays_of_deb822() {
        insta::assert_snapshot!(chosen(deb822(DEB822)), @r"
        Types: deb
        URIs: http://archive.example/debian
        Suites: bookworm bookworm-updates
        Components: main
        signed-by: /usr/share/keyrings/debian-archive-keyring.gpg

        Types: deb
        URIs: http://archive.example/debian-security
        Suites: bookworm-security
        Components: main
        ");
    }

    #[test]
    fn debian_stays_of_one_line_sources() {
        insta::assert_snapshot!(chosen(one_line(ONE_LINE)), @r"
        Types: deb
        URIs: http://a.example/x
        Suites: bookworm
        Components: main
        signed-by: /k/debian-archive-keyring.gpg

        Types: deb
        URIs: http://b.example/debian-security
        Suites: stable-security
        Components: main
        ");
    }

    #[test]
    fn a_stanza_is_read_back_as_it_was() {
        for source in deb822(DEB822) {
            let again = deb822(&source.stanza());
            let source = Source {
                enabled: true,
                ..source
            };
            assert_eq!(again, [source]);
        }
    }

    #[test]
    fn both_formats_are_read_from_a_folder_in_order() {
        let apt = tempfile::tempdir().unwrap();
        let parts = apt.path().join("sources.list.d");
        fs::create_dir(&parts).unwrap();
        fs::write(
            apt.path().join("sources.list"),
            "deb http://1/debian bookworm main\n",
        )
        .unwrap();
        fs::write(parts.join("b.list"), "deb http://3/debian bookworm main\n").unwrap();
        fs::write(
            parts.join("a.sources"),
            "Types: deb\nURIs: http://2/debian\nSuites: bookworm\nComponents: main\n",
        )
        .unwrap();
        fs::write(
            parts.join("c.list.save"),
            "deb http://4/debian bookworm main\n",
        )
        .unwrap();
        let uris: Vec<_> = read(apt.path()).into_iter().flat_map(|s| s.uris).collect();
        assert_eq!(
            uris,
            ["http://1/debian", "http://2/debian", "http://3/debian"]
        );
    }

    #[test]
    fn a_configured_mirror_replaces_all_sources() {
        let mirror = Mirror {
            uri: "http://m.example/debian".into(),
            security: Some("http://m.example/security".into()),
        };
        insta::assert_snapshot!(of_mirror("trixie", &mirror, true), @r"
        Types: deb
        URIs: http://m.example/debian
        Suites: trixie trixie-updates
        Components: main
        signed-by: /usr/share/keyrings/debian-archive-keyring.gpg

        Types: deb
        URIs: http://m.example/security
        Suites: trixie-security
        Components: main
        signed-by: /usr/share/keyrings/debian-archive-keyring.gpg
        ");
    }

    #[test]
    fn only_debian_itself_names_the_release() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(release(&debian.into()).unwrap(), "bookworm");
        let other =
            "PRETTY_NAME=\"Other 24.04\"\nID=other\nID_LIKE=debian\nVERSION_CODENAME=noble\n";
        assert_eq!(
            release(&other.into()).unwrap_err().to_string(),
            "the switch image is Debian, and this host is Other 24.04: set image.release \
             (such as \"trixie\") and image.mirror in the configuration, or take an image that a Debian host \
             has built: `ikv-fabric image export FILE` there, `ikv-fabric image --set \
             image.release=trixie import FILE` here"
        );
    }
}
