//! A shell's text as words and operators (POSIX.1-2017, Shell Command Language, sections 2.2,
//! 2.3 and 2.6). Nothing is run: what a shell would have to run becomes [`Part::Refused`].
//!
//! No function calls itself and none looks back, so time and memory are bounded by the text.

/// A word or what stands between words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Where it begins, from 1.
    pub line: usize,
    pub kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Word(Vec<Part>),
    /// One of `; & | < > ( )`.
    Operator(char),
    Newline,
}

/// A piece of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Letters as they stand.
    Plain(String),
    /// Letters that were quoted, so that they mean nothing but themselves.
    Quoted(String),
    /// `$NAME` or `${NAME}`.
    Variable(String),
    /// What stands in `$(( … ))`: plain parts and variables.
    Arithmetic(Vec<Part>),
    /// What is not read, and why.
    Refused(&'static str),
}

pub(super) const COMMAND: &str =
    "a command stands in it, and none is ever run: write what it would print";
const OPEN_QUOTE: &str = "a quote is not closed before the end of the file: close it";
const OPEN_BRACE: &str =
    "only ${NAME} and $NAME are read, no other form of expansion: write the value";
const OPEN_ARITHMETIC: &str = "$(( is not closed by )): close it";
const SPECIAL: &str =
    "it has a parameter that only a running shell knows, such as $1 or $?: write the value";
const OTHER_QUOTES: &str = "$'…' and $\"…\" differ from shell to shell: use plain quotes";

pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(begins_name) && text.chars().all(continues_name)
}

fn begins_name(letter: char) -> bool {
    letter.is_ascii_alphabetic() || letter == '_'
}

fn continues_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Splits a text into its tokens.
pub(super) struct Words<'t> {
    rest: &'t str,
    line: usize,
}

