//! A file of assignments, understood as a shell that sources it would, but never run.

use std::collections::HashMap;

use super::Remark;
use super::words::{Scanner, Token, is_name};

/// What a file sets.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub variables: Variables,
    /// What could not be read.
    pub remarks: Vec<Remark>,
}

#[derive(Debug, Default)]
pub(super) struct Variables(HashMap<String, Variable>);

#[derive(Debug)]
pub(super) struct Variable {
    /// Where it was set last, from 1.
    pub line: usize,
    /// None where the file sets it in a way that is not read; a remark says so.
    pub value: Option<String>,
    /// Whether another value refers to it.
    pub used: bool,
}

impl Variables {
    pub(super) fn get(&self, name: &str) -> Option<&Variable> {
        self.0.get(name)
    }

    /// All of them in the order of their lines.
    pub(super) fn by_line(&self) -> Vec<(&str, &Variable)> {
        let mut all: Vec<_> = self
            .0
            .iter()
            .map(|(name, found)| (&**name, found))
            .collect();
        all.sort_by_key(|(name, variable)| (variable.line, *name));
        all
    }

    /// The value of a variable that another value refers to.
    pub(super) fn referred(&mut self, name: &str) -> Result<&str, String> {
        let variable = self.0.get_mut(name).ok_or_else(|| {
            format!("it refers to {name}, which is not set above: set it or write the value")
        })?;
        variable.used = true;
        variable.value.as_deref().ok_or_else(|| {
            let line = variable.line;
            format!("it refers to {name}, which is not read from line {line}: write the value")
        })
    }

    fn set(&mut self, name: &str, line: usize, value: Option<&str>) {
        let used = self.get(name).is_some_and(|known| known.used);
        let value = value.map(str::to_owned);
        self.0
            .insert(name.to_owned(), Variable { line, value, used });
    }
}

impl Script {
    pub(super) fn read(text: &str) -> Self {
        let mut scanner = Scanner::new(text);
        let mut reader = Reader::default();
        let mut statement: Vec<Token> = Vec::new();
        let mut only_assignments = true;
        while let Some(token) = scanner.token()
            && !reader.in_here_document
        {
            match token.operator {
                Some(';') if statement.is_empty() => {
                    let why = "a ; stands where a shell takes none: remove it";
                    reader.remarks.push(Remark::new(token.line, "", why, true));
                }
                Some('\n' | ';') => {
                    reader.statement(&statement, &mut scanner.variables);
                    statement.clear();
                    only_assignments = true;
                }
                _ => {
                    // `A=1 B=$A` sets one after the other, but a command such as export expands
                    // all its words before it sets the first.
                    if let Some((name, value)) = token.assignment().filter(|_| only_assignments) {
                        scanner.variables.set(name, token.line, value.ok());
                    } else {
                        only_assignments = false;
                    }
                    statement.push(token);
                }
            }
        }
        reader.statement(&statement, &mut scanner.variables);
        Self {
            variables: scanner.variables,
            remarks: reader.remarks,
        }
    }
}

/// Takes statement after statement.
#[derive(Default)]
struct Reader {
    remarks: Vec<Remark>,
    /// Commands that hold others (`if`, `{`) and are not closed yet.
    blocks: usize,
    /// `(` that are not closed yet. Counted apart: a `)` after a pattern of `case` has no `(`.
    parentheses: usize,
    /// The line where the outermost of them begins.
    since: usize,
    /// What follows looks like statements but is a command's input.
    in_here_document: bool,
}

impl Reader {
    fn statement(&mut self, tokens: &[Token], variables: &mut Variables) {
        let Some(first) = tokens.first() else { return };
        let inside = self.blocks + self.parentheses > 0;
        // `export NAME=VALUE` sets it as well, `export NAME` changes nothing here.
        let exported = matches!(first.plain(), Some("export" | "readonly"));
        let sets_only = tokens.iter().enumerate().all(|(index, token)| {
            token.assignment().is_some()
                || exported && (index == 0 || token.plain().is_some_and(is_name))
        });
        let is_read = sets_only && !inside;
        for token in tokens {
            let Some((name, value)) = token.assignment() else {
                continue;
            };
            variables.set(name, token.line, value.ok().filter(|_| is_read));
            if let Some(why) = value.err().filter(|_| is_read) {
                self.remarks.push(Remark::new(token.line, name, why, true));
            }
        }
        if !is_read {
            self.refuse(tokens, first.line, inside);
        }
    }

