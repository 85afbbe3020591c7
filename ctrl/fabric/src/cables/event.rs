//! What happens to cables without a request from a client: [`CableEvent`].

use std::sync::Arc;

use dataplane::vhost_sockets::SocketEvent;
use dataplane::{CableId, Event};

use super::{Cables, PluggedCable};
use dataplane::Side;

/// An event of a cable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CableEvent {
    /// A sentence to show to the user.
    Notice(String),
    /// A vhost-user front end has begun or ceased to carry an end.
    FrontEnd {
        /// The cable's index in the topology.
        index: usize,
        side: Side,
        plugged: bool,
    },
    /// A fault of this program has closed a cable.
    Closed {
        /// The cable's index in the topology.
        index: usize,
        /// The sentence about it.
        notice: String,
    },
}

impl Cables {
    /// The next event of these cables, if any. Events of removed cables are skipped.
    pub(crate) fn event(&self) -> Option<CableEvent> {
        while let Some(event) = self.panel.panel.event() {
            let event = match event {
                Event::PortFailed {
                    cable, side, error, ..
                } => self.find(cable).map(|(_, cable)| {
                    let (name, end) = (&cable.name, &cable.ends[side as usize].name);
                    CableEvent::Notice(format!("cable {name}: its port {end} failed: {error}"))
                }),
                Event::CableClosed { cable, side, fault } => {
                    let closed = self.close(cable, side, &fault);
                    closed.map(|(index, notice)| CableEvent::Closed { index, notice })
                }
                Event::Ended(_) => None,
            };
            if event.is_some() {
                return event;
            }
        }
        while let Some(event) = self.panel.sockets.event() {
            let event = match event {
                SocketEvent::Plugged { cable, side } => self.front_end(cable, side, true),
                SocketEvent::Unplugged { cable, side } => self.front_end(cable, side, false),
                SocketEvent::Fault { cable, reason, .. }
                | SocketEvent::Refused { cable, reason, .. } => {
                    let notice = |name| CableEvent::Notice(format!("cable {name}: {reason}"));
                    self.find(cable).map(|(_, cable)| notice(&cable.name))
                }
            };
            if event.is_some() {
                return event;
            }
        }
        None
    }

    fn front_end(&self, id: CableId, side: Side, plugged: bool) -> Option<CableEvent> {
        let (index, _) = self.find(id)?;
        Some(CableEvent::FrontEnd {
            index,
            side,
            plugged,
        })
    }

    pub(super) fn find(&self, id: CableId) -> Option<(usize, &Arc<PluggedCable>)> {
        let mut cables = self.cables.iter().enumerate();
        cables.find(|(_, cable)| cable.handle.id == id)
    }
}
