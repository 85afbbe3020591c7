//! The elements of a libvirt domain: <https://libvirt.org/formatdomain.html>.

use super::Nic;
use model::plugging::{PlugKind, PlugOptions};

/// `<memoryBacking>`, if the memory must be shared, and an `<interface>` for each NIC.
pub(super) fn elements(nics: &[Nic], options: &PlugOptions) -> Vec<String> {
    let memory = (options.nic == PlugKind::VhostUser).then(|| MEMORY.to_owned());
    let interfaces = nics.iter().map(|nic| match options.nic {
        PlugKind::Tap => of_tap(nic),
        PlugKind::VhostUser => of_socket(nic),
    });
    memory.into_iter().chain(interfaces).collect()
}

const MEMORY: &str = "\
<memoryBacking>
  <source type='memfd'/>
  <access mode='shared'/>
</memoryBacking>";

/// `managed='no'`: libvirt opens the tap that the fabric made, and leaves it there at the end.
fn of_tap(nic: &Nic) -> String {
    let driver = match nic.tap_queues {
        0..=1 => String::new(),
        queues => format!("\n  <driver name='qemu' queues='{queues}'/>"),
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

/// The fabric listens, so QEMU is the client and finds its cable again after a restart.
fn of_socket(nic: &Nic) -> String {
    format!(
        "\
<interface type='vhostuser'>
  <mac address='{}'/>
  <source type='unix' path='{}' mode='client'>
    <reconnect enabled='yes' timeout='1'/>
  </source>
  <model type='virtio'/>
</interface>",
        nic.mac,
        escaped(&nic.socket.display().to_string()),
    )
}

/// Text within single quotes of XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&apos;")
}
