//! The examples of docs/src/api.md work as they stand, one after the other, and answer what it says.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ikv_tests::panel::PanelHost;
use ikv_tests::patience::output_within;
use ikv_tests::{executable_by_all, have_root, skip};
use serde_json::Value;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/api.md");

/// For all examples together.
const LIMIT: Duration = Duration::from_secs(60);

/// What one fence of the page has in it.
#[derive(Debug, PartialEq, Eq)]
struct Fence {
    /// `sh`, `python`: something to run; `json`, `text`: what the one before prints.
    language: String,
    text: String,
    /// The line where it begins, from 1.
    line: usize,
}

fn fences(page: &str) -> Vec<Fence> {
    let mut found = Vec::new();
    let mut open: Option<Fence> = None;
    for (index, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some(Fence {
                    language: language.to_owned(),
                    text: String::new(),
                    line: index + 1,
                });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(fence), None) => {
                fence.text += line;
                fence.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert_eq!(open, None, "a fence is not closed");
    found
}

/// One script of all examples, so that each finds what those before it have set. Each example prints into a
/// file with the number of its line.
fn script(fences: &[Fence]) -> String {
    let mut script = String::from("set -euo pipefail\n");
    for Fence {
        language,
        text,
        line,
    } in fences
    {
        let _ = match (&**language, file_name(text)) {
            ("python", Some(name)) => writeln!(script, "cat > {name} <<'EXAMPLE'\n{text}EXAMPLE"),
            ("python", None) => {
                writeln!(
                    script,
                    "echo line {line} >&2\npython3 - > {line}.out <<'EXAMPLE'\n{text}EXAMPLE"
                )
            }
            ("sh", _) => writeln!(script, "echo line {line} >&2\n{{\n{text}}} > {line}.out"),
            ("json" | "text", _) => Ok(()),
            (other, _) => panic!("line {line}: {other} is no language of an example"),
        };
    }
    script
}

/// A program whose first line is a comment of a file's name alone is saved under this name.
fn file_name(text: &str) -> Option<&str> {
    let name = text.lines().next()?.strip_prefix("# ")?;
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let stem = name.strip_suffix(".py")?;
    stem.chars().all(plain).then_some(name)
}

#[test]
fn every_example_works_and_answers_what_the_page_says() {
    if !have_root() {
        return;
    }
    for program in ["curl", "python3"] {
        if Command::new(program).arg("--version").output().is_err() {
            return skip(&format!("needs {program} (apt-get install {program})"));
        }
    }
    let fences = fences(&std::fs::read_to_string(PAGE).unwrap());
    let host = PanelHost::new("apidoc");
    let fabric = host.run(&[]);
    let folder = host.folder().join("examples");
    std::fs::create_dir(&folder).unwrap();
    let programs = executable_by_all(&folder);
    let path = format!(
        "{}:{}",
        programs.parent().unwrap().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut command = host.netns.command("bash");
    command
        .args(["-c", &script(&fences)])
        .env("PATH", path)
        .env("IKV_FABRIC_SOCKET", host.socket())
        .current_dir(&folder);
    let output = output_within(&mut command, LIMIT);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);

    let mut compared = 0;
    for pair in fences.windows(2) {
        let [example, expected] = pair else { continue };
        if !["json", "text"].contains(&&*expected.language) {
            continue;
        }
        compared += 1;
        assert_answer(&folder, example, expected);
    }
    assert!(compared >= 5, "the page shows too few answers");
    assert_effects(&folder);
    fabric.end();
}

fn assert_answer(folder: &Path, example: &Fence, expected: &Fence) {
    let line = example.line;
    let printed = std::fs::read_to_string(folder.join(format!("{line}.out"))).unwrap();
    if expected.language == "text" {
        assert_eq!(printed, expected.text, "line {line}");
        return;
    }
    let parsed = |text: &str| -> Value {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("line {line}: {error}: {text}"))
    };
    assert_eq!(parsed(&printed), parsed(&expected.text), "line {line}");
}

/// What the examples wrote into files is what the sentences around them say.
fn assert_effects(folder: &Path) {
    let file = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
    };
    assert_eq!(file("mended.json")["state"], "up");
    assert_eq!(file("impaired.json").as_array().unwrap().len(), 2);
    assert!(file("step.json")["at_ns"].as_u64() > Some(0));
    let difference = file("difference.json");
    assert_eq!(difference["difference"]["keys"][0]["key"], "host.allow");
    assert_eq!(difference["applied"], false);
}

#[test]
fn fences_are_found_and_become_a_script() {
    let page = "a\n```sh\nls\n```\n```text\nx\n```\n```python\n# f.py\nimport os\n```\n";
    let found = fences(page);
    let languages: Vec<_> = found
        .iter()
        .map(|fence| (&*fence.language, fence.line))
        .collect();
    assert_eq!(languages, [("sh", 2), ("text", 5), ("python", 8)]);
    let script = script(&found);
    assert!(script.contains("{\nls\n} > 2.out\n"), "{script}");
    assert!(
        script.contains("cat > f.py <<'EXAMPLE'\n# f.py\nimport os\nEXAMPLE\n"),
        "{script}"
    );
}
