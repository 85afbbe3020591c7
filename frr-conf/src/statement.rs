//! The lines of a frr.conf as statements within blocks.

/// A line of frr.conf and the blocks that enclose it, outermost first. The line that opens a block
/// is a statement too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Statement<'a> {
    pub(crate) blocks: Vec<&'a str>,
    pub(crate) line: &'a str,
}

/// The statements of a frr.conf, or of what vtysh shows, without comments.
pub(crate) fn statements(text: &str) -> Vec<Statement<'_>> {
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
                let openers = [
                    "interface ",
                    "route-map ",
                    "router ",
                    "line ",
                    "address-family ",
                ];
                if openers.iter().any(|word| line.starts_with(word)) {
                    blocks.push(line);
                }
            }
        }
    }
    found
}
