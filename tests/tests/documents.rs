//! README and the pages of `docs/`: their commands work, their links lead somewhere.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use ikv_tests::documents::{
    Block, GENERATED, ON_THE_WEB, Page, Typist, VERDICTS, Verdict, covers, pages, repository,
    verdict,
};
use ikv_tests::panel::PanelHost;
use ikv_tests::patience::SOON;
use ikv_tests::{HostState, have_root};

const TABLE: &str = "tests/src/documents/verdicts.rs";

/// What a line of a command begins with.
const PROGRAMS: [&str; 4] = ["ikv-fabric ", "make ", "sudo ", "qemu-system-x86_64 "];

/// Its blocks build on each other: the test `api_examples` types them as a whole.
const TYPED_ELSEWHERE: &str = "docs/src/api.md";

/// The pages whose commands stand for themselves.
fn pages_of_commands() -> impl Iterator<Item = Page> {
    let pages = pages().into_iter();
    pages.filter(|page| page.path != TYPED_ELSEWHERE)
}

/// README and pages that people write.
fn written_pages() -> impl Iterator<Item = Page> {
    let pages = pages().into_iter();
    pages.filter(|page| !GENERATED.contains(&&*page.path))
}

#[test]
fn every_command_is_in_the_table() {
    let mut unknown = Vec::new();
    for page in pages_of_commands() {
        for command in page.commands() {
            if verdict(&command.text).is_none() {
                unknown.push(format!("{}:{}: {}", page.path, command.line, command.text));
            }
        }
    }
    assert!(
        unknown.is_empty(),
        "nothing runs these commands: add each to VERDICTS in {TABLE}, as `Panel` if it works with \
         `--switches none`, as `Datacenter` if it needs switches and ends by itself, as `Test` with the \
         test that does the same, or as `ByHand` with the reason why no test can:\n{}",
        unknown.join("\n")
    );
}

#[test]
fn every_entry_of_the_table_is_used_and_names_a_test() {
    let commands: Vec<_> = pages_of_commands()
        .flat_map(|page| page.commands())
        .collect();
    for (pattern, entry) in VERDICTS {
        assert!(
            commands
                .iter()
                .any(|command| covers(pattern, &command.text)),
            "{pattern:?}: no page has such a command; take it out of {TABLE}"
        );
        if let Verdict::Test(file, function) = entry {
            let source = std::fs::read_to_string(repository().join(file));
            let source = source.unwrap_or_else(|error| panic!("{pattern:?}: {file}: {error}"));
            assert!(
                source.contains(&format!("fn {function}(")),
                "{pattern:?}: {file} has no test {function}; name the one that covers the command \
                 in {TABLE}"
            );
        }
    }
}

/// In the order of each page, on a patch panel of its own.
#[test]
fn commands_that_need_no_switches_work() {
    if !have_root() {
        return;
    }
    let mut count = 0;
    for page in pages_of_commands() {
        let lines: Vec<_> = page
            .commands()
            .into_iter()
            .filter(|command| matches!(verdict(&command.text), Some(Verdict::Panel)))
            .collect();
        if lines.is_empty() {
            continue;
        }
        let host = PanelHost::new("docs");
        let fabric = host.run(&[]);
        let typist = Typist::new(&host.netns, &host.socket(), host.folder());
        typist.write_files(&page);
        for command in lines {
            typist.must_type(&page, &command, SOON);
            count += 1;
        }
        fabric.end();
    }
    assert!(
        count > 0,
        "no page has a command that runs without switches"
    );
}

