//! `ikv-fabric man-page`: the manual, from the same words as `--help`.

use std::io::Write;

use anyhow::Context as _;
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::print;
use crate::Cli;

/// Prints a page of the manual for man(1), or the names of all pages.
#[derive(Debug, Args)]
pub(crate) struct ManPageArgs {
    /// The page, such as ikv-fabric-run [default: list all].
    page: Option<String>,
}

/// # Errors
/// When there is no such page, or standard output fails.
pub(crate) fn run(args: &ManPageArgs) -> anyhow::Result<()> {
    let pages = pages();
    let Some(name) = &args.page else {
        let names: Vec<_> = pages
            .iter()
            .map(|page| format!("{}\n", name_of(page)))
            .collect();
        return Ok(print(&names.concat())?);
    };
    let page = pages.iter().find(|page| name_of(page) == *name);
    let page = page.with_context(|| {
        format!("{name} is not a page of the manual; `ikv-fabric man-page` lists all pages")
    })?;
    Ok(print(&String::from_utf8(rendered(page, &pages)?)?)?)
}

/// The program and each command that `--help` shows, with those below it.
fn pages() -> Vec<Command> {
    fn add(command: &Command, pages: &mut Vec<Command>) {
        pages.push(command.clone());
        for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
            add(below, pages);
        }
    }
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let mut pages = Vec::new();
    add(&program, &mut pages);
    pages
}

/// `ikv-fabric-recorder-dump`.
fn name_of(page: &Command) -> &str {
    page.get_display_name().unwrap_or_else(|| page.get_name())
}

