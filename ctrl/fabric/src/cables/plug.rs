//! Plugging cables in and taking them out.

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
    /// Plugs cables in, after those that there are. What is plugged in when the caller stops
    /// waiting belongs to the panel and ends with it.
    ///
    /// # Errors
    /// The first that a worker refuses; those before it stay.
    pub(crate) async fn plug(&mut self, planned: Vec<PlannedCable>) -> Result<(), CablesError> {
        for cable in planned {
            let plugged = self.plug_one(cable).await?;
            self.cables.push(plugged);
        }
        Ok(())
    }

    /// Plugs one more cable in, which is in none of the handles yet: see [`Cables::with`].
    ///
    /// # Errors
    /// When a worker or the sockets' thread refuses an end; nothing is left of the cable then.
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
            }),
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

    /// Takes cables out of the panel: no frame of theirs is handled when this returns. Their ports
    /// are closed on another thread, because that takes 12 ms each.
    pub(crate) async fn unplug(&self, cables: &[Arc<PluggedCable>]) {
        let ends = cables.iter().flat_map(|cable| &cable.ends);
        let sockets = ends.filter_map(|end| end.socket);
        // The sockets first, which put their port into the cable when a front end leaves. All are
        // sent before the first answer is awaited.
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
