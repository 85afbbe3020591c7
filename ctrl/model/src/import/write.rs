//! Settings as a TOML file that a person can go on editing.

use super::keys::Setting;
use crate::config;

/// The file, with tables and keys in the order of the example file.
pub(super) fn write(name: &str, mut settings: Vec<Setting<'_>>) -> String {
    let name = name.escape_debug();
    let mut toml = format!(
        "# What {name} sets and ikv-fabric's defaults do not.\n# `ikv-fabric run -c FILE`\n"
    );
    settings.sort_by_key(|setting| config::order(setting.key));
    let mut last_table = "";
    for Setting {
        key,
        value,
        from,
        line,
    } in settings
    {
        let (table, key) = key.split_once('.').unwrap_or(("", key));
        if table != last_table {
            last_table = table;
            toml += &format!("\n[{table}]\n");
        }
        toml += &format!("# {from}, line {line}\n");
        toml += &config::toml_line(key, &value);
        toml.push('\n');
    }
    toml
}
