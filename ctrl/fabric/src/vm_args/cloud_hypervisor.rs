//! The options of Cloud Hypervisor.

use super::Nic;
use model::plugging::{PlugKind, PlugOptions};

pub(super) fn args(nics: &[Nic], options: &PlugOptions) -> Vec<String> {
    let mut args = Vec::new();
    if options.nic == PlugKind::VhostUser {
        let memory = format!("size={}M,shared=on", options.memory_mib);
        args.extend(["--memory".to_owned(), memory]);
    }
    // One --net with a value for each NIC: a second --net would be refused.
    args.push("--net".to_owned());
    args.extend(nics.iter().map(|nic| match options.nic {
        PlugKind::Tap => {
            let mut net = format!("tap={},mac={}", nic.tap, nic.mac);
            if nic.tap_queues > 1 {
                // It counts rings, two for each pair.
                net += &format!(",num_queues={}", 2 * nic.tap_queues);
            }
            net
        }
        PlugKind::VhostUser => {
            let socket = quoted(&nic.socket.display().to_string());
            format!(
                "vhost_user=true,socket={socket},vhost_mode=client,mac={}",
                nic.mac
            )
        }
    }));
    args
}

/// A value with a comma stands in double quotes there; a double quote itself has no form.
fn quoted(value: &str) -> String {
    if value.contains(',') {
        format!("\"{value}\"")
    } else {
        value.to_owned()
    }
}
