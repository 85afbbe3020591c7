//! As much of Markdown as the project's pages use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A page of the project's documents.
#[derive(Debug, Clone)]
pub struct Page {
    /// Its path in the repository: `docs/src/plug.md`.
    pub path: String,
    text: String,
}

/// A fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Number of the line of its opening fence, from 1.
    pub line: usize,
    /// What stands behind the opening fence.
    pub language: String,
    /// Its lines, without the indentation of the fence.
    pub lines: Vec<String>,
}

/// A command that the reader may type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Number of its line, from 1.
    pub line: usize,
    /// As it is typed, without the remark behind it.
    pub text: String,
}

/// A link from a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Number of its line, from 1.
    pub line: usize,
    /// As written: `recipes/ci.md#a-script`.
    pub target: String,
}

impl Page {
    /// Reads a file of the repository whose folder is `root`.
    ///
    /// # Panics
    /// When it cannot be read, or is not below `root`.
    pub fn read(root: &Path, file: &Path) -> Self {
        let path = file.strip_prefix(root).expect("below the repository");
        let text = std::fs::read_to_string(file);
        Page::new(
            &path.display().to_string(),
            &text.unwrap_or_else(|error| panic!("{}: {error}", file.display())),
        )
    }

    /// A page with this path and text.
    pub fn new(path: &str, text: &str) -> Self {
        Page {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// The folder of its file, below `root`.
    pub fn folder(&self, root: &Path) -> PathBuf {
        let file = root.join(&self.path);
        file.parent().map(Path::to_owned).unwrap_or_default()
    }

    /// Its fenced blocks. One that is not closed reaches to the end.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<(Block, usize)> = None;
        for (index, line) in self.text.lines().enumerate() {
            let fence = line.trim_start().strip_prefix("```");
            match (open.take(), fence) {
                (None, Some(language)) => {
                    let block = Block {
                        line: index + 1,
                        language: language.trim().to_owned(),
                        lines: Vec::new(),
                    };
                    open = Some((block, line.len() - line.trim_start().len()));
                }
                (Some((block, _)), Some(_)) => blocks.push(block),
                (Some((mut block, indent)), None) => {
                    let blanks = line.len() - line.trim_start().len();
                    block.lines.push(line[blanks.min(indent)..].to_owned());
                    open = Some((block, indent));
                }
                (None, None) => {}
            }
        }
        blocks.extend(open.map(|(block, _)| block));
        blocks
    }

    /// The commands of its `sh` blocks, in order.
    pub fn commands(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        for block in self.blocks() {
            if block.language != "sh" || block.file().is_some() {
                continue;
            }
            for (index, line) in block.lines.iter().enumerate() {
                let text = without_remark(line);
                if !text.is_empty() {
                    commands.push(Command {
                        line: block.line + 1 + index,
                        text: text.to_owned(),
                    });
                }
            }
        }
        commands
    }

    /// The files that its examples need: name and content.
    pub fn files(&self) -> Vec<(String, String)> {
        let blocks = self.blocks().into_iter();
        blocks
            .filter_map(|block| Some((block.file()?, block.lines.join("\n") + "\n")))
            .collect()
    }

    /// Its lines outside of fenced blocks, numbered from 1, without what stands between backquotes or in
    /// comments.
    pub fn prose(&self) -> Vec<(usize, String)> {
        let (mut inside, mut comment) = (false, false);
        let mut prose = Vec::new();
        for (index, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                inside = !inside;
            } else if !inside {
                prose.push((
                    index + 1,
                    without_comment(&without_code(line), &mut comment),
                ));
            }
        }
        prose
    }

    /// Its links, of images too.
    pub fn links(&self) -> Vec<Link> {
        let mut links = Vec::new();
        for (line, text) in self.prose() {
            for (at, _) in text.match_indices("](") {
                if let Some((target, _)) = text[at + 2..].split_once(')') {
                    links.push(Link {
                        line,
                        target: target.to_owned(),
                    });
                }
            }
        }
        links
    }

