//! Every file of five switches of the default fabric, one switch of each kind.

#![expect(clippy::unwrap_used, reason = "a test")]

mod default_fabric;

use std::fmt::Write as _;

use ikv_frr_conf::render;

#[test]
fn files_of_the_default_fabric() {
    for name in ["internet", "spine1", "leaf1", "leaf2", "leaf3"] {
        let mut text = String::new();
        for file in render(&default_fabric::switch(name)).unwrap() {
            writeln!(
                text,
                "==> {} {:o} <==\n{}",
                file.path, file.mode, file.content
            )
            .unwrap();
        }
        insta::assert_snapshot!(name, text);
    }
}
