//! Settings as a TOML file that a person likes to go on with.

use std::fmt::Write;

use toml::Value;

use super::keys::Setting;
use crate::config;

/// The longest line that holds a list.
const WIDTH: usize = 100;

/// The file; tables and keys in the order of the example file.
pub(super) fn write(name: &str, settings: &[Setting]) -> String {
    let name = name.escape_debug();
    let mut toml = format!(
        "# What {name} sets and ikv-fabric's defaults do not.\n# `ikv-fabric run -c FILE`\n"
    );
    let mut settings: Vec<&Setting> = settings.iter().collect();
    settings.sort_by_key(|setting| config::order(setting.key));
    let mut open = "";
    for setting in settings {
        let (table, key) = setting.key.split_once('.').unwrap_or(("", setting.key));
        if table != open {
            open = table;
            let _ = write!(toml, "\n[{table}]\n"); // Into a text nothing fails.
        }
        let _ = writeln!(toml, "# {}, line {}", setting.from, setting.line);
        let _ = writeln!(toml, "{key} = {}", shown(&setting.value, key.len() + 3));
    }
    toml
}

fn shown(value: &Value, before: usize) -> String {
    let line = value.to_string();
    match value {
        Value::Array(list) if before + line.len() > WIDTH => {
            let mut lines = String::from("[\n");
            for value in list {
                let _ = writeln!(lines, "    {value},");
            }
            lines + "]"
        }
        _ => line,
    }
}
