//! Plugging cables in and removing them.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use dataplane::vhost_sockets::SocketSpec;
use dataplane::{Cable, Side, close_cables};
use futures_util::future::join_all;

use super::error::CablesError;
use super::panel::answer;
use super::plan::{PlannedCable, PlannedSocket};
use super::{Cables, Condition, PluggedCable, PluggedEnd};
use crate::rights;
use model::cable_change::CableState;

impl Cables {
    /// Plugs cables in, after those that exist. If the caller stops waiting, the panel owns the
    /// cables plugged in so far and closes them when it stops.
    ///
    /// # Errors
    /// The first cable that a worker refuses; those before it stay.
    pub(crate) async fn plug(&mut self, planned: Vec<PlannedCable>) -> Result<(), CablesError> {
        for cable in planned {
            let plugged = self.plug_one(cable).await?;
            self.cables.push(plugged);
        }
        Ok(())
    }

    /// Plugs one more cable in. No handle contains it yet: see [`Cables::with`].
    ///
    /// # Errors
    /// When a worker or the sockets' thread refuses an end; the whole cable is removed then.
    pub(crate) async fn plug_one(
        &self,
        planned: PlannedCable,
    ) -> Result<Arc<PluggedCable>, CablesError> {
        let PlannedCable { name, ends: [a, b] } = planned;
        let handle = answer(self.panel.panel.add(Cable::new(a.port, b.port))).await?;
        let end = |name| PluggedEnd {
            name,
            socket: None,
            file: None,
        };
        let mut cable = PluggedCable {
            name,
            ends: [end(a.name), end(b.name)],
            handle,
            condition: Mutex::new(Condition {
                state: CableState::Up,
                impairments: Default::default(),
                closed: None,
            }),
            touched: AtomicU64::new(0),
        };
        for (side, socket) in [(Side::A, a.socket), (Side::B, b.socket)] {
            let Some(PlannedSocket { role, mtu, file }) = socket else {
                continue;
            };
            let end = &mut cable.ends[side as usize];
            let spec = SocketSpec {
                name: end.name.clone(),
                cable: cable.handle.id,
                side,
                role,
                mtu,
            };
            // Only after the cable: a front end may connect as soon as the socket is known.
            match answer(self.panel.sockets.add(spec)).await {
                Ok(socket) => (end.socket, end.file) = (Some(socket), file),
                Err(error) => {
                    self.unplug(&[Arc::new(cable)]).await;
                    return Err(error.into());
                }
            }
        }
        Ok(Arc::new(cable))
    }

    /// Removes cables from the panel: none of their frames is handled after this returns. Their
    /// ports are closed on another thread, because closing takes 12 ms each.
    pub(crate) async fn unplug(&self, cables: &[Arc<PluggedCable>]) {
        let ends = cables.iter().flat_map(|cable| &cable.ends);
        let sockets = ends.filter_map(|end| end.socket);
        // Sockets first: when a front end leaves, its socket puts the port back into the cable. All
        // requests are sent before the first answer is awaited.
        let removed = sockets.map(|socket| answer(self.panel.sockets.remove(socket)));
        join_all(removed.collect::<Vec<_>>()).await;
        let removed = cables
            .iter()
            .map(|cable| answer(self.panel.panel.remove(cable.handle.id)));
        let removed = join_all(removed.collect::<Vec<_>>()).await;
        let taken = removed.into_iter().filter_map(Result::ok);
        let taken = taken.map(|cable| *cable).collect();
        if let Err(error) = rights::thread("closing", move || close_cables(taken)) {
            tracing::debug!(%error, "ports were closed on this thread");
        }
    }
}
