//! `ikv-fabric ipmi`: how to reach the switches' BMCs.

use std::fmt::Write;

use anyhow::ensure;
use clap::Args;

use super::Context;
use crate::completion::switch_names;
use api::IpmiAccess;
use host::rootless::inside::{self, Place};

/// Prints the ipmitool commands for the switches' BMCs, ready to paste.
#[derive(Debug, Args)]
pub(crate) struct IpmiArgs {
    /// Only this switch, such as leaf1 [default: all].
    #[arg(add = switch_names())]
    node: Option<String>,
}

/// # Errors
/// When no fabric answers, it has no BMCs, or none for this switch.
pub(crate) async fn run(context: &Context, args: &IpmiArgs) -> anyhow::Result<()> {
    let mut access = context.client.ipmi().await?;
    if let Some(node) = &args.node {
        access.bmcs.retain(|bmc| bmc.node == *node);
        ensure!(
            !access.bmcs.is_empty(),
            "{node} has no BMC here; `ikv-fabric ipmi` lists those that have"
        );
    }
    let inside = matches!(inside::place(context.client.socket()), Place::Inside { .. });
    let prefix = if inside { "ikv-fabric shell -- " } else { "" };
    context.report(&access, || text(&access, prefix))?;
    Ok(())
}

/// `prefix` stands before each command: what enters the namespace of the BMCs.
fn text(access: &IpmiAccess, prefix: &str) -> String {
    let file = quoted(&access.password_file.display().to_string());
    let mut text = format!(
        "# power status, on, off, cycle or reset; the password is in {file}\n\
         # (-C 3 saves 10 s: without it, ipmitool asks ipmi_sim for its cipher suites, and gets no answer)\n"
    );
    for bmc in &access.bmcs {
        let state = match (bmc.running, bmc.note.as_str()) {
            (true, _) => String::new(),
            (false, "") => ", not up yet".into(),
            (false, note) => format!(", down: {note}"),
        };
        let _ = writeln!(
            text,
            "{prefix}ipmitool -I lanplus -C 3 -H 127.0.0.1 -p {} -U {} -f {file} power status  # {}{state}",
            bmc.port, access.user, bmc.node
        );
    }
    let _ = writeln!(
        text,
        "# From a VM at {} (`ikv-fabric vm-args ipmi`) with an address of {}: -H {}",
        access.plug,
        access.address.trunc(),
        access.address.addr()
    );
    text
}

/// The path as one word for a shell.
fn quoted(path: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    if path.chars().all(plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::BmcReport;

    #[test]
    fn the_lines_can_be_pasted() {
        let bmc = |node: &str, port, running, note: &str| BmcReport {
            node: node.into(),
            port,
            addresses: vec![],
            running,
            note: note.into(),
        };
        let access = IpmiAccess {
            user: "ipmiusr".into(),
            password_file: "/tmp/it's here/ipmi_password".into(),
            address: "192.168.200.1/24".parse().unwrap(),
            plug: "ikipmi".into(),
            bmcs: vec![
                bmc("spine1", 9081, true, ""),
                bmc("leaf1", 9083, false, "ipmi_sim ended"),
            ],
        };
        insta::assert_snapshot!(text(&access, ""), @r"
        # power status, on, off, cycle or reset; the password is in '/tmp/it'\''s here/ipmi_password'
        # (-C 3 saves 10 s: without it, ipmitool asks ipmi_sim for its cipher suites, and gets no answer)
        ipmitool -I lanplus -C 3 -H 127.0.0.1 -p 9081 -U ipmiusr -f '/tmp/it'\''s here/ipmi_password' power status  # spine1
        ipmitool -I lanplus -C 3 -H 127.0.0.1 -p 9083 -U ipmiusr -f '/tmp/it'\''s here/ipmi_password' power status  # leaf1, down: ipmi_sim ended
        # From a VM at ikipmi (`ikv-fabric vm-args ipmi`) with an address of 192.168.200.0/24: -H 192.168.200.1
        ");
    }
}
