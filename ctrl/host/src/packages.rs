//! How the host's distribution installs what is missing: [`install`].
//!
//! Inside the program packages have Debian's names; the table below has the names of others that
//! provide the same programs. Only Debian's were tried.

use crate::os_release::OsRelease;

/// Families of distributions, by the program that installs their packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// Debian and its derivatives, such as Ubuntu: apt.
    Debian,
    /// Fedora and its like: dnf.
    Fedora,
    /// Arch Linux and its derivatives: pacman.
    Arch,
    /// openSUSE and SLES: zypper.
    Suse,
    /// Any other.
    Other,
}

use Distribution::{Arch, Debian, Fedora, Other, Suse};

/// Packages that have another name than Debian's: Debian's, Fedora's, Arch's, openSUSE's.
const NAMES: [[&str; 4]; 7] = [
    ["libpcap0.8", "libpcap", "libpcap", "libpcap1"],
    ["openipmi", "OpenIPMI-lanserv", "openipmi", "OpenIPMI"],
    [
        "openssh-client",
        "openssh-clients",
        "openssh",
        "openssh-clients",
    ],
    [
        "qemu-system-x86",
        "qemu-system-x86-core",
        "qemu-system-x86",
        "qemu-x86",
    ],
    [
        "squashfs-tools",
        "squashfs-tools",
        "squashfs-tools",
        "squashfs",
    ],
    ["uidmap", "shadow-utils", "shadow", "shadow"],
    ["xz-utils", "xz", "xz", "xz"],
];

impl Distribution {
    /// The host's.
    pub fn of_host() -> Self {
        Self::of(&OsRelease::of_host())
    }

    /// The one that an os-release(5) file names, or is like.
    fn of(host: &OsRelease) -> Self {
        let value = |key| host.value(key).unwrap_or_default();
        let family = |name: &str| match name {
            "debian" | "ubuntu" => Some(Debian),
            "fedora" | "rhel" | "centos" => Some(Fedora),
            "arch" => Some(Arch),
            "suse" | "opensuse" | "sles" => Some(Suse),
            _ => None,
        };
        let like = value("ID_LIKE").split_whitespace();
        std::iter::once(value("ID"))
            .chain(like)
            .find_map(family)
            .unwrap_or(Other)
    }

    fn name(self, debians: &str) -> &str {
        let row = NAMES.iter().find(|[name, ..]| *name == debians);
        match (row, self) {
            (Some([_, fedora, _, _]), Fedora) => fedora,
            (Some([_, _, arch, _]), Arch) => arch,
            (Some([.., suse]), Suse) => suse,
            _ => debians,
        }
    }

    /// The command that installs these packages, given by Debian's names, or in words what to install.
    pub fn install(self, packages: &[&str]) -> String {
        let mut names: Vec<_> = packages.iter().map(|package| self.name(package)).collect();
        names.sort_unstable();
        names.dedup();
        let names = names.join(" ");
        match self {
            Debian => format!("apt install {names}"),
            Fedora => format!("dnf install {names}"),
            Arch => format!("pacman -S --needed {names}"),
            Suse => format!("zypper install {names}"),
            Other => format!("install what Debian's packages {names} contain"),
        }
    }
}

/// The command that installs a package of the host anew, given by Debian's name.
pub fn reinstall(package: &str) -> String {
    let host = Distribution::of_host();
    let command = match host {
        Debian => "apt-get install --reinstall",
        Fedora => "dnf reinstall",
        Arch => "pacman -S",
        Suse => "zypper install --force",
        Other => "install anew",
    };
    format!("{command} {}", host.name(package))
}

/// [`Distribution::install`] for the host.
pub fn install(packages: &[&str]) -> String {
    Distribution::of_host().install(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_are_of_the_family_that_they_name() {
        for (os_release, family) in [
            (
                "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n",
                Debian,
            ),
            ("ID=ubuntu\nID_LIKE=debian\n", Debian),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Debian),
            ("ID=fedora\n", Fedora),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Fedora),
            ("ID=manjaro\nID_LIKE=arch\n", Arch),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", Suse),
            ("ID=nixos\n", Other),
            ("", Other),
        ] {
            assert_eq!(Distribution::of(&os_release.into()), family, "{os_release}");
        }
    }

    #[test]
    fn packages_have_each_distributions_names() {
        let wanted = ["xz-utils", "qemu-system-x86", "nftables", "xz-utils"];
        let line = |of: Distribution| of.install(&wanted);
        assert_eq!(
            line(Debian),
            "apt install nftables qemu-system-x86 xz-utils"
        );
        assert_eq!(line(Fedora), "dnf install nftables qemu-system-x86-core xz");
        assert_eq!(line(Arch), "pacman -S --needed nftables qemu-system-x86 xz");
        assert_eq!(line(Suse), "zypper install nftables qemu-x86 xz");
        assert!(line(Other).starts_with("install what Debian's packages nftables "));
    }
}
