//! A file of assignments, read as a shell would when it sources it, but never run.

use std::collections::HashMap;

use super::Remark;
use super::arithmetic::{compute, number};
use super::words::{Kind, Part, Token, Words, is_name};

/// The longest value, in bytes: more than any has sense, so that values that are made of values
/// cannot grow without end.
const LONGEST_VALUE: usize = 1024;

/// What a file sets.
#[derive(Debug, Default)]
pub(super) struct Script {
    variables: HashMap<String, Variable>,
    /// What could not be read.
    pub remarks: Vec<Remark>,
}

/// As it is at the end of the file.
#[derive(Debug)]
pub(super) struct Variable {
    /// Where it was set last, from 1.
    pub line: usize,
    /// None where the file sets it in a way that is not read, which has been remarked.
    pub value: Option<String>,
    /// Whether another value refers to it.
    pub used: bool,
}

impl Script {
    pub(super) fn read(text: &str) -> Self {
        let mut reader = Reader::default();
        let mut statement = Vec::new();
        for token in Words::new(text) {
            match token.kind {
                Kind::Operator(';') if statement.is_empty() => {
                    let what = "a ; stands where a shell takes none: remove it";
                    reader.script.remark(token.line, "", what);
                }
                Kind::Newline | Kind::Operator(';') => reader.statement(&statement),
                _ => {
                    statement.push(token);
                    continue;
                }
            }
            statement.clear();
            if reader.stopped {
                break;
            }
        }
        reader.statement(&statement);
        reader.script
    }

    pub(super) fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.get(name)
    }

    /// All of them, in the order of their lines.
    pub(super) fn variables(&self) -> Vec<(&str, &Variable)> {
        let mut all: Vec<_> = self
            .variables
            .iter()
            .map(|(name, variable)| (&**name, variable))
            .collect();
        all.sort_by_key(|(name, variable)| (variable.line, *name));
        all
    }

    fn remark(&mut self, line: usize, key: &str, what: impl Into<String>) {
        self.remarks.push(Remark {
            line,
            key: key.into(),
            what: what.into(),
            unread: true,
        });
    }

    fn set(&mut self, name: &str, line: usize, value: Option<String>) {
        let used = self.variables.get(name).is_some_and(|known| known.used);
        let variable = Variable { line, value, used };
        self.variables.insert(name.to_owned(), variable);
    }

    /// The value of a variable that another refers to.
    fn referred(&mut self, name: &str) -> Result<&str, String> {
        let Some(variable) = self.variables.get_mut(name) else {
            return Err(format!(
                "it refers to {name}, which is not set above: set it or write the value"
            ));
        };
        variable.used = true;
        variable.value.as_deref().ok_or_else(|| {
            format!(
                "it refers to {name}, which is not read from line {}: write the value",
                variable.line
            )
        })
    }

    fn expand(&mut self, parts: &[Part]) -> Result<String, String> {
        let mut value = String::new();
        for part in parts {
            match part {
                Part::Plain(text) | Part::Quoted(text) => value += text,
                Part::Variable(name) => value += self.referred(name)?,
                Part::Arithmetic(inside) => value += &self.compute(inside)?.to_string(),
                Part::Refused(why) => return Err((*why).to_owned()),
            }
            if value.len() > LONGEST_VALUE {
                return Err(format!(
                    "the value is longer than {LONGEST_VALUE} bytes: shorten it"
                ));
            }
        }
        Ok(value)
    }

    /// Variables are put in as text before anything is computed, as a shell does.
    fn compute(&mut self, inside: &[Part]) -> Result<i64, String> {
        let mut text = String::new();
        for part in inside {
            match part {
                Part::Plain(plain) | Part::Quoted(plain) => text += plain,
                Part::Variable(name) => text += self.referred(name)?,
                Part::Refused(why) => return Err((*why).to_owned()),
                // The reader of words makes parentheses of it.
                Part::Arithmetic(_) => return Err("$(( )) stands in $(( ))".to_owned()),
            }
            if text.len() > LONGEST_VALUE {
                return Err(format!(
                    "$(( )) holds more than {LONGEST_VALUE} bytes: shorten it"
                ));
            }
        }
        let mut names = HashMap::new();
        for name in text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_') {
            if is_name(name) {
                let value = self.referred(name)?;
                let value = number(value).map_err(|why| format!("{name}: {why}"))?;
                names.insert(name, value);
            }
        }
        compute(&text, |name| {
            let known = names.get(name).copied();
            known.ok_or_else(|| format!("it refers to {name}, which is not set above"))
        })
    }
}

/// Takes statement after statement.
#[derive(Default)]
struct Reader {
    script: Script,
    /// Commands that hold others (`if`, `{`, `(`) and are not closed yet; where the first begins.
    blocks: usize,
    parentheses: usize,
    since: usize,
    /// A here-document follows, which looks like statements but is none.
    stopped: bool,
}

