//! The QEMU options that plug a VM into the fabric.

use host::lock::StatePaths;
use model::plugging::{PlugKind, PlugOptions};
use model::topology::{Topology, UnknownName};
use vm::accel::Accel;

/// The QEMU options for `place` (`rack1:u3`, `rack1:u3:1`, `ikvm1-3-1` or `ipmi`): a netdev and a
/// virtio NIC for each of the position's NICs. `paths` are the fabric's files.
///
/// # Errors
/// [`UnknownName`] when the position does not exist or is not one for a server.
pub fn options(
    topology: &Topology,
    paths: &StatePaths,
    place: &str,
    wish: &PlugOptions,
) -> Result<Vec<String>, UnknownName> {
    let nics = topology.server_nics(place)?;
    let mut options = Vec::new();
    if wish.nic == PlugKind::VhostUser {
        options.extend([
            "-object".to_owned(),
            format!(
                "memory-backend-memfd,id=ram,size={}M,share=on",
                wish.memory_mib
            ),
            "-machine".to_owned(),
            "memory-backend=ram".to_owned(),
        ]);
    }
    for (index, (end, mac)) in nics.into_iter().enumerate() {
        let tap = &end.tap;
        let mut device = format!("virtio-net-pci,netdev=net{index},mac={mac}");
        match wish.nic {
            // No script: Debian's /etc/qemu-ifup would add the tap to the bridge of the default
            // route.
            PlugKind::Tap => {
                let mut netdev = format!("tap,id=net{index},ifname={tap},script=no,downscript=no");
                let queues = topology.host.tap_queues;
                if queues > 1 {
                    netdev += &format!(",queues={queues}");
                    // A vector for each ring, one for the configuration, one for the control queue.
                    device += &format!(",mq=on,vectors={}", 2 * queues + 2);
                }
                options.extend(["-netdev".to_owned(), netdev]);
            }
            PlugKind::VhostUser => {
                let socket = paths.vhost_socket(tap);
                // QEMU writes a comma within a value as two.
                let path = socket.display().to_string().replace(',', ",,");
                options.extend([
                    "-chardev".to_owned(),
                    format!("socket,id=cable{index},path={path},reconnect=1"),
                    "-netdev".to_owned(),
                    format!("vhost-user,id=net{index},chardev=cable{index}"),
                ]);
                if wish.tcg {
                    device += Accel::Tcg.vhost_user_vectors();
                }
            }
        }
        options.extend(["-device".to_owned(), device]);
    }
    Ok(options)
}
