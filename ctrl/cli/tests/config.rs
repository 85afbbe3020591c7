//! `ikv-fabric config` as a user runs it: no root, no fabric.

use std::io::Write;
use std::process::{Command, Output};

fn ikv_fabric(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ikv-fabric"))
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    std::str::from_utf8(&output.stdout).expect("the output is UTF-8")
}

#[test]
fn the_example_is_a_configuration_that_changes_nothing() {
    let example = ikv_fabric(&["config", "example"]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(stdout(&example).as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    let with_example = ikv_fabric(&["topology", "--json", "-c", path]);
    let default = ikv_fabric(&["topology", "--json"]);
    assert_eq!(stdout(&with_example), stdout(&default));
}

#[test]
fn the_schema_describes_every_table_of_the_example() {
    let schema = ikv_fabric(&["config", "schema"]);
    let schema: serde_json::Value = serde_json::from_str(stdout(&schema)).unwrap();
    let example = ikv_fabric(&["config", "example"]);
    let tables = stdout(&example)
        .lines()
        .filter_map(|line| line.strip_prefix('[')?.strip_suffix(']'))
        .filter(|table| !table.starts_with('['));
    let mut seen = 0;
    for table in tables {
        assert!(schema["properties"][table].is_object(), "{table}");
        seen += 1;
    }
    assert!(seen > 5, "the example shows {seen} tables");
}

#[test]
fn a_mistyped_command_is_a_usage_error() {
    assert_eq!(ikv_fabric(&["config", "exmaple"]).status.code(), Some(2));
}