/// A page as roff.
fn rendered(page: &Command, pages: &[Command]) -> anyhow::Result<Vec<u8>> {
    let man = Man::new(page.clone());
    let mut out = Vec::new();
    // Without a date, which clap's title would leave out together with its place.
    writeln!(
        out,
        ".TH \"{}\" 1 \"\" \"ikv-fabric {}\" \"ikv-fabric\"",
        name_of(page).to_uppercase(),
        env!("CARGO_PKG_VERSION")
    )?;
    name_section(page).to_writer(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    if page.get_arguments().any(|it| !it.is_hide_set()) {
        man.render_options_section(&mut out)?;
    }
    if page.get_subcommands().any(|it| !it.is_hide_set()) {
        man.render_subcommands_section(&mut out)?;
    }
    rest(page, pages).to_writer(&mut out)?;
    Ok(out)
}

/// One line, which apropos(1) finds: the first sentence of the description.
fn name_section(page: &Command) -> Roff {
    let about = page
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    let about = about.replace('\n', " ");
    let first = about.split_once(". ").map_or(&*about, |(first, _)| first);
    let mut roff = Roff::new();
    roff.control("SH", ["NAME"]);
    roff.text([roman(format!(
        "{} - {}",
        name_of(page),
        first.trim_end_matches(['.', ':'])
    ))]);
    roff
}

/// The sections that `--help` does not have.
fn rest(page: &Command, pages: &[Command]) -> Roff {
    let mut roff = Roff::new();
    if let Some(notes) = page.get_after_long_help().or(page.get_after_help()) {
        roff.control("SH", ["NOTES"]);
        roff.control("nf", []);
        for line in notes.to_string().lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
    roff.control("SH", ["EXIT STATUS"]);
    let own = exit_status(name_of(page)).iter();
    for (status, meaning) in own.chain(&[("2", "The command line is wrong.")]) {
        entry(&mut roff, status, meaning);
    }
    roff.control("SH", ["ENVIRONMENT"]);
    for (variable, meaning) in ENVIRONMENT {
        entry(&mut roff, variable, meaning);
    }
    roff.control("SH", ["FILES"]);
    for (file, meaning) in FILES {
        entry(&mut roff, file, meaning);
    }
    roff.control("SH", ["SEE ALSO"]);
    let see = see_also(page, pages).join(", ");
    roff.text([roman(see)]);
    roff
}

fn entry(roff: &mut Roff, what: &str, meaning: &str) {
    roff.control("TP", []);
    roff.text([bold(what)]);
    roff.text([roman(meaning)]);
}

type Meanings = &'static [(&'static str, &'static str)];

/// What a page's command ends with, but for 2.
fn exit_status(page: &str) -> Meanings {
    const FAILED: (&str, &str) = (
        "1",
        "It failed; a sentence on standard error names the way out.",
    );
    match page.strip_prefix("ikv-fabric-").unwrap_or_default() {
        "run" => &[
            (
                "0",
                "The fabric was ready, it was asked to end, and everything was taken away.",
            ),
            (
                "1",
                "It did not become ready, or something could not be taken away; a sentence on standard \
                   error names the way out.",
            ),
        ],
        "check" | "status" | "probe" | "import" => &[
            ("0", "All is as it should be."),
            (
                "1",
                "Something is not, as the report says, or the command failed.",
            ),
        ],
        "exec" | "ssh" | "shell" => &[
            ("any", "That of the command which it ran."),
            (
                "1",
                "Also: the command could not be run; a sentence on standard error names the way out.",
            ),
        ],
        _ => &[("0", "It did what it was asked."), FAILED],
    }
}

const ENVIRONMENT: Meanings = &[
    (
        "IKV_FABRIC_SOCKET",
        "The control socket, if --socket names none; ikv-fabric-shell(1) sets it.",
    ),
    (
        "IKV_FABRIC_LOG",
        "What is logged on standard error: error, warn (the default), info, debug, trace.",
    ),
];

const FILES: Meanings = &[
    (
        "/run/ikv-fabric/control.sock",
        "The control socket of root's fabric. What else it has while it runs is \
      beside it.",
    ),
    (
        "$XDG_RUNTIME_DIR/ikv-fabric/control.sock",
        "The control socket of another user's fabric.",
    ),
    (
        "/etc/ikv-fabric/fabric.toml",
        "The configuration of the service ikv-fabric.service. On the command line \
      a configuration is named by -c.",
    ),
    (
        "/var/cache/ikv-fabric",
        "Switch images, and states saved of them.",
    ),
    ("/var/lib/ikv-fabric", "The fabric's SSH keys."),
];

/// Pages of others that a page's reader may want.
fn others(page: &str) -> &'static [&'static str] {
    match page.strip_prefix("ikv-fabric-").unwrap_or_default() {
        "run" => &["systemd.service(5)"],
        "capture" | "recorder-dump" => &["wireshark(1)", "pcap-filter(7)"],
        "impair" | "scenario" => &["tc-netem(8)"],
        "ipmi" | "power" => &["ipmitool(1)"],
        "ssh" => &["ssh(1)", "ssh_config(5)"],
        "shell" => &["pasta(1)", "user_namespaces(7)"],
        "vm-args" => &["qemu-system-x86_64(1)"],
        "completions" => &["bash(1)", "zsh(1)", "fish(1)"],
        _ => &[],
    }
}

/// The pages above and directly below a page, and those of others.
fn see_also(page: &Command, pages: &[Command]) -> Vec<String> {
    let name = name_of(page);
    let below = |other: &str| {
        let rest = other
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('-'));
        rest.is_some()
            && page
                .get_subcommands()
                .any(|it| it.get_display_name() == Some(other))
    };
    let above = |other: &str| {
        name.strip_prefix(other)
            .is_some_and(|rest| rest.starts_with('-'))
    };
    let names = pages.iter().map(name_of);
    let ours = names.filter(|other| below(other) || above(other));
    let ours = ours.map(|other| format!("{other}(1)"));
    ours.chain(others(name).iter().map(ToString::to_string))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(page: &Command) -> String {
        String::from_utf8(rendered(page, &pages()).unwrap()).unwrap()
    }

    #[test]
    fn every_command_that_help_shows_has_a_page_with_every_section() {
        let pages = pages();
        let names: Vec<_> = pages.iter().map(name_of).collect();
        for name in [
            "ikv-fabric",
            "ikv-fabric-run",
            "ikv-fabric-recorder-dump",
            "ikv-fabric-vm-args",
        ] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        assert!(
            !names.iter().any(|name| name.contains("man-page")),
            "{names:?}"
        );
        for page in &pages {
            let text = text(page);
            for section in [
                "NAME",
                "SYNOPSIS",
                "DESCRIPTION",
                "OPTIONS",
                "\"EXIT STATUS\"",
                "FILES",
                "\"SEE ALSO\"",
            ] {
                assert!(
                    text.contains(&format!(".SH {section}\n")),
                    "{}: {section}",
                    name_of(page)
                );
            }
        }
    }

    #[test]
    fn a_page_names_what_is_above_below_and_beside_it() {
        let pages = pages();
        let see = |name: &str| {
            let page = pages.iter().find(|page| name_of(page) == name).unwrap();
            see_also(page, &pages)
        };
        assert!(see("ikv-fabric").contains(&"ikv-fabric-run(1)".to_owned()));
        assert!(!see("ikv-fabric").contains(&"ikv-fabric-recorder-dump(1)".to_owned()));
        assert_eq!(
            see("ikv-fabric-recorder-dump"),
            [
                "ikv-fabric(1)",
                "ikv-fabric-recorder(1)",
                "wireshark(1)",
                "pcap-filter(7)"
            ]
        );
        assert_eq!(
            see("ikv-fabric-cables"),
            ["ikv-fabric(1)"],
            "`cable` is not above it"
        );
    }

    #[test]
    fn a_name_is_one_sentence() {
        let page = pages()
            .into_iter()
            .find(|page| name_of(page) == "ikv-fabric-run")
            .unwrap();
        let name = name_section(&page).to_roff();
        assert_eq!(
            name.lines().last().unwrap(),
            "ikv\\-fabric\\-run \\- Brings the virtual datacenter up and keeps it running in the foreground"
        );
    }
}
