//! The end of a cable that a front end's port is plugged into: [`CableEnd`].

use crate::command::CableId;
use crate::panel::{Panel, PanelError};
use crate::port::Port;
use crate::port::vhost_user::VhostUser;
use crate::side::Side;

/// The one thing that the sockets need of the panel: of [`Panel`] itself, or of a stand-in in tests.
pub(crate) trait ExchangePort: Send + 'static {
    /// Puts another port in place of one end of a cable and returns the one that was there. No
    /// worker uses the old port any more when this returns.
    fn exchange(
        &self,
        cable: CableId,
        side: Side,
        port: Option<Port>,
    ) -> Result<Option<Port>, PanelError>;
}

impl ExchangePort for Panel {
    fn exchange(
        &self,
        cable: CableId,
        side: Side,
        port: Option<Port>,
    ) -> Result<Option<Port>, PanelError> {
        // The sockets' thread may wait, and has to: it is about to unmap the guest's memory.
        Panel::exchange(self, cable, side, port).wait()
    }
}

/// One end of one cable.
#[derive(Debug)]
pub(crate) struct CableEnd<P> {
    pub(crate) panel: P,
    pub(crate) cable: CableId,
    pub(crate) side: Side,
    /// The port that the front end's port replaced, such as a tap: put back when the front end
    /// leaves.
    pub(crate) fallback: Option<Port>,
}

impl<P: ExchangePort> CableEnd<P> {
    pub(crate) fn plug(&mut self, port: VhostUser) -> Result<(), PanelError> {
        let port = Some(Port::VhostUser(Box::new(port)));
        self.fallback = self.panel.exchange(self.cable, self.side, port)?;
        Ok(())
    }

    /// Takes the port out. `None` when another port is in its place by now: that one stays.
    pub(crate) fn unplug(&mut self) -> Result<Option<VhostUser>, PanelError> {
        let mut fallback = self.fallback.take();
        if let Some(port) = &mut fallback {
            port.discard();
        }
        match self.panel.exchange(self.cable, self.side, fallback)? {
            Some(Port::VhostUser(port)) => Ok(Some(*port)),
            other => {
                self.panel.exchange(self.cable, self.side, other)?;
                Ok(None)
            }
        }
    }
}