impl<'t> Words<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            rest: text,
            line: 1,
        }
    }

    /// The next letter, without taking it.
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.rest = &self.rest[letter.len_utf8()..];
        self.line += usize::from(letter == '\n');
        Some(letter)
    }

    /// Takes `text` if it is next.
    fn took(&mut self, text: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(text) else {
            return false;
        };
        self.line += text.matches('\n').count();
        self.rest = rest;
        true
    }

    /// Lines that end in a backslash go on in the next.
    fn join_lines(&mut self) {
        while self.took("\\\n") {}
    }

    fn name(&mut self) -> Option<&'t str> {
        let end = self
            .rest
            .find(|letter| !continues_name(letter))
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if !is_name(name) {
            return None;
        }
        self.rest = rest;
        Some(name)
    }

    fn word(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        loop {
            self.join_lines();
            match self.peek() {
                None | Some('\n' | ' ' | '\t' | ';' | '&' | '|' | '<' | '>' | '(' | ')') => {
                    return parts;
                }
                Some('\'') => self.single_quotes(&mut parts),
                Some('"') => self.double_quotes(&mut parts),
                Some('$') => {
                    self.dollar();
                    self.expansion(&mut parts, false);
                }
                Some('`') => self.backticks(&mut parts),
                Some('\\') => {
                    self.take();
                    let letter = self.take().unwrap_or('\\');
                    push_quoted(&mut parts, letter);
                }
                Some(letter) => {
                    self.take();
                    push_plain(&mut parts, letter);
                }
            }
        }
    }

    fn single_quotes(&mut self, parts: &mut Vec<Part>) {
        self.take();
        let Some(end) = self.rest.find('\'') else {
            self.rest = "";
            parts.push(Part::Refused(OPEN_QUOTE));
            return;
        };
        let text = &self.rest[..end];
        self.line += text.matches('\n').count();
        self.rest = &self.rest[end + 1..];
        parts.push(Part::Quoted(text.to_owned()));
    }

    fn double_quotes(&mut self, parts: &mut Vec<Part>) {
        self.take();
        parts.push(Part::Quoted(String::new())); // An empty pair is a word too.
        loop {
            self.join_lines();
            match self.peek() {
                None => {
                    parts.push(Part::Refused(OPEN_QUOTE));
                    return;
                }
                Some('"') => {
                    self.take();
                    return;
                }
                Some('$') => {
                    self.dollar();
                    self.expansion(parts, true);
                }
                Some('`') => self.backticks(parts),
                Some(mut letter) => {
                    self.take();
                    if letter == '\\'
                        && let Some(escaped @ ('$' | '`' | '"' | '\\')) = self.peek()
                    {
                        self.take();
                        letter = escaped;
                    }
                    push_quoted(parts, letter);
                }
            }
        }
    }

    fn dollar(&mut self) {
        self.take();
        self.join_lines();
    }

    /// After `$`.
    fn expansion(&mut self, parts: &mut Vec<Part>, in_quotes: bool) {
        if self.took("((") {
            self.arithmetic(parts);
        } else {
            self.simple_expansion(parts, in_quotes);
        }
    }

    /// After `$`, all but `((`.
    fn simple_expansion(&mut self, parts: &mut Vec<Part>, in_quotes: bool) {
        if self.took("(") {
            self.skip_command();
            parts.push(Part::Refused(COMMAND));
        } else if self.took("{") {
            self.braces(parts);
        } else if let Some(name) = self.name() {
            parts.push(Part::Variable(name.to_owned()));
        } else {
            match self.peek() {
                Some('\'' | '"') if !in_quotes => parts.push(Part::Refused(OTHER_QUOTES)),
                Some('0'..='9' | '@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                    self.take();
                    parts.push(Part::Refused(SPECIAL));
                }
                _ if in_quotes => push_quoted(parts, '$'),
                _ => push_plain(parts, '$'),
            }
        }
    }

    fn braces(&mut self, parts: &mut Vec<Part>) {
        let name = self.name();
        if let Some(name) = name
            && self.took("}")
        {
            parts.push(Part::Variable(name.to_owned()));
            return;
        }
        while self.peek().is_some_and(|letter| letter != '\n') && self.take() != Some('}') {}
        parts.push(Part::Refused(OPEN_BRACE));
    }

    /// After `$((`. One `$((` in another means what parentheses mean there.
    fn arithmetic(&mut self, parts: &mut Vec<Part>) {
        let mut inside = Vec::new();
        let mut open = 0_usize;
        loop {
            self.join_lines();
            if open == 0 && self.took("))") {
                parts.push(Part::Arithmetic(inside));
                return;
            }
            match self.peek() {
                None => {
                    parts.push(Part::Refused(OPEN_ARITHMETIC));
                    return;
                }
                Some('$') => {
                    self.dollar();
                    if self.took("((") {
                        open += 2;
                        push_plain(&mut inside, '(');
                        push_plain(&mut inside, '(');
                    } else {
                        self.simple_expansion(&mut inside, true);
                    }
                }
                Some('`') => self.backticks(&mut inside),
                Some(letter) => {
                    self.take();
                    match letter {
                        '(' => open += 1,
                        ')' if open == 0 => inside.push(Part::Refused(OPEN_ARITHMETIC)),
                        ')' => open -= 1,
                        _ => {}
                    }
                    push_plain(&mut inside, letter);
                }
            }
        }
    }

    fn backticks(&mut self, parts: &mut Vec<Part>) {
        self.take();
        loop {
            match self.take() {
                None | Some('`') => break,
                Some('\\') => {
                    self.take();
                }
                Some(_) => {}
            }
        }
        parts.push(Part::Refused(COMMAND));
    }

    /// After `$(`: up to its end, through quotes and what is nested.
    fn skip_command(&mut self) {
        let mut open = vec![')'];
        while let Some(end) = open.last().copied() {
            let Some(letter) = self.take() else { return };
            match letter {
                '\\' => {
                    self.take();
                }
                _ if letter == end => {
                    open.pop();
                }
                '\'' if end == ')' => while self.take().is_some_and(|letter| letter != '\'') {},
                '"' => open.push('"'),
                '`' => self.backticks_in_command(),
                '$' if self.took("(") => open.push(')'),
                '(' if end == ')' => open.push(')'),
                _ => {}
            }
        }
    }

    fn backticks_in_command(&mut self) {
        while let Some(letter) = self.take()
            && letter != '`'
        {
            if letter == '\\' {
                self.take();
            }
        }
    }
}

impl Iterator for Words<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            self.join_lines();
            let line = self.line;
            let kind = match self.peek()? {
                ' ' | '\t' => {
                    self.take();
                    continue;
                }
                '#' => {
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.rest = &self.rest[end..];
                    continue;
                }
                '\n' => {
                    self.take();
                    Kind::Newline
                }
                letter @ (';' | '&' | '|' | '<' | '>' | '(' | ')') => {
                    self.take();
                    Kind::Operator(letter)
                }
                _ => Kind::Word(self.word()),
            };
            return Some(Token { line, kind });
        }
    }
}

fn push_plain(parts: &mut Vec<Part>, letter: char) {
    match parts.last_mut() {
        Some(Part::Plain(text)) => text.push(letter),
        _ => parts.push(Part::Plain(letter.into())),
    }
}

fn push_quoted(parts: &mut Vec<Part>, letter: char) {
    match parts.last_mut() {
        Some(Part::Quoted(text)) => text.push(letter),
        _ => parts.push(Part::Quoted(letter.into())),
    }
}
