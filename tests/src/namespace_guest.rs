//! A guest that is a network namespace: its `eth0` is plugged into a tap of another namespace.

use dataplane::port::{Port, Tap};
use dataplane::{Cable, Panel, PanelOptions};

use crate::Netns;
use crate::patience::{SOON, wait_for};

/// A namespace with an `eth0` that sends and receives frames at another namespace's tap, as a VM
/// does. Unplugged when dropped.
pub struct NamespaceGuest {
    /// The guest's namespace.
    pub netns: Netns,
    panel: Option<Panel>,
}

impl NamespaceGuest {
    /// Plugs a new guest into the tap `name` of the namespace `host`.
    ///
    /// # Panics
    /// When `name` is not a tap, or another program holds it.
    pub fn plug(host: &Netns, name: &str) -> Self {
        let netns = Netns::new("guest");
        let theirs =
            host.enter(|| wait_for(&format!("{name} to be free"), SOON, || Tap::open(name).ok()));
        let own = netns.enter(|| Tap::open("eth0").expect("a new namespace has no eth0"));
        netns.ip("link set eth0 mtu 9000 up");
        let options = PanelOptions {
            workers: 1,
            ..PanelOptions::default()
        };
        let panel = Panel::start(&options, || {}).expect("one worker");
        let cable = Cable::new(Port::Tap(own), Port::Tap(theirs));
        panel.add(cable).wait().expect("a fresh panel has room");
        NamespaceGuest {
            netns,
            panel: Some(panel),
        }
    }
}

impl Drop for NamespaceGuest {
    fn drop(&mut self) {
        if let Some(panel) = self.panel.take() {
            panel.stop();
        }
    }
}
