//! What of a switch's frr.conf its FRR did not take.

use crate::check::RenderError;
use crate::conf::SwitchConf;
use crate::render::render;
use crate::statement::{Statement, statements};

/// Statements that FRR (8.4, 10.3) takes and does not show, because they ask for what is the default
/// or belongs to vtysh itself.
const NOT_SHOWN: [&str; 1] = ["line vty"];

/// The statements of the switch's frr.conf that are missing in what its vtysh shows as
/// `show running-config`, each with the blocks that it stands in.
///
/// # Errors
/// When the configuration cannot be rendered.
pub fn not_accepted(conf: &SwitchConf, running: &str) -> Result<Vec<String>, RenderError> {
    let files = render(conf)?;
    let asked = files.iter().find(|file| file.path == "etc/frr/frr.conf");
    Ok(missing(asked.map_or("", |file| &file.content), running))
}

fn missing(asked: &str, running: &str) -> Vec<String> {
    let running = statements(running);
    let is_shown = |statement: &Statement<'_>| {
        let of_its_block = statement.blocks.first().unwrap_or(&statement.line);
        !NOT_SHOWN.contains(of_its_block) && !NOT_SHOWN.contains(&statement.line)
    };
    statements(asked)
        .into_iter()
        .filter(|statement| is_shown(statement) && !running.contains(statement))
        .map(|statement| {
            let mut words = statement.blocks;
            words.push(statement.line);
            words.join(" / ")
        })
        .collect()
}
