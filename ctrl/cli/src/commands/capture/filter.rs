//! Filters: libpcap compiles tcpdump expressions in this process. The fabric receives the
//! instructions and validates them, as it validates everything that a client sends.

use dataplane::bpf;
use pcap::{Capture, Linktype};

/// Compiles an expression (pcap-filter(7)) for Ethernet frames.
///
/// # Errors
/// When libpcap does not understand the expression, or compiles it to what no cable can run; the
/// sentence quotes both.
pub(crate) fn compile(expression: &str) -> anyhow::Result<Vec<(u16, u8, u8, u32)>> {
    let refused = |reason: String| {
        anyhow::anyhow!(
            "\"{expression}\" is not a tcpdump expression: {reason}; `man pcap-filter` describes them"
        )
    };
    // Without a device, libpcap compiles a program that looks only at the bytes of the frame.
    let ethernet = Capture::dead(Linktype::ETHERNET).map_err(|error| refused(text(&error)))?;
    let program = ethernet
        .compile(expression, true)
        .map_err(|error| refused(text(&error)))?;
    let instructions = program.get_instructions().iter();
    let parsed = instructions.map(|instruction| parse(&instruction.to_string()));
    let program = parsed
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| refused("libpcap compiles it to something that is not BPF".into()))?;
    // The fabric would refuse it, too, but does not know the expression.
    let instructions = program.iter();
    let instructions = instructions.map(|&(code, jt, jf, k)| bpf::Instruction { code, jt, jf, k });
    bpf::Program::new(instructions.collect()).map_err(|error| {
        anyhow::anyhow!("\"{expression}\" cannot filter frames of a cable: {error}")
    })?;
    Ok(program)
}

/// The message of libpcap, without the words that the crate puts around it.
fn text(error: &pcap::Error) -> String {
    match error {
        pcap::Error::PcapError(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Parses an instruction as `tcpdump -ddd` prints it, because the crate pcap keeps its fields private.
fn parse(line: &str) -> Option<(u16, u8, u8, u32)> {
    let mut words = line.split(' ');
    let instruction = (
        words.next()?.parse().ok()?,
        words.next()?.parse().ok()?,
        words.next()?.parse().ok()?,
        words.next()?.parse().ok()?,
    );
    words.next().is_none().then_some(instruction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_becomes_instructions() {
        let arp = compile("arp").unwrap();
        // ldh [12]; jeq #0x806; ret #…; ret #0
        assert_eq!(arp[0], (0x28, 0, 0, 12));
        assert_eq!(arp[1], (0x15, 0, 1, 0x806));
        assert!(compile("vlan 10 and tcp port 179").unwrap().len() > 10);
        assert!(!compile("").unwrap().is_empty(), "every frame");
    }

    /// What matches no frame of a cable, or not what is meant, is not accepted in silence.
    #[test]
    fn what_cannot_be_asked_of_a_cable_is_refused_with_the_way_out() {
        for (expression, way_out) in [
            ("inbound", "--from PORT"),
            ("outbound and tcp", "--from PORT"),
            ("arp or not inbound", "--from PORT"),
            ("ifindex 3", "--from PORT"),
            ("ip6 protochain 6", "ip6 proto 6"),
            ("ip protochain 6", "ip6 proto 6"),
        ] {
            let said = compile(expression).unwrap_err().to_string();
            assert!(said.starts_with(&format!("\"{expression}\" ")), "{said}");
            assert!(said.contains(way_out), "{said}");
        }
        for expression in [
            "vlan 10 and arp",
            "mpls 5",
            "pppoes 3 and ip",
            "geneve",
            "ip6 proto 6",
        ] {
            compile(expression).unwrap();
        }
    }

    #[test]
    fn a_wrong_expression_is_refused_in_one_line() {
        let said = compile("tcp prot 179").unwrap_err().to_string();
        assert!(
            said.starts_with("\"tcp prot 179\" is not a tcpdump expression: "),
            "{said}"
        );
        assert!(!said.contains('\n'), "{said}");
        assert!(compile("port 1\0").is_err());
    }
}