#[test]
fn a_command_stands_in_a_block_of_sh() {
    let is_command = |line: &str| PROGRAMS.iter().any(|program| line.starts_with(program));
    for page in written_pages() {
        for block in page.blocks() {
            let Block {
                line,
                language,
                lines,
            } = &block;
            let at = format!("{}:{line}", page.path);
            assert!(
                !language.is_empty(),
                "{at}: say what the block holds: sh, text, toml, xml …"
            );
            if language == "sh" || block.file().is_some() {
                continue;
            }
            let command = lines.iter().find(|line| is_command(line.trim_start()));
            assert!(
                command.is_none(),
                "{at}: {command:?} looks like a command: put it into a block of `sh`, where it is tested"
            );
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let root = repository();
    let mut broken = Vec::new();
    for page in pages() {
        for link in page.links() {
            if let Err(why) = follow(&root, &page, &link.target) {
                broken.push(format!(
                    "{}:{}: {}: {why}",
                    page.path, link.line, link.target
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Looks for a link's file and heading; those on the web that are no file of ours are not followed.
fn follow(root: &Path, page: &Page, target: &str) -> Result<(), String> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = match path.strip_prefix(ON_THE_WEB) {
        Some(ours) => root.join(ours),
        None if path.contains(':') => return Ok(()),
        None if path.is_empty() => root.join(&page.path),
        None => page.folder(root).join(path),
    };
    let file = file.canonicalize().map_err(|error| error.to_string())?;
    let outside = page.path != "README.md" && !file.starts_with(root.join("docs/src"));
    if outside && !path.starts_with(ON_THE_WEB) {
        return Err(format!("it is outside of the book: write {ON_THE_WEB}…"));
    }
    if anchor.is_empty() {
        return Ok(());
    }
    let anchors = Page::read(root, &file).anchors();
    if anchors.iter().any(|known| known == anchor) {
        return Ok(());
    }
    Err(format!("no such heading; there are {}", anchors.join(", ")))
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let root = repository();
    let page = Page::new("docs/src/any.md", "");
    for bad in [
        "gone.md",
        "reference/keys.md#no-such-key",
        "../../SECURITY.md",
        "https://github.com/ikv-fabric/ikv-fabric/blob/main/gone.md",
    ] {
        assert!(follow(&root, &page, bad).is_err(), "{bad}");
    }
    for good in [
        "reference/keys.md#topologyracks",
        "https://github.com/ikv-fabric/ikv-fabric/blob/main/SECURITY.md#a-guest",
        "https://frrouting.org/",
    ] {
        assert_eq!(follow(&root, &page, good), Ok(()), "{good}");
    }
}

#[test]
fn the_books_contents_list_every_page() {
    let root = repository();
    let summary = Page::read(&root, &root.join("docs/src/SUMMARY.md"));
    let listed: BTreeSet<_> = summary
        .links()
        .into_iter()
        .map(|link| format!("docs/src/{}", link.target))
        .collect();
    let there: BTreeSet<_> = pages().into_iter().map(|page| page.path).collect();
    for page in there.difference(&listed) {
        let known = ["README.md", "docs/src/SUMMARY.md"].contains(&&**page);
        assert!(known, "{page} is missing from docs/src/SUMMARY.md");
    }
}

const TROUBLESHOOTING: &str = "docs/src/troubleshooting.md";

#[test]
fn every_reason_of_a_drop_is_explained() {
    let root = repository();
    let page = std::fs::read_to_string(root.join(TROUBLESHOOTING)).unwrap();
    for reason in dataplane::DropReason::ALL {
        let name = format!("`{}`", reason.name());
        let explained = page
            .lines()
            .any(|line| line.starts_with('|') && line.contains(&name));
        assert!(explained, "{TROUBLESHOOTING} has no row for {name}");
    }
}

/// The headings quote messages, with `…` for what differs; those of other programs say whose they are.
#[test]
fn the_messages_that_troubleshooting_quotes_are_the_programs() {
    let root = repository();
    let mut sources = String::new();
    collect_sources(&root.join("ctrl"), &mut sources);
    let page = std::fs::read_to_string(root.join(TROUBLESHOOTING)).unwrap();
    let mut quoted = 0;
    for heading in page.lines().filter(|line| line.starts_with("### \"")) {
        for message in heading.split('"').skip(1).step_by(2) {
            for part in message.split('…').map(str::trim).filter(|it| it.len() > 3) {
                assert!(
                    sources.contains(part),
                    "{TROUBLESHOOTING}: no message of the program has {part:?}: {heading}"
                );
                quoted += 1;
            }
        }
    }
    assert!(quoted > 5, "{quoted} quoted messages");
}

/// Appends the Rust sources below a folder, with texts that are broken over lines in one line.
fn collect_sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_sources(&path, text);
        } else if path.extension().is_some_and(|end| end == "rs") {
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                let line = line.trim_start();
                match line.strip_suffix('\\') {
                    Some(goes_on) => text.push_str(goes_on),
                    None => text.extend([line, "\n"]),
                }
            }
        }
    }
}

/// The script of the page on CI, without switches.
#[test]
fn the_script_for_ci_brings_a_fabric_up_and_ends_it() {
    if !have_root() {
        return;
    }
    let root = repository();
    let page = Page::read(&root, &root.join("docs/src/recipes/ci.md"));
    let commands = page.commands();
    let line = commands
        .iter()
        .find(|it| it.text.contains("--switches none"));
    let line = &line.expect("the page has one without switches").text;
    let host = PanelHost::new("ci");
    let typist = Typist::new(&host.netns, &host.socket(), host.folder());
    typist.write_files(&page);
    let state = || HostState::of(&host.netns, &host.folder().join("run"));
    let before = state();

    let answer = typist.types(line, SOON);
    assert_eq!(answer.code, Some(0), "{answer:#?}");
    assert!(answer.stdout.contains("iksb12"), "{answer:#?}");
    before.assert_unchanged(&state(), line);

    // The status of what it ran is its own, and the fabric ends all the same.
    let failing = line.replace("ikv-fabric cables", "sh -c 'exit 7'");
    let answer = typist.types(&failing, SOON);
    assert_eq!(answer.code, Some(7), "{answer:#?}");
    before.assert_unchanged(&state(), &failing);

    let never_ready = line.replace("--switches none", "--no-such-option");
    let answer = typist.types(&never_ready, SOON);
    assert!(answer.code != Some(0), "{answer:#?}");
    assert!(answer.stderr.contains("--no-such-option"), "{answer:#?}");
}
