//! Stub until branch capture is merged.
#![allow(missing_docs, clippy::missing_errors_doc)]

pub fn compile(expression: &str) -> anyhow::Result<Vec<(u16, u8, u8, u32)>> {
    anyhow::bail!("\"{expression}\": filters cannot be compiled yet")
}
