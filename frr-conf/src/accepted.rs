//! What of a switch's frr.conf its FRR did not take.

use crate::check::RenderError;
use crate::conf::SwitchConf;
use crate::render::render;
use crate::statement::statements;

/// Statements that FRR (8.4, 10.3) takes and does not show, because they are the defaults of the profile
/// `datacenter`.
const DEFAULTS: [&str; 2] = ["bgp log-neighbor-changes", "no bgp ebgp-requires-policy"];

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
    statements(asked)
        .into_iter()
        .filter(|asked| !DEFAULTS.contains(&asked.line) && !running.contains(asked))
        .map(|statement| {
            let mut words = statement.blocks;
            words.push(statement.line);
            words.join(" / ")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a leaf2 got, and what its FRR 8.4 showed.
    const ASKED: &str = include_str!("accepted/leaf2-asked.conf");
    const RUNNING: &str = include_str!("accepted/leaf2-running-8.4.conf");

    #[test]
    fn a_configuration_that_was_taken_lacks_nothing() {
        assert_eq!(missing(ASKED, RUNNING), [""; 0]);
    }

    /// What FRR 10 drops whose zebra and bgpd read the file without mgmtd.
    #[test]
    fn what_was_not_taken_is_named_with_its_blocks() {
        let dropped = [
            " ipv6 nd ra-interval 2",
            "ip prefix-list SHORT ",
            " maximum-paths 64",
        ];
        let kept = |line: &&str| !dropped.iter().any(|begin| line.contains(begin));
        let running: Vec<_> = RUNNING.lines().filter(kept).collect();
        let lacking = missing(ASKED, &running.join("\n"));
        for line in [
            "interface ens4 / ipv6 nd ra-interval 2",
            "ip prefix-list SHORT seq 5 permit 0.0.0.0/0 le 7",
            "router bgp 65504 / address-family ipv6 unicast / maximum-paths 64",
        ] {
            assert!(lacking.iter().any(|it| it == line), "{line}: {lacking:#?}");
        }
    }

    #[test]
    fn an_empty_answer_lacks_everything() {
        assert_eq!(missing(ASKED, "").len(), statements(ASKED).len() - 2);
        assert_eq!(
            missing(ASKED, "% Unknown command").len(),
            statements(ASKED).len() - 2
        );
    }
}
