//! The routing daemons: which lines vtysh is given.

use std::net::Ipv4Addr;

use super::{Difference, Unchangeable, at_start};

/// Lines for vtysh.
pub(super) struct Lines {
    pub(super) now: Vec<String>,
    /// Once the NICs that go are gone.
    pub(super) afterwards: Vec<String>,
}

/// A line of frr.conf and the blocks it stands in, outermost first. A block's first line is a
/// statement too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Statement<'a> {
    blocks: Vec<&'a str>,
    line: &'a str,
}

/// What to do about a statement.
enum Step {
    /// Say so, in its blocks.
    Say(String),
    /// Nothing: another step brings it about.
    Implied,
    /// Say so once the NICs are gone.
    Afterwards(String),
}

pub(super) fn change(before: &str, after: &str) -> Result<Lines, Unchangeable> {
    let Difference { removed, added } = Difference::of(statements(before), statements(after));
    let mut script = Script::default();
    let mut afterwards = Vec::new();
    // What is used stands before its users.
    for statement in removed.iter().rev() {
        match take_back(statement, &removed)? {
            Step::Say(line) => script.say(&statement.blocks, line),
            Step::Implied => {}
            Step::Afterwards(line) => afterwards.push(line),
        }
    }
    for statement in &added {
        if let Step::Say(line) = give(statement, &added)? {
            script.say(&statement.blocks, line);
        }
    }
    script.enter(&[]);
    Ok(Lines {
        now: script.lines,
        afterwards,
    })
}

fn take_back(statement: &Statement<'_>, removed: &[Statement<'_>]) -> Result<Step, Unchangeable> {
    let words: Vec<_> = statement.line.split(' ').collect();
    Ok(match (statement.blocks.as_slice(), words.as_slice()) {
        ([], words) if is_list(words) => Step::Say(format!("no {}", statement.line)),
        ([], ["interface", _]) => Step::Afterwards(format!("no {}", statement.line)),
        ([block], _) if is_interface(block) && has(removed, block) => Step::Implied,
        ([_], ["neighbor", _, "interface", "peer-group", _]) => {
            Step::Say(format!("no {}", statement.line))
        }
        ([_], ["neighbor", peer, "remote-as", _]) if is_address(peer) => {
            Step::Say(format!("no neighbor {peer}"))
        }
        (_, ["neighbor", peer, ..]) if introduced(peer, removed) => Step::Implied,
        _ => return Err(refused(statement, removed)),
    })
}

fn give(statement: &Statement<'_>, added: &[Statement<'_>]) -> Result<Step, Unchangeable> {
    let words: Vec<_> = statement.line.split(' ').collect();
    Ok(match (statement.blocks.as_slice(), words.as_slice()) {
        // Entered for the sake of what stands in it.
        ([], ["interface", _]) => Step::Implied,
        ([], words) if is_list(words) => Step::Say(statement.line.into()),
        ([block], _) if is_interface(block) && has(added, block) => {
            Step::Say(statement.line.into())
        }
        ([_], ["neighbor", _, "interface", "peer-group", _]) => Step::Say(statement.line.into()),
        (_, ["neighbor", peer, ..]) if introduced(peer, added) => Step::Say(statement.line.into()),
        _ => return Err(refused(statement, added)),
    })
}

/// By the outermost block that is not the same, if there is one.
fn refused(statement: &Statement<'_>, changed: &[Statement<'_>]) -> Unchangeable {
    let block = statement.blocks.iter().find(|block| has(changed, block));
    at_start("etc/frr/frr.conf", block.unwrap_or(&statement.line))
}

/// Entries of lists have numbers of their own.
fn is_list(words: &[&str]) -> bool {
    matches!(
        words,
        ["ip" | "ipv6", "prefix-list", _, "seq", ..]
            | ["bgp", "as-path", "access-list", _, "seq", ..]
    )
}

fn is_interface(block: &str) -> bool {
    block.starts_with("interface ")
}

fn is_address(peer: &str) -> bool {
    peer.parse::<Ipv4Addr>().is_ok()
}

/// Whether the block itself is among the statements.
fn has(statements: &[Statement<'_>], block: &str) -> bool {
    statements
        .iter()
        .any(|statement| statement.blocks.is_empty() && statement.line == block)
}

/// Whether a neighbour by address is named for the first time among the statements.
fn introduced(peer: &str, statements: &[Statement<'_>]) -> bool {
    let first = format!("neighbor {peer} remote-as ");
    is_address(peer)
        && statements
            .iter()
            .any(|found| found.line.starts_with(&first))
}

fn statements(text: &str) -> Vec<Statement<'_>> {
    let mut blocks = Vec::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        match line {
            "exit" | "exit-address-family" => drop(blocks.pop()),
            _ if line.is_empty() || line.starts_with('!') => {}
            _ => {
                found.push(Statement {
                    blocks: blocks.clone(),
                    line,
                });
                let opens = [
                    "interface ",
                    "route-map ",
                    "router ",
                    "line ",
                    "address-family ",
                ];
                if opens.iter().any(|word| line.starts_with(word)) {
                    blocks.push(line);
                }
            }
        }
    }
    found
}

/// Lines for vtysh, with the entering and leaving of blocks between them.
#[derive(Default)]
struct Script {
    lines: Vec<String>,
    inside: Vec<String>,
}

impl Script {
    fn say(&mut self, blocks: &[&str], line: String) {
        self.enter(blocks);
        self.lines.push(line);
    }

    fn enter(&mut self, blocks: &[&str]) {
        let common = (self.inside.iter().zip(blocks)).take_while(|(is, be)| is == be);
        let common = common.count();
        for block in self.inside.drain(common..).rev() {
            let leave = if block.starts_with("address-family ") {
                "exit-address-family"
            } else {
                "exit"
            };
            self.lines.push(leave.into());
        }
        for block in &blocks[common..] {
            self.lines.push((*block).to_owned());
            self.inside.push((*block).to_owned());
        }
    }
}
