//! A shell's text as expanded words and operators (POSIX.1-2017, Shell Command Language, sections
//! 2.2, 2.3 and 2.6). Nothing is run: a word that would need it is refused.
//!
//! The scanner neither recurses nor looks back, so that a hostile file costs time and memory in
//! proportion to its length.

use super::arithmetic::{evaluate, number};
use super::script::Variables;

/// The longest word, in bytes. No real one comes near; the bound keeps values that are made of
/// other values from growing exponentially.
const LONGEST_WORD: usize = 1024;

const COMMAND: &str =
    "a command stands in it, and none is ever run: write what the command would print";
const OPEN_QUOTE: &str = "a quote is not closed before the end of the file: close it";
const BRACES: &str = "only ${NAME} and $NAME are read, no other form of expansion: write the value";
const OPEN_ARITHMETIC: &str = "$(( is not closed by )): close it";
const SPECIAL: &str =
    "it has a parameter that only a running shell knows, such as $1 or $?: write the value";
const OTHER_QUOTES: &str = "$'…' and $\"…\" differ from shell to shell: use plain quotes";
const HOME: &str = "~ stands for a home directory: write its path";

pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| !c.is_ascii_digit()) && name_length(text) == text.len()
}

/// How many bytes at the start of `text` could belong to a name or number.
pub(super) fn name_length(text: &str) -> usize {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    end.unwrap_or(text.len())
}

/// A word or an operator.
#[derive(Debug, Default)]
pub(super) struct Token {
    /// The line where it begins, from 1.
    pub line: usize,
    /// One of `; & | < > ( )` or the end of a line.
    pub operator: Option<char>,
    /// The word, with quotes removed and `$` expanded. Incomplete where `refused`.
    text: String,
    /// Where the first quote or expansion of the word was.
    special: Option<usize>,
    /// Why it is not read.
    refused: Option<String>,
}

impl Token {
    /// The word, if it has no quotes and no expansions, so that it may be a keyword.
    pub(super) fn plain(&self) -> Option<&str> {
        (self.operator.is_none() && self.special.is_none()).then_some(&self.text)
    }

    /// Name and value of `NAME=VALUE`, or why the value is not read.
    pub(super) fn assignment(&self) -> Option<(&str, Result<&str, &str>)> {
        let plain = &self.text[..self.special.unwrap_or(self.text.len())];
        let (name, plain_value) = plain.split_once('=').filter(|(name, _)| is_name(name))?;
        let value = match &self.refused {
            Some(why) => Err(&**why),
            None if plain_value.starts_with('~') => Err(HOME),
            None => Ok(&self.text[name.len() + 1..]),
        };
        Some((name, value))
    }

    fn mark_special(&mut self) {
        self.special.get_or_insert(self.text.len());
    }

    fn add(&mut self, text: &str) {
        if self.refused.is_none() {
            self.text += text;
            if self.text.len() > LONGEST_WORD {
                self.refuse(format!(
                    "it is longer than {LONGEST_WORD} bytes: shorten it"
                ));
            }
        }
    }

    fn add_result(&mut self, result: Result<impl AsRef<str>, String>) {
        match result {
            Ok(text) => self.add(text.as_ref()),
            Err(why) => self.refuse(why),
        }
    }

    /// The first reason stays.
    fn refuse(&mut self, why: impl Into<String>) {
        self.refused.get_or_insert_with(|| why.into());
    }
}

/// Splits a text into its tokens.
pub(super) struct Scanner<'t> {
    rest: &'t str,
    line: usize,
    /// The one that is being read.
    token: Token,
    /// What `$NAME` stands for at this point of the text; set by the reader of statements.
    pub variables: Variables,
}

impl<'t> Scanner<'t> {
    pub(super) fn new(rest: &'t str) -> Self {
        Self {
            rest,
            line: 1,
            token: Token::default(),
            variables: Variables::default(),
        }
    }

    pub(super) fn token(&mut self) -> Option<Token> {
        self.join_lines();
        while self.took(" ") || self.took("\t") {
            self.join_lines();
        }
        if self.rest.starts_with('#') {
            self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
        }
        self.token.line = self.line;
        if self.rest.starts_with(ends_word) {
            self.token.operator = self.take().chars().next();
        } else if !self.rest.is_empty() {
            self.word();
        } else {
            return None;
        }
        Some(std::mem::take(&mut self.token))
    }