impl Reader {
    fn statement(&mut self, tokens: &[Token]) {
        let Some(first) = tokens.first() else { return };
        let line = first.line;
        let inside = (self.blocks + self.parentheses > 0).then_some(self.since);
        let assignments: Vec<_> = tokens.iter().map(assignment).collect();
        // `export NAME=VALUE` sets it as well, `export NAME` changes nothing here.
        let exported = matches!(word(first), Some("export" | "readonly"));
        let is_read = |(index, token): (usize, &Token)| {
            assignments[index].is_some()
                || exported && (index == 0 || word(token).is_some_and(is_name))
        };
        if inside.is_none() && tokens.iter().enumerate().all(is_read) {
            let assignments = assignments.into_iter().flatten();
            if exported {
                // A command's words are all expanded before it sets the first.
                let expanded: Vec<_> = assignments
                    .map(|(name, line, parts)| (name, line, self.script.expand(&parts)))
                    .collect();
                for (name, line, value) in expanded {
                    self.assign(name, line, value);
                }
            } else {
                for (name, line, parts) in assignments {
                    let value = self.script.expand(&parts);
                    self.assign(name, line, value);
                }
            }
            return;
        }
        for (name, ..) in assignments.into_iter().flatten() {
            self.script.set(name, line, None);
        }
        self.follow_blocks(tokens);
        self.script.remark(line, "", refusal(tokens, inside));
        let operator = |token: &Token| token.kind == Kind::Operator('<');
        if tokens.windows(2).any(|two| two.iter().all(operator)) {
            self.stopped = true;
            let what = "a here-document begins: nothing from here on is read; move it to the end";
            self.script.remark(line, "", what);
        }
    }

    fn assign(&mut self, name: &str, line: usize, value: Result<String, String>) {
        match value {
            Ok(value) => self.script.set(name, line, Some(value)),
            Err(why) => {
                self.script.remark(line, name, why);
                self.script.set(name, line, None);
            }
        }
    }

    /// Notes which commands begin and end that hold others: what they set may never be set.
    fn follow_blocks(&mut self, tokens: &[Token]) {
        let before = self.blocks + self.parentheses;
        let mut command_next = true;
        for token in tokens {
            match (&token.kind, word(token)) {
                (Kind::Operator('('), _) => self.parentheses += 1,
                (Kind::Operator(')'), _) => self.parentheses = self.parentheses.saturating_sub(1),
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
            command_next = match word(token) {
                Some(word) => ["then", "do", "else", "elif", "{", "!"].contains(&word),
                None => matches!(token.kind, Kind::Operator(_)),
            };
        }
        if before == 0 {
            self.since = tokens.first().map_or(0, |token| token.line);
        }
    }
}

/// Why a statement is not read.
fn refusal(tokens: &[Token], inside: Option<usize>) -> String {
    if let Some(since) = inside {
        return format!("it stands in a command that begins in line {since}, and none is run");
    }
    let command = tokens
        .iter()
        .find(|token| assignment(token).is_none())
        .and_then(word);
    match command {
        Some("." | "source") => {
            "another file is not read: import it too, or copy its lines here".into()
        }
        Some(command) => {
            format!("`{command}` is a command, and none is run: only NAME=VALUE is read")
        }
        None => "this is a command, and none is run: only NAME=VALUE is read".into(),
    }
}

/// The word, if it is one without quotes and expansions.
fn word(token: &Token) -> Option<&str> {
    match &token.kind {
        Kind::Word(parts) => match &parts[..] {
            [Part::Plain(text)] => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// Name, line and value of `NAME=VALUE`.
fn assignment(token: &Token) -> Option<(&str, usize, Vec<Part>)> {
    let Kind::Word(parts) = &token.kind else {
        return None;
    };
    let [Part::Plain(first), rest @ ..] = &parts[..] else {
        return None;
    };
    let (name, value) = first.split_once('=').filter(|(name, _)| is_name(name))?;
    let mut value_parts = Vec::new();
    if value.starts_with('~') {
        value_parts.push(Part::Refused(
            "~ stands for a home directory: write its path",
        ));
    }
    value_parts.push(Part::Plain(value.to_owned()));
    value_parts.extend(rest.iter().cloned());
    Some((name, token.line, value_parts))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// Nothing of these writes, waits or starts a program.
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

    /// What a shell that runs the file makes of a variable; None where it does not end well.
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
        let b = script
            .variables()
            .into_iter()
            .find(|(name, _)| *name == "B");
        assert_eq!(b.and_then(|(_, b)| b.value.clone()), Some("0".into()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6000))]

        /// A file of which nothing is refused means to us what it means to a shell.
        #[test]
        fn as_a_shell(text in harmless()) {
            let text = text + "\n\n"; // A last line may end in a backslash.
            let script = Script::read(&text);
            if script.remarks.is_empty() {
                for (name, variable) in script.variables() {
                    prop_assert_eq!(&variable.value, &shell(&text, name), "{} in {:?}", name, text);
                }
            }
        }
    }
}
