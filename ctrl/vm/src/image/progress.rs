//! The progress of a build, read from its output.

use std::fmt;

/// The stage of a build, and how much of the whole build is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// What the build is doing, such as "installing packages".
    pub stage: &'static str,
    /// The share of the whole build that is done, 0..=1. It never decreases.
    pub fraction: f64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:.0} %", self.stage, self.fraction * 100.0)
    }
}

/// A stage: the beginning of the line that opens it, its name, what to try if it fails, and the
/// share of the whole build that is done when it begins.
struct Stage {
    opens: &'static str,
    name: &'static str,
    hint: &'static str,
    from: f64,
}

const APT: &str = "is the network there? `apt-get update` must succeed on this host";
const MMDEBSTRAP: &str = "if the package archive has just changed, try again";
const RECIPE: &str = "the log says what is missing";

const fn stage(opens: &'static str, name: &'static str, hint: &'static str, from: f64) -> Stage {
    Stage {
        opens,
        name,
        hint,
        from,
    }
}

/// All stages in order. Their shares were measured in builds that took 22 to 33 s.
const STAGES: &[Stage] = &[
    stage("ikv-stage: packages", "preparing", MMDEBSTRAP, 0.0),
    stage(
        "I: running apt-get update",
        "reading the package lists",
        APT,
        0.05,
    ),
    stage("I: downloading packages", "downloading packages", APT, 0.25),
    stage(
        "I: extracting archives",
        "unpacking the base",
        MMDEBSTRAP,
        0.3,
    ),
    stage(
        "I: installing essential",
        "installing the base",
        MMDEBSTRAP,
        0.42,
    ),
    stage("I: installing remaining", "installing packages", APT, 0.55),
    stage("ikv-stage: kernel", "unpacking the kernel", APT, 0.84),
    stage("ikv-stage: initrd", "making the initrd", RECIPE, 0.9),
    stage(
        "ikv-stage: root",
        "preparing the root file system",
        RECIPE,
        0.91,
    ),
    stage("ikv-stage: squashfs", "compressing", RECIPE, 0.93),
    stage("I: cleaning package lists", "cleaning up", MMDEBSTRAP, 0.99),
];

/// Reads the progress from a build's output, line by line.
#[derive(Debug, Default)]
pub(super) struct Reader {
    stage: usize,
    /// The share of the stage that is done, 0..=1.
    within: f64,
    /// How many packages the stage installs.
    packages: u32,
    /// How many lines dpkg has printed about them: two for each package.
    steps: u32,
}

impl Reader {
    /// Processes the next line. Returns the progress if it has changed.
    pub(super) fn line(&mut self, line: &str) -> Option<Progress> {
        let ahead = &STAGES[self.stage + 1..];
        if let Some(skip) = ahead.iter().position(|stage| line.starts_with(stage.opens)) {
            *self = Self {
                stage: self.stage + 1 + skip,
                ..Self::default()
            };
            return Some(self.progress());
        }
        let within = self.within(line)?.clamp(0.0, 1.0);
        if within <= self.within {
            return None;
        }
        self.within = within;
        Some(self.progress())
    }

    /// The name of the present stage.
    pub(super) fn stage(&self) -> &'static str {
        STAGES[self.stage].name
    }

    /// The likely remedy if the build fails in this stage.
    pub(super) fn hint(&self) -> &'static str {
        STAGES[self.stage].hint
    }

    pub(super) fn progress(&self) -> Progress {
        let from = STAGES[self.stage].from;
        let to = STAGES.get(self.stage + 1).map_or(1.0, |next| next.from);
        Progress {
            stage: self.stage(),
            fraction: from + (to - from) * self.within,
        }
    }

    /// The share of the stage that is done, if the line shows it: apt prints the number of
    /// packages, dpkg names each package twice, and mksquashfs prints percentages.
    fn within(&mut self, line: &str) -> Option<f64> {
        if let Some((_, rest)) = line.split_once(" upgraded, ") {
            self.packages = rest.split_once(" newly installed")?.0.parse().ok()?;
            return None;
        }
        if line.starts_with("Unpacking ") || line.starts_with("Setting up ") {
            self.steps += 1;
            return (self.packages > 0)
                .then(|| f64::from(self.steps) / f64::from(2 * self.packages));
        }
        percent(line)
    }
}

/// The percentage in mksquashfs' bar: `[=====/ ] 120/480  25%`.
fn percent(line: &str) -> Option<f64> {
    let number = line.strip_prefix('[')?.strip_suffix('%')?;
    let (_, number) = number.rsplit_once(char::is_whitespace)?;
    Some(number.parse::<f64>().ok()? / 100.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The output of a real build, shortened.
    const OUTPUT: &str = "\
ikv-stage: packages
I: automatically chosen mode: root
I: running apt-get update...
Get:1 http://archive.example/debian bookworm InRelease [151 kB]
I: downloading packages with apt...
0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
I: extracting archives...
I: installing essential packages...
I: installing remaining packages inside the chroot...
0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
Unpacking frr (8.4.4-1.1~deb12u2) ...
Unpacking jq (1.6-2.1) ...
Setting up jq (1.6-2.1) ...
Setting up frr (8.4.4-1.1~deb12u2) ...
ikv-stage: kernel
ikv-stage: initrd
ikv-stage: root
ikv-stage: squashfs
[====|      ]  100/400  25%
[===========]  400/400 100%
I: cleaning package lists and apt cache...
";

    #[test]
    fn a_real_build() {
        let mut reader = Reader::default();
        let said: Vec<_> = OUTPUT
            .lines()
            .filter_map(|line| reader.line(line))
            .map(|progress| progress.to_string())
            .collect();
        insta::assert_snapshot!(said.join("\n"), @r"
        reading the package lists, 5 %
        downloading packages, 25 %
        unpacking the base, 30 %
        installing the base, 42 %
        installing packages, 55 %
        installing packages, 62 %
        installing packages, 70 %
        installing packages, 77 %
        installing packages, 84 %
        unpacking the kernel, 84 %
        making the initrd, 90 %
        preparing the root file system, 91 %
        compressing, 93 %
        compressing, 94 %
        compressing, 99 %
        cleaning up, 99 %
        ");
    }

    #[test]
    fn shares_rise() {
        assert!(STAGES.is_sorted_by(|a, b| a.from < b.from));
    }

    proptest! {
        #[test]
        fn it_never_falls_nor_leaves_its_range(lines in prop::collection::vec(
            prop_oneof![
                any::<prop::sample::Index>().prop_map(|i| {
                    i.get(&OUTPUT.lines().collect::<Vec<_>>()).to_string()
                }),
                ".{0,40}",
                "\\[=* +[0-9]{1,30}%",
            ],
            0..60,
        )) {
            let mut reader = Reader::default();
            let mut last = 0.0;
            for line in lines {
                if let Some(progress) = reader.line(&line) {
                    prop_assert!((last..=1.0).contains(&progress.fraction));
                    last = progress.fraction;
                }
            }
        }
    }
}