    /// Takes a character; empty at the end.
    fn take(&mut self) -> &'t str {
        self.skip(self.rest.chars().next().map_or(0, char::len_utf8))
    }

    /// Takes `bytes` bytes.
    fn skip(&mut self, bytes: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    /// Takes `text` if it is next.
    fn took(&mut self, text: &str) -> bool {
        let next = self.rest.starts_with(text);
        if next {
            self.skip(text.len());
        }
        next
    }

    /// A line that ends in a backslash continues in the next one.
    fn join_lines(&mut self) {
        while self.took("\\\n") {}
    }

    fn word(&mut self) {
        let mut quote = "";
        loop {
            if quote != "'" {
                self.join_lines();
            }
            if quote.is_empty() && self.rest.starts_with(ends_word) {
                return;
            }
            let next = self.take();
            if matches!(next, "\"" | "'" | "\\" | "$" | "`") {
                self.token.mark_special();
            }
            match next {
                "" if quote.is_empty() => return,
                "" => return self.token.refuse(OPEN_QUOTE),
                _ if next == quote => quote = "",
                _ if quote == "'" => self.token.add(next),
                "'" | "\"" if quote.is_empty() => quote = next,
                // In double quotes a backslash stands for itself before other characters.
                "\\" if quote.is_empty() || self.rest.starts_with(['$', '`', '"', '\\']) => {
                    let escaped = self.take();
                    self.token
                        .add(if escaped.is_empty() { next } else { escaped });
                }
                "$" => self.expansion(!quote.is_empty()),
                "`" => self.skip_command("`"),
                _ => self.token.add(next),
            }
        }
    }

    /// After `$`.
    fn expansion(&mut self, quoted: bool) {
        self.join_lines();
        if self.took("((") {
            self.arithmetic();
        } else if self.took("(") {
            self.skip_command(")");
        } else if self.took("{") {
            let name = self.skip(name_length(self.rest));
            if is_name(name) && self.took("}") {
                return self.variable(name);
            }
            while !self.rest.starts_with('\n') && !matches!(self.take(), "}" | "") {}
            self.token.refuse(BRACES);
        } else if self
            .rest
            .starts_with(|c: char| c.is_ascii_digit() || "@*#?-$!".contains(c))
        {
            self.take();
            self.token.refuse(SPECIAL);
        } else if !quoted && self.rest.starts_with(['\'', '"']) {
            self.token.refuse(OTHER_QUOTES);
        } else {
            match self.skip(name_length(self.rest)) {
                "" => self.token.add("$"),
                name => self.variable(name),
            }
        }
    }

    fn variable(&mut self, name: &str) {
        self.token.add_result(self.variables.referred(name));
    }

    /// After `$((`. A second `$((` within means what parentheses mean there.
    fn arithmetic(&mut self) {
        let start = self.token.text.len();
        let mut open = 0;
        loop {
            self.join_lines();
            if open == 0 && self.took("))") {
                return self.evaluate_from(start);
            }
            match self.take() {
                "" => return self.token.refuse(OPEN_ARITHMETIC),
                ")" if open == 0 => self.token.refuse(OPEN_ARITHMETIC),
                "`" => self.skip_command("`"),
                "$" => {
                    self.join_lines();
                    if self.took("((") {
                        open += 2;
                        self.token.add("((");
                    } else {
                        self.expansion(true);
                    }
                }
                text => {
                    open += i32::from(text == "(") - i32::from(text == ")");
                    self.token.add(text);
                }
            }
        }
    }

    /// Replaces the expression that begins at `start` of the word. As in a shell, variables with
    /// a `$` have become text of it by now.
    fn evaluate_from(&mut self, start: usize) {
        if self.token.refused.is_some() {
            return;
        }
        let expression = self.token.text.split_off(start);
        let result = evaluate(&expression, |name| {
            number(self.variables.referred(name)?).map_err(|why| format!("{name}: {why}"))
        });
        self.token
            .add_result(result.map(|result| result.to_string()));
    }

    /// Skips a command after its `$(` or backtick, up to `end`, through quotes and what is nested.
    fn skip_command(&mut self, end: &'static str) {
        self.token.refuse(COMMAND);
        let mut open = vec![end];
        while let Some(end) = open.last().copied() {
            match (self.take(), end) {
                ("", _) => return,
                (next, _) if next == end => _ = open.pop(),
                (_, "'") => {}
                ("\\", _) => _ = self.take(),
                (_, "`") => {}
                ("`", _) => open.push("`"),
                ("\"", _) => open.push("\""),
                ("'", ")") => open.push("'"),
                ("(", ")") => open.push(")"),
                ("$", _) if self.took("(") => open.push(")"),
                _ => {}
            }
        }
    }
}

fn ends_word(c: char) -> bool {
    "\n \t;&|<>()".contains(c)
}
