//! The routing daemons: the lines for vtysh that lead from one frr.conf to another.

use std::net::Ipv4Addr;

use super::{Difference, Unchangeable, at_start};
use crate::statement::{Statement, statements};

/// Lines for vtysh, in two parts.
pub(super) struct VtyshLines {
    pub(super) now: Vec<String>,
    /// To run once the removed NICs are unplugged.
    pub(super) afterwards: Vec<String>,
}

/// How vtysh adds or removes a statement.
enum VtyshAction {
    /// By this line, inside the statement's blocks.
    Run(String),
    /// The line of another statement does it.
    Implied,
    /// By this line, once the removed NICs are unplugged.
    RunAfterwards(String),
}

pub(super) fn change(before: &str, after: &str) -> Result<VtyshLines, Unchangeable> {
    let Difference { removed, added } = Difference::of(statements(before), statements(after));
    let mut script = Script::default();
    let mut afterwards = Vec::new();
    // frr.conf defines a thing before it uses it, so removal goes in reverse.
    for statement in removed.iter().rev() {
        match removal(statement, &removed)? {
            VtyshAction::Run(line) => script.push(&statement.blocks, line),
            VtyshAction::Implied => {}
            VtyshAction::RunAfterwards(line) => afterwards.push(line),
        }
    }
    for statement in &added {
        if let VtyshAction::Run(line) = addition(statement, &added)? {
            script.push(&statement.blocks, line);
        }
    }
    script.enter(&[]);
    Ok(VtyshLines {
        now: script.lines,
        afterwards,
    })
}

/// How vtysh removes a statement, given all statements that the new frr.conf lacks.
fn removal(
    statement: &Statement<'_>,
    removed: &[Statement<'_>],
) -> Result<VtyshAction, Unchangeable> {
    let words: Vec<_> = statement.line.split(' ').collect();
    Ok(match (statement.blocks.as_slice(), words.as_slice()) {
        ([], words) if is_list_entry(words) => VtyshAction::Run(format!("no {}", statement.line)),
        ([], ["interface", _]) => VtyshAction::RunAfterwards(format!("no {}", statement.line)),
        ([block], _) if is_interface(block) && opens(removed, block) => VtyshAction::Implied,
        ([_], ["neighbor", _, "interface", "peer-group", _]) => {
            VtyshAction::Run(format!("no {}", statement.line))
        }
        ([_], ["bgp", "listen", "range", ..]) => VtyshAction::Run(format!("no {}", statement.line)),
        ([_], ["neighbor", peer, "remote-as", _]) if is_address(peer) => {
            VtyshAction::Run(format!("no neighbor {peer}"))
        }
        (_, ["neighbor", peer, ..]) if defines_neighbour(peer, removed) => VtyshAction::Implied,
        _ => return Err(refused(statement, removed)),
    })
}

/// How vtysh adds a statement, given all statements that the old frr.conf lacks.
fn addition(
    statement: &Statement<'_>,
    added: &[Statement<'_>],
) -> Result<VtyshAction, Unchangeable> {
    let words: Vec<_> = statement.line.split(' ').collect();
    Ok(match (statement.blocks.as_slice(), words.as_slice()) {
        // The first statement inside the block enters it.
        ([], ["interface", _]) => VtyshAction::Implied,
        ([], words) if is_list_entry(words) => VtyshAction::Run(statement.line.into()),
        ([block], _) if is_interface(block) && opens(added, block) => {
            VtyshAction::Run(statement.line.into())
        }
        ([_], ["neighbor", _, "interface", "peer-group", _] | ["bgp", "listen", "range", ..]) => {
            VtyshAction::Run(statement.line.into())
        }
        (_, ["neighbor", peer, ..]) if defines_neighbour(peer, added) => {
            VtyshAction::Run(statement.line.into())
        }
        _ => return Err(refused(statement, added)),
    })
}

/// The refusal. It names the outermost enclosing block that changed, otherwise the statement.
fn refused(statement: &Statement<'_>, changed: &[Statement<'_>]) -> Unchangeable {
    let block = statement.blocks.iter().find(|block| opens(changed, block));
    at_start("etc/frr/frr.conf", block.unwrap_or(&statement.line))
}

/// Whether a statement is an entry of a list: vtysh can add and remove those one by one.
fn is_list_entry(words: &[&str]) -> bool {
    matches!(
        words,
        ["ip" | "ipv6", "prefix-list", _, "seq", ..]
            | ["bgp", "as-path", "access-list", _, "seq", ..]
            | ["debug", "bgp", "updates", "in", _]
    )
}

fn is_interface(block: &str) -> bool {
    block.starts_with("interface ")
}

fn is_address(peer: &str) -> bool {
    peer.parse::<Ipv4Addr>().is_ok()
}

/// Whether the statements contain the line that opens this block.
fn opens(statements: &[Statement<'_>], block: &str) -> bool {
    statements
        .iter()
        .any(|statement| statement.blocks.is_empty() && statement.line == block)
}

/// Whether the statements contain the one that defines this neighbour, which has an address.
fn defines_neighbour(peer: &str, statements: &[Statement<'_>]) -> bool {
    let first = format!("neighbor {peer} remote-as ");
    is_address(peer)
        && statements
            .iter()
            .any(|found| found.line.starts_with(&first))
}

/// Collects lines for vtysh and adds the lines that enter and leave blocks.
#[derive(Default)]
struct Script {
    lines: Vec<String>,
    inside: Vec<String>,
}

impl Script {
    fn push(&mut self, blocks: &[&str], line: String) {
        self.enter(blocks);
        self.lines.push(line);
    }

    /// Leaves and enters blocks until the next line stands inside `blocks`.
    fn enter(&mut self, blocks: &[&str]) {
        let common =
            (self.inside.iter().zip(blocks)).take_while(|(current, wanted)| current == wanted);
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