    fn refuse(&mut self, tokens: &[Token], line: usize, inside: bool) {
        if !inside {
            self.since = line;
        }
        self.follow_blocks(tokens);
        let since = self.since;
        let command = tokens.iter().find(|token| token.assignment().is_none());
        let why = match command.and_then(Token::plain) {
            _ if inside => {
                format!("it stands in a command that begins in line {since}, and none is run")
            }
            Some("." | "source") => {
                "another file is not read: import it too, or copy its lines here".into()
            }
            Some(command) => {
                format!("`{command}` is a command, and none is run: only NAME=VALUE is read")
            }
            None => "this is a command, and none is run: only NAME=VALUE is read".into(),
        };
        self.remarks.push(Remark::new(line, "", why, true));
        let is_input = |token: &Token| token.operator == Some('<');
        if tokens.windows(2).any(|two| two.iter().all(is_input)) {
            self.in_here_document = true;
            let why = "a here-document begins: nothing from here on is read; move it to the end";
            self.remarks.push(Remark::new(line, "", why, true));
        }
    }

    /// Notes which commands begin and end that hold others: it depends on those whether what
    /// stands in them is ever run.
    fn follow_blocks(&mut self, tokens: &[Token]) {
        let mut command_next = true;
        for token in tokens {
            let word = token.plain();
            match (token.operator, word) {
                (Some('('), _) => self.parentheses += 1,
                (Some(')'), _) => self.parentheses = self.parentheses.saturating_sub(1),
                (_, Some("if" | "for" | "while" | "until" | "case" | "select" | "{"))
                    if command_next =>
                {
                    self.blocks += 1;
                }
                (_, Some("fi" | "done" | "esac" | "}")) if command_next => {
                    self.blocks = self.blocks.saturating_sub(1);
                }
                _ => {}
            }
            command_next = token.operator.is_some()
                || matches!(word, Some("then" | "do" | "else" | "elif" | "{" | "!"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// Pieces of which no combination writes, waits or starts a program.
    fn harmless() -> impl Strategy<Value = String> {
        const PIECES: &[&str] = &[
            "A=",
            "B=",
            "C=",
            "A=",
            "B=",
            "$A",
            "${B}",
            "$((",
            "))",
            "A",
            "B",
            "1",
            "20",
            "x.y",
            "+",
            "-",
            "*",
            "/",
            "%",
            "(",
            ")",
            "'",
            "'",
            "\"",
            "\"",
            "\\",
            "\n",
            "\n",
            ";",
            " ",
            " #",
            "#",
            "$",
            "=",
            "~",
            "é",
            "\t",
            "export A=",
        ];
        prop::collection::vec(prop::sample::select(PIECES), 0..25).prop_map(|all| all.concat())
    }

    /// The variable's value after a shell has run the text; None where the shell fails.
    fn shell(text: &str, name: &str) -> Option<String> {
        let ran = Command::new("/bin/sh")
            .env_clear()
            .env("PATH", "/nowhere")
            .args(["-c", &format!("{text}printf %s. \"${name}\"")])
            .output()
            .expect("every Debian has /bin/sh");
        let value = String::from_utf8(ran.stdout).ok()?;
        Some(value.strip_suffix('.')?.to_owned())
    }

    #[test]
    fn export_expands_all_before_it_sets_any() {
        let text = "A=0\nexport A=1 B=$A\n";
        let script = Script::read(text);
        assert_eq!(shell(text, "B"), Some("0".into()));
        let b = script.variables.get("B").unwrap();
        assert_eq!(b.value, Some("0".into()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6000))]

        /// Where nothing is refused, every variable has the value that a shell gives it.
        #[test]
        fn as_a_shell(text in harmless()) {
            let text = text + "\n\n"; // A last line may end in a backslash.
            let script = Script::read(&text);
            if script.remarks.is_empty() {
                for (name, variable) in script.variables.by_line() {
                    prop_assert_eq!(&variable.value, &shell(&text, name), "{} in {:?}", name, text);
                }
            }
        }
    }
}
