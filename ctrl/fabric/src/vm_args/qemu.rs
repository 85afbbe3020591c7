//! The options of QEMU itself: a netdev and a virtio NIC for each NIC.

use super::Nic;
use model::plugging::{PlugKind, PlugOptions};
use vm::accel::Accel;

pub(super) fn args(nics: &[Nic], options: &PlugOptions) -> Vec<String> {
    let mut args = Vec::new();
    if options.nic == PlugKind::VhostUser {
        args.extend([
            "-object".to_owned(),
            format!(
                "memory-backend-memfd,id=ram,size={}M,share=on",
                options.memory_mib
            ),
            "-machine".to_owned(),
            "memory-backend=ram".to_owned(),
        ]);
    }
    for (index, nic) in nics.iter().enumerate() {
        let (tap, mac) = (&nic.tap, nic.mac);
        let mut device = format!("virtio-net-pci,netdev=net{index},mac={mac}");
        match options.nic {
            // No script: Debian's /etc/qemu-ifup would add the tap to the bridge of the default
            // route.
            PlugKind::Tap => {
                let mut netdev = format!("tap,id=net{index},ifname={tap},script=no,downscript=no");
                let queues = nic.tap_queues;
                if queues > 1 {
                    netdev += &format!(",queues={queues}");
                    // A vector for each ring, one for the configuration, one for the control queue.
                    device += &format!(",mq=on,vectors={}", 2 * queues + 2);
                }
                args.extend(["-netdev".to_owned(), netdev]);
            }
            PlugKind::VhostUser => {
                // QEMU writes a comma within a value as two.
                let path = nic.socket.display().to_string().replace(',', ",,");
                args.extend([
                    "-chardev".to_owned(),
                    format!("socket,id=cable{index},path={path},reconnect=1"),
                    "-netdev".to_owned(),
                    format!("vhost-user,id=net{index},chardev=cable{index}"),
                ]);
                if options.tcg {
                    device += Accel::Tcg.vhost_user_vectors();
                }
            }
        }
        args.extend(["-device".to_owned(), device]);
    }
    args
}
