//! The parts of the host's apt configuration that a build needs.

use tokio::process::Command;

use super::error::ImageError;

/// The host's options for reaching an archive: proxies, retries, checks of dates, and files with
/// passwords. mmdebstrap does not read the host's configuration itself.
pub(super) async fn options() -> Result<String, ImageError> {
    let mut dump = Command::new("apt-config");
    let dump = dump.arg("dump").kill_on_drop(true).output().await;
    let dump = dump.map_err(|source| ImageError::Start {
        program: "apt-config",
        source,
    })?;
    let mut options = acquire_options(&String::from_utf8_lossy(&dump.stdout));
    options += "Dir::Etc::netrc \"/etc/apt/auth.conf\";\n";
    options += "Dir::Etc::netrcparts \"/etc/apt/auth.conf.d\";\n";
    Ok(options)
}

/// The lines of `apt-config dump` that say how to reach an archive.
fn acquire_options(dump: &str) -> String {
    /// The options of apt.conf(5)'s group Acquire about the connection, not about contents.
    const KEPT: &[&str] = &[
        "http",
        "https",
        "ftp",
        "socks",
        "tor",
        "Retries",
        "Check-Valid-Until",
        "Check-Date",
        "Max-ValidTime",
        "Max-FutureTime",
        "ForceIPv4",
        "ForceIPv6",
        "Queue-Mode",
        "EnableSrvRecords",
    ];
    dump.split_inclusive('\n')
        .filter(|line| {
            line.strip_prefix("Acquire::").is_some_and(|rest| {
                let end = rest.find([':', ' ']).unwrap_or(rest.len());
                KEPT.iter()
                    .any(|kept| kept.eq_ignore_ascii_case(&rest[..end]))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_connection_are_kept_and_nothing_else() {
        let dump = "\
APT::Architecture \"amd64\";
Acquire::IndexTargets::deb::DEP-11::MetaKey \"x\";
Acquire::Check-Valid-Until \"false\";
Acquire::http \"\";
Acquire::http::Proxy \"http://proxy.example:3128\";
Acquire::https::archive.example::Verify-Peer \"false\";
Acquire::httpx \"\";
Acquire::Languages:: \"none\";
DPkg::Post-Invoke:: \"rm -rf /\";
";
        assert_eq!(
            acquire_options(dump),
            "Acquire::Check-Valid-Until \"false\";\n\
             Acquire::http \"\";\n\
             Acquire::http::Proxy \"http://proxy.example:3128\";\n\
             Acquire::https::archive.example::Verify-Peer \"false\";\n"
        );
    }
}
