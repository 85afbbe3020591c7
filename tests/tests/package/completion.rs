//! The shells complete what the package installed for them, and ask the running fabric for names.

use std::process::Command;
use std::time::{Duration, Instant};

use ikv_tests::panel::PanelHost;
use ikv_tests::patience::{SOON, output_within};
use ikv_tests::{executable_by_all, have_root};

use crate::{Package, lack, package};

/// Completes the line in `$LINE`, as readline calls bash: with words that end at `:` and `=`.
const BASH: &str = r#"
source "$SCRIPTS/bash-completion/completions/ikv-fabric"
COMP_LINE=$LINE COMP_POINT=${#LINE} COMP_WORDS=() rest=$LINE
while [[ -n $rest ]]; do
    rest=${rest#"${rest%%[! ]*}"}
    word=${rest%%[ :=]*}
    [[ -n $word || -z $rest ]] || word=${rest:0:1}
    COMP_WORDS+=("$word")
    rest=${rest#"$word"}
done
[[ $LINE != *' ' || -z ${COMP_WORDS[-1]} ]] || COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_ikv_fabric
printf '%s\n' "${COMPREPLY[@]}"
"#;

/// zsh's widget calls the function with `words` and `CURRENT`; `_describe` would draw what it is given.
const ZSH: &str = r#"
compdef() { }
_describe() { local name=${@[-1]}; print -rl -- ${${(P)name}//\\:/:} }
source "$SCRIPTS/zsh/vendor-completions/_ikv-fabric"
words=(${(s: :)LINE})
[[ $LINE != *' ' ]] || words+=('')
CURRENT=$#words
_clap_dynamic_completer_ikv_fabric
"#;

const FISH: &str = r#"
source "$SCRIPTS/fish/vendor_completions.d/ikv-fabric.fish"
complete -C "$LINE"
"#;

/// The first word of each line that a shell offers.
fn offered(
    host: &PanelHost,
    package: &Package,
    [shell, script]: [&str; 2],
    line: &str,
) -> Vec<String> {
    let mut command = Command::new(shell);
    if shell != "fish" {
        // Neither reads what the user or the machine has set up.
        command.arg(if shell == "bash" { "--norc" } else { "-f" });
    }
    let path = std::env::var("PATH").unwrap();
    executable_by_all(host.folder());
    command
        .args(["-c", script])
        .env("PATH", format!("{}:{path}", host.folder().display()))
        .env("HOME", host.folder())
        .env("IKV_FABRIC_SOCKET", host.socket())
        .env("SCRIPTS", package.root.join("usr/share"))
        .env("LINE", line);
    let output = output_within(&mut command, SOON);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "",
        "{shell}: {line}"
    );
    let words = said
        .lines()
        .map(|line| line.split('\t').next().unwrap().trim());
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

fn completes(shell: [&str; 2], keeps: bool) {
    let Some(package) = package() else { return };
    if !have_root() || lack(&[(shell[0], shell[0])]) {
        return;
    }
    let host = PanelHost::new("complete");
    let asks = |line: &str| offered(&host, package, shell, line);
    let has = |line: &str, word: &str| {
        let words = asks(line);
        let is = |it: &String| {
            it == word
                || it
                    .strip_prefix(word)
                    .is_some_and(|rest| rest.starts_with(':'))
        };
        assert!(words.iter().any(is), "{}: {line:?}: {words:?}", shell[0]);
    };
    has("ikv-fabric sta", "status");
    has("ikv-fabric run --co", "--cold");
    has("ikv-fabric run --switches ", "none");
    let began = Instant::now();
    assert_eq!(
        asks("ikv-fabric exec lea"),
        [""; 0],
        "without a fabric it says nothing"
    );
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );

    let fabric = host.run(&[]);
    has("ikv-fabric exec lea", "leaf3");
    has("ikv-fabric cable iksb", "iksb12");
    // bash inserts what stands behind the last word break.
    let whole = |prefix: &str, rest: &str| {
        if keeps {
            rest.to_owned()
        } else {
            format!("{prefix}{rest}")
        }
    };
    has("ikv-fabric cable spine1:", &whole("spine1:", "2"));
    has("ikv-fabric vm-args rack1:u2", &whole("rack1:", "u23"));
    has("ikv-fabric vm-args rack1:u3:", &whole("rack1:u3:", "1"));
    has(
        "ikv-fabric capture spine1:2 --from spine1:",
        &whole("spine1:", "2"),
    );
    has(
        "ikv-fabric capture spine1:2 --from=iks",
        &whole("--from=", "ikst12"),
    );
    assert_eq!(asks("ikv-fabric cable nowhere:"), [""; 0]);
    fabric.end();
}

#[test]
fn bash() {
    completes(["bash", BASH], true);
}

#[test]
fn zsh() {
    completes(["zsh", ZSH], false);
}

#[test]
fn fish() {
    completes(["fish", FISH], false);
}
