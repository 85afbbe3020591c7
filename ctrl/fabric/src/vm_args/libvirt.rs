//! The elements of a libvirt domain: <https://libvirt.org/formatdomain.html>.

use super::Nic;
use model::plugging::{PlugKind, PlugOptions};

/// What vhost-user needs: the fabric maps the guest's memory.
const SHARED_MEMORY: &str = "\
<memoryBacking>
  <source type='memfd'/>
  <access mode='shared'/>
</memoryBacking>";

/// `<memoryBacking>` if the memory must be shared, an `<interface>` for each NIC, and what must be
/// overridden of these NICs in QEMU, if anything.
pub(super) fn elements(nics: &[Nic], options: &PlugOptions) -> Vec<String> {
    if options.nic == PlugKind::Tap {
        return nics.iter().map(of_tap).collect();
    }
    let mut elements = vec![SHARED_MEMORY.to_owned()];
    elements.extend(nics.iter().map(|nic| of_socket(nic, options.tcg)));
    if options.tcg {
        elements.push(without_vectors(nics));
    }
    elements
}

/// `managed='no'`: libvirt opens the tap that the fabric made, and leaves it there at the end.
fn of_tap(nic: &Nic) -> String {
    let driver = match nic.tap_queues {
        0..=1 => String::new(),
        queues => format!("\n  <driver queues='{queues}'/>"),
    };
    format!(
        "\
<interface type='ethernet'>
  <mac address='{}'/>
  <target dev='{}' managed='no'/>
  <model type='virtio'/>{driver}
</interface>",
        nic.mac,
        escaped(&nic.tap),
    )
}

/// The fabric listens: QEMU is the client, which finds its cable again after a restart of the fabric.
fn of_socket(nic: &Nic, named: bool) -> String {
    let alias = if named {
        format!("\n  <alias name='{}'/>", alias(nic))
    } else {
        String::new()
    };
    format!(
        "\
<interface type='vhostuser'>
  <mac address='{}'/>
  <source type='unix' path='{}' mode='client'>
    <reconnect enabled='yes' timeout='1'/>
  </source>
  <model type='virtio'/>{alias}
</interface>",
        nic.mac,
        escaped(&nic.socket.display().to_string()),
    )
}

/// As [`Accel::vhost_user_vectors`](vm::accel::Accel::vhost_user_vectors), for libvirt 8.2 and later.
fn without_vectors(nics: &[Nic]) -> String {
    let devices = nics.iter().map(|nic| {
        format!(
            "
  <qemu:device alias='{}'>
    <qemu:frontend>
      <qemu:property name='vectors' type='unsigned' value='0'/>
    </qemu:frontend>
  </qemu:device>",
            alias(nic)
        )
    });
    let devices: String = devices.collect();
    format!(
        "<qemu:override xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>{devices}\n</qemu:override>"
    )
}

/// The NIC's name within the domain; libvirt keeps those that begin with `ua-`.
fn alias(nic: &Nic) -> String {
    format!("ua-{}", escaped(&nic.tap))
}

/// Text within single quotes of XML. What XML 1.0 cannot express (section 2.2), and only the path of the
/// socket could have, becomes U+FFFD, so that the document stays one.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '\'' => escaped += "&apos;",
            // A parser would make blanks of them.
            '\t' | '\n' | '\r' => escaped += &format!("&#{};", character as u32),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use model::mac::Mac;

    fn nics(tap: &str, socket: &str) -> Vec<Nic> {
        let nic = |number| Nic {
            mac: Mac([2, 0, 0, 0, 0, number]),
            tap: format!("{tap}{number}"),
            tap_queues: 4,
            socket: PathBuf::from(socket),
        };
        vec![nic(1), nic(2)]
    }

    /// The elements in a domain, as a parser of XML reads it.
    fn parsed(elements: &[String], check: impl FnOnce(roxmltree::Node<'_, '_>)) {
        let document = format!("<domain>{}</domain>", elements.concat());
        let document = roxmltree::Document::parse(&document)
            .unwrap_or_else(|error| panic!("{error}: {document}"));
        check(document.root_element());
    }

    fn attribute<'a>(domain: roxmltree::Node<'a, '_>, element: &str, name: &str) -> Vec<&'a str> {
        let found = domain
            .descendants()
            .filter(|node| node.has_tag_name(element));
        found.filter_map(|node| node.attribute(name)).collect()
    }

    #[test]
    fn names_with_markup_arrive_as_they_are() {
        let odd = "/run/it's <a> & \"b\" ü\t\n]]>/c.sock";
        let options = PlugOptions {
            nic: PlugKind::VhostUser,
            tcg: true,
            ..PlugOptions::default()
        };
        parsed(&elements(&nics("ikvm<&'", odd), &options), |domain| {
            assert_eq!(attribute(domain, "source", "path"), [odd, odd]);
            assert_eq!(attribute(domain, "source", "mode"), ["client", "client"]);
            let aliases = ["ua-ikvm<&'1", "ua-ikvm<&'2"];
            assert_eq!(attribute(domain, "alias", "name"), aliases);
            let space = "http://libvirt.org/schemas/domain/qemu/1.0";
            let devices = domain.descendants();
            let devices = devices.filter(|node| node.has_tag_name((space, "device")));
            let overridden: Vec<_> = devices.filter_map(|node| node.attribute("alias")).collect();
            assert_eq!(overridden, aliases);
        });
        parsed(
            &elements(&nics("a<", odd), &PlugOptions::default()),
            |domain| {
                assert_eq!(attribute(domain, "target", "dev"), ["a<1", "a<2"]);
                assert_eq!(attribute(domain, "driver", "queues"), ["4", "4"]);
                assert!(attribute(domain, "source", "path").is_empty());
            },
        );
    }

    #[test]
    fn what_xml_cannot_express_does_not_break_the_document() {
        let options = PlugOptions {
            nic: PlugKind::VhostUser,
            ..PlugOptions::default()
        };
        let elements = elements(&nics("a", "/run/\u{1b}[2J\0/b"), &options);
        parsed(&elements, |domain| {
            let paths = attribute(domain, "source", "path");
            assert_eq!(paths[0], "/run/\u{fffd}[2J\u{fffd}/b");
            assert!(attribute(domain, "alias", "name").is_empty());
        });
    }
}