    /// The anchors of its headings, as GitHub and mdBook make them.
    pub fn anchors(&self) -> Vec<String> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut inside = false;
        let mut anchors = Vec::new();
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                inside = !inside;
            }
            let heading = line.trim_start_matches('#');
            if inside || heading.len() == line.len() || !heading.starts_with(' ') {
                continue;
            }
            let anchor = anchor(heading.trim());
            let count = seen.entry(anchor.clone()).or_default();
            anchors.push(match *count {
                0 => anchor,
                again => format!("{anchor}-{again}"),
            });
            *count += 1;
        }
        anchors
    }
}

impl Block {
    /// The name of the file that it is, from its first line: `# lab.toml`, `! frr.conf`,
    /// `<!-- guest.xml -->`.
    pub fn file(&self) -> Option<String> {
        let first = self.lines.first()?;
        let name = ["# ", "! ", "// ", "<!-- "]
            .iter()
            .find_map(|sign| first.strip_prefix(sign))?;
        let name = name.trim_end_matches("-->").trim();
        let letters = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let is_name = name.contains('.') && name.chars().all(letters) && !name.ends_with('.');
        is_name.then(|| name.to_owned())
    }
}

/// A line without its remark, which begins with `#` at the line's start or behind two blanks.
fn without_remark(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with('#') {
        return "";
    }
    line.split_once("  #")
        .map_or(line, |(command, _)| command.trim_end())
}

/// A line with blanks in place of the code between backquotes.
fn without_code(line: &str) -> String {
    let mut text = String::new();
    for (index, part) in line.split('`').enumerate() {
        if index % 2 == 0 {
            text.push_str(part);
        } else {
            text.push_str(&" ".repeat(part.chars().count()));
        }
    }
    text
}

/// A line without its comments; `inside` is whether one is open at its beginning, and then at its end.
fn without_comment(line: &str, inside: &mut bool) -> String {
    let mut text = String::new();
    let mut rest = line;
    loop {
        let sign = if *inside { "-->" } else { "<!--" };
        let (before, after) = match rest.split_once(sign) {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        if !*inside {
            text.push_str(before);
        }
        let Some(after) = after else {
            return text;
        };
        *inside = !*inside;
        rest = after;
    }
}

/// A heading's anchor: lower case, blanks as dashes, without other signs.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
        _ => None,
    });
    kept.collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# A page: of `two` things
See [there](other.md#a-b), not `[here](gone.md)`, and ![a picture](p.png).

```sh
ikv-fabric status                 # is it ready?
# only a remark

  ikv-fabric exec leaf1 -- sh -c 'echo #1'
```

- in a list:
  ```toml
  # lab.toml
  [topology]
  racks = 2
  ```

<!-- for later: [a](b.md)
[c](d.md) --> [shown](e.md) <!-- [f](g.md) -->

```text
ikv-fabric never typed
# Not a heading
```
## Again
## Again
";

    #[test]
    fn commands_are_the_lines_of_sh_blocks() {
        let page = Page::new("a.md", TEXT);
        let commands: Vec<_> = page.commands();
        let lines: Vec<_> = commands.iter().map(|it| (it.line, &*it.text)).collect();
        assert_eq!(
            lines,
            [
                (5, "ikv-fabric status"),
                (8, "ikv-fabric exec leaf1 -- sh -c 'echo #1'")
            ]
        );
        let languages: Vec<_> = page.blocks().into_iter().map(|it| it.language).collect();
        assert_eq!(languages, ["sh", "toml", "text"]);
    }

    #[test]
    fn a_block_that_begins_with_a_name_is_a_file() {
        let page = Page::new("a.md", TEXT);
        let content = "# lab.toml\n[topology]\nracks = 2\n";
        assert_eq!(page.files(), [("lab.toml".to_owned(), content.to_owned())]);
        for no_file in [
            "# Two words.toml",
            "# word",
            "# ../up/x.toml",
            "# end.",
            "x.toml",
        ] {
            let block = Block {
                line: 1,
                language: "toml".into(),
                lines: vec![no_file.into()],
            };
            assert_eq!(block.file(), None, "{no_file}");
        }
    }

    #[test]
    fn links_and_anchors_are_those_outside_of_code() {
        let page = Page::new("a.md", TEXT);
        let links: Vec<_> = page.links().into_iter().map(|it| it.target).collect();
        assert_eq!(links, ["other.md#a-b", "p.png", "e.md"]);
        assert_eq!(page.anchors(), ["a-page-of-two-things", "again", "again-1"]);
    }
}
