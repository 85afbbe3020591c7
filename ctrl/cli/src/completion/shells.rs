//! What clap's scripts for bash and zsh lack.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_complete::env::{self, EnvCompleter};

/// bash splits words at `:` and `=` (COMP_WORDBREAKS) and replaces only what stands behind the last of
/// them; clap's script would take `rack1:u3` for three arguments. It also would expand `*` in an answer.
#[derive(Debug)]
pub(super) struct Bash;

const BASH: &str = r#"# Completion of ikv-fabric by bash.
_ikv_fabric() {
    # The words as the program would get them: those that no blank parts belong together.
    local -a words=()
    local rest=${COMP_LINE:0:COMP_POINT} from i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        from=${rest#"${rest%%[![:space:]]*}"}
        # The last word ends at the cursor.
        local word=${COMP_WORDS[i]}
        ((i < COMP_CWORD)) || word=$from
        if ((i > 0)) && [[ $from == "$rest" ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
        rest=${from#"$word"}
    done
    local index=$((${#words[@]} - 1))
    local last=${words[index]}
    mapfile -t COMPREPLY < <(
        VAR=bash _CLAP_COMPLETE_INDEX=$index _CLAP_IFS=$'\n' \
            PROGRAM -- "${words[@]}" 2>/dev/null
    )
    # What readline keeps of the last word.
    local breaks=
    [[ $COMP_WORDBREAKS != *:* ]] || breaks+=:
    [[ $COMP_WORDBREAKS != *=* ]] || breaks+==
    if [[ -n $breaks && $last == *["$breaks"]* ]]; then
        local kept=${last%"${last##*["$breaks"]}"}
        COMPREPLY=("${COMPREPLY[@]#"$kept"}")
    fi
    # Folders, and options that want a value at once, go on without a blank.
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o nosort -F _ikv_fabric PROGRAM
"#;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        env::Bash.name()
    }

    fn is(&self, name: &str) -> bool {
        env::Bash.is(name)
    }

    fn write_registration(
        &self,
        var: &str,
        _name: &str,
        bin: &str,
        _completer: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let script = BASH.replace("VAR=", &format!("{var}="));
        out.write_all(script.replace("PROGRAM", bin).as_bytes())
    }

    fn write_complete(
        &self,
        program: &mut Command,
        words: Vec<OsString>,
        folder: Option<&Path>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        env::Bash.write_complete(program, words, folder, out)
    }
}

/// zsh loads a file of its `fpath` at the first Tab, and expects it to answer that one already; clap's
/// script only defines the function.
#[derive(Debug)]
pub(super) struct Zsh;

const ZSH: &str = r#"
if [[ ${funcstack[1]-} == _PROGRAM ]]; then
    _clap_dynamic_completer_NAME "$@"
fi
"#;

impl EnvCompleter for Zsh {
    fn name(&self) -> &'static str {
        env::Zsh.name()
    }

    fn is(&self, name: &str) -> bool {
        env::Zsh.is(name)
    }

    fn write_registration(
        &self,
        var: &str,
        name: &str,
        bin: &str,
        completer: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        env::Zsh.write_registration(var, name, bin, completer, out)?;
        let function = name.replace('-', "_");
        let now = ZSH.replace("PROGRAM", bin).replace("NAME", &function);
        out.write_all(now.as_bytes())
    }

    fn write_complete(
        &self,
        program: &mut Command,
        words: Vec<OsString>,
        folder: Option<&Path>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        env::Zsh.write_complete(program, words, folder, out)
    }
}
