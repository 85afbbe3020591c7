//! `docs/src/reference/commands.md`, written from the command line's own definition.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};

use super::Cli;

const PAGE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/src/reference/commands.md"
);

const HEAD: &str = "\
# Commands

Every command with all of its options. A unit test writes this page from the program's own definition of
its command line, the same from which `--help` comes.

A command ends with status 0 if it did what it says, with 1 if not, and with 2 if the command line is
wrong. Where a command has other statuses, its text says so. Every command also takes these options:

";

#[test]
fn the_page_of_the_commands_is_the_generated_one() {
    let page = page();
    if std::env::var("IKV_DOCS").is_ok_and(|update| update == "write") {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    let differs = page
        .lines()
        .zip(written.lines())
        .position(|(new, old)| new != old);
    assert!(
        page == written,
        "docs/src/reference/commands.md differs from the commands at line {}: write it anew by \
         `IKV_DOCS=write cargo test -p ikv-fabric reference`, and read the difference",
        differs.unwrap_or(page.lines().count().min(written.lines().count())) + 1
    );
}

#[test]
fn what_markdown_would_take_is_shown_as_it_is() {
    assert_eq!(
        escaped("a <b> of [[cable]] and `<c> *` or 2*3"),
        "a &lt;b> of \\[\\[cable]] and `<c> *` or 2\\*3"
    );
}

fn page() -> String {
    let mut cli = Cli::command();
    cli.build();
    let mut out = HEAD.to_owned();
    arguments(&mut out, &cli, true);
    out.push('\n');
    let commands = visible(&cli);
    for command in &commands {
        let name = command.get_name();
        let about = about(command);
        let first = about.split("\n\n").next().unwrap_or_default();
        let first = first
            .split_inclusive(". ")
            .next()
            .unwrap_or_default()
            .trim();
        let _ = writeln!(out, "- [`{name}`](#ikv-fabric-{name}): {}", sentence(first));
    }
    for command in commands {
        write_command(&mut out, command, "ikv-fabric", 2);
    }
    out
}

fn visible(command: &Command) -> Vec<&Command> {
    let all = command.get_subcommands();
    all.filter(|it| !it.is_hide_set() && it.get_name() != "help")
        .collect()
}

fn write_command(out: &mut String, command: &Command, parent: &str, level: usize) {
    let name = format!("{parent} {}", command.get_name());
    let _ = writeln!(
        out,
        "\n{} {name}\n\n{}\n",
        "#".repeat(level),
        escaped(&about(command))
    );
    let usage = command.clone().render_usage().to_string();
    let _ = writeln!(out, "```text\n{}\n```\n", usage.trim_end());
    arguments(out, command, false);
    let after = command.get_after_long_help().or(command.get_after_help());
    if let Some(after) = after {
        let _ = writeln!(out, "\n```text\n{}\n```", after.to_string().trim_end());
    }
    for inner in visible(command) {
        write_command(out, inner, &name, level + 1);
    }
}

/// The arguments of a command, or those that every command takes.
fn arguments(out: &mut String, command: &Command, global: bool) {
    let shown = |arg: &&Arg| {
        !arg.is_hide_set()
            && arg.is_global_set() == global
            && !matches!(arg.get_id().as_str(), "help" | "version")
    };
    let all: Vec<&Arg> = command.get_arguments().filter(shown).collect();
    let mut headings: Vec<Option<&str>> = vec![None];
    for heading in all.iter().map(|arg| arg.get_help_heading()) {
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for heading in headings {
        if let Some(heading) = heading {
            let _ = writeln!(out, "\n{heading}:\n");
        }
        for arg in all.iter().filter(|arg| arg.get_help_heading() == heading) {
            argument(out, arg);
        }
    }
}

fn argument(out: &mut String, arg: &Arg) {
    let short = arg.get_short().map(|short| format!("`-{short}`, "));
    let help = arg.get_long_help().or(arg.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let short = short.unwrap_or_default();
    let _ = write!(out, "- {short}`{arg}`: {}", escaped(&sentence(&help)));
    let takes_value = arg.get_action().takes_values();
    let defaults = arg.get_default_values();
    if takes_value && !defaults.is_empty() && !arg.is_hide_default_value_set() {
        let defaults: Vec<_> = defaults.iter().map(|it| it.to_string_lossy()).collect();
        let _ = write!(out, " Default: `{}`.", defaults.join(" "));
    }
    out.push('\n');
    if !takes_value || arg.is_hide_possible_values_set() {
        return;
    }
    for value in arg
        .get_possible_values()
        .iter()
        .filter(|it| !it.is_hide_set())
    {
        let help = value.get_help().map(ToString::to_string);
        let help = help.map(|help| format!(": {}", escaped(&sentence(&help))));
        let _ = writeln!(
            out,
            "  - `{}`{}",
            value.get_name(),
            help.unwrap_or_default()
        );
    }
}

/// What a command does: complete sentences, a paragraph's lines joined.
fn about(command: &Command) -> String {
    let text = command.get_long_about().or(command.get_about());
    let text = text.map(ToString::to_string).unwrap_or_default();
    let paragraphs = text.split("\n\n").map(|paragraph| {
        let words = paragraph.split_whitespace().collect::<Vec<_>>();
        sentence(&words.join(" "))
    });
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// clap takes the full stop away from the end of a text.
fn sentence(text: &str) -> String {
    if text.is_empty() || text.ends_with(['.', '!', '?', ':']) {
        return text.to_owned();
    }
    format!("{text}.")
}

/// A text without signs that Markdown would take, but for those between backquotes.
fn escaped(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(index, part)| {
        if index % 2 == 1 {
            return part.to_owned();
        }
        part.replace('<', "&lt;")
            .replace('*', "\\*")
            .replace('[', "\\[")
    });
    parts.collect::<Vec<_>>().join("`")
}
