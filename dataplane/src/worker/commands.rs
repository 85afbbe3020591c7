//! What a worker does when control, or another worker, sends it a command.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Weak;

use crossbeam_channel::TryRecvError;
use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::{CableSlot, Worker};
use crate::cable::Cable;
use crate::cable_state::CableState;
use crate::command::{Answer, CableId, Command};
use crate::mailbox::Mailbox;
use crate::port::Port;
use crate::side::Side;

/// Whether commands can still come.
#[derive(PartialEq, Eq)]
pub(super) enum Control {
    There,
    Gone,
}

impl Worker {
    pub(super) fn handle_commands(&mut self) -> Control {
        loop {
            match self.channels.commands.next() {
                Ok(command) => {
                    self.channels.stats.take_in_hand(command.cable(), None);
                    self.handle(command);
                }
                Err(TryRecvError::Empty) => return Control::There,
                Err(TryRecvError::Disconnected) => return Control::Gone,
            }
        }
    }

    fn handle(&mut self, command: Command) {
        let arrives = matches!(command, Command::Arrive { .. });
        if !arrives && let Some(later) = self.expected.get_mut(&command.cable()) {
            return later.push(command);
        }
        match command {
            Command::Add { id, cable, done } => done.send(self.add(id, *cable)),
            Command::Release { id, done } => done.send(self.release(id)),
            Command::Expect { id } => _ = self.expected.insert(id, Vec::new()),
            Command::HandOver { id, to, done } => self.hand_over(id, &to, done),
            Command::Arrive { id, cable, done } => {
                done.send(cable.and_then(|cable| self.add(id, *cable)));
                for command in self.expected.remove(&id).into_iter().flatten() {
                    self.handle(command);
                }
            }
            Command::SetState { id, state, done } => done.send(self.set_state(id, state)),
            Command::Exchange {
                id,
                side,
                port,
                done,
            } => done.send(self.exchange(id, side, port)),
            Command::Impair {
                id,
                from,
                impaired,
                done,
            } => {
                let slot = self.slot(id);
                let old = slot.map(|(index, slot)| {
                    let old = slot.cable.lane_mut(from).impair(impaired);
                    (index, old)
                });
                if let Ok((index, _)) = old {
                    self.schedule_release(index, from);
                }
                done.send(old.map(|(_, old)| old));
            }
            Command::Accuracy { id, from, done } => {
                let slot = self.slot(id);
                done.send(slot.map(|(_, slot)| slot.cable.lane(from).accuracy()));
            }
            Command::Tap {
                id,
                from,
                tap,
                done,
            } => {
                let slot = self.slot(id);
                done.send(slot.map(|(_, slot)| slot.cable.lane_mut(from).tap(tap).err()));
            }
            Command::Untap {
                id,
                from,
                number,
                done,
            } => {
                let slot = self.slot(id);
                done.send(slot.map(|(_, slot)| slot.cable.lane_mut(from).untap(number)));
            }
            Command::Record {
                id,
                from,
                recorder,
                done,
            } => {
                let slot = self.slot(id);
                done.send(slot.map(|(_, slot)| slot.cable.lane_mut(from).record(recorder)));
            }
        }
    }

    pub(super) fn add(&mut self, id: CableId, cable: Cable) -> io::Result<()> {
        let vacant = self.cables.iter().position(Option::is_none);
        let index = vacant.unwrap_or(self.cables.len());
        self.watch(&cable, index)?;
        let slot = Some(CableSlot {
            id,
            cable,
            active: [false; 2],
            waiting: [false; 2],
        });
        if index == self.cables.len() {
            self.cables.push(slot);
        } else {
            self.cables[index] = slot;
        }
        self.indices.insert(id, index);
        // What waited before the registration makes no edge.
        for side in [Side::A, Side::B] {
            self.activate(index, side);
            self.schedule_release(index, side);
        }
        Ok(())
    }

    /// Watches both ports of a cable, unless it is closed.
    fn watch(&self, cable: &Cable, index: usize) -> io::Result<()> {
        if cable.is_closed() {
            return Ok(());
        }
        self.register(cable.port(Side::A), index, Side::A)?;
        self.register(cable.port(Side::B), index, Side::B)
            .inspect_err(|_| self.unregister(cable.port(Side::A)))
    }

    /// `Up` opens a cable that was closed after a fault.
    fn set_state(&mut self, id: CableId, state: CableState) -> io::Result<()> {
        let (index, slot) = self.slot(id)?;
        slot.cable.set_state(state);
        if state != CableState::Up || !slot.cable.open() {
            return Ok(());
        }
        let slot = self.cables[index].as_ref();
        let slot = slot.ok_or(io::ErrorKind::NotFound)?;
        let watched = self.watch(&slot.cable, index);
        self.activate(index, Side::A);
        self.activate(index, Side::B);
        watched
    }

    /// Gives a cable to another worker. What cannot be delivered stays here.
    fn hand_over(&mut self, id: CableId, to: &Weak<Mailbox<Command>>, done: Answer<()>) {
        let Some(to) = to.upgrade() else { return };
        let cable = self.release(id);
        let Err(refused) = to.send(Command::Arrive { id, cable, done }) else {
            return;
        };
        if let Command::Arrive { cable, done, .. } = refused {
            let kept = cable.and_then(|cable| self.add(id, *cable));
            done.send(kept.and(Err(io::ErrorKind::WouldBlock.into())));
        }
    }

    fn release(&mut self, id: CableId) -> io::Result<Box<Cable>> {
        let index = self.indices.remove(&id).ok_or(io::ErrorKind::NotFound)?;
        let slot = self.cables[index].take().ok_or(io::ErrorKind::NotFound)?;
        self.active.retain(|active| active.index != index);
        self.waiting.retain(|lane| lane.index != index);
        for side in [Side::A, Side::B] {
            self.unregister(slot.cable.port(side));
        }
        Ok(Box::new(slot.cable))
    }

    fn exchange(
        &mut self,
        id: CableId,
        side: Side,
        port: Option<Port>,
    ) -> io::Result<Option<Port>> {
        let (index, slot) = self.slot(id)?;
        if slot.cable.is_closed() {
            return Ok(slot.cable.replace(side, port));
        }
        let old = slot.cable.replace(side, None);
        // It goes first: the other port may well be another handle of the same device.
        self.unregister(old.as_ref());
        if let Err(error) = self.register(port.as_ref(), index, side) {
            let back = self.register(old.as_ref(), index, side);
            let (_, slot) = self.slot(id)?;
            slot.cable.replace(side, old);
            return back.and(Err(error));
        }
        let (_, slot) = self.slot(id)?;
        slot.cable.replace(side, port);
        // It is polled once at least, whatever the old one was: what waited before the
        // registration makes no edge.
        slot.active[side as usize] = false;
        self.active
            .retain(|active| (active.index, active.side) != (index, side));
        self.activate(index, side);
        Ok(old)
    }

    fn slot(&mut self, id: CableId) -> io::Result<(usize, &mut CableSlot)> {
        let index = *self.indices.get(&id).ok_or(io::ErrorKind::NotFound)?;
        let slot = self.cables[index].as_mut();
        Ok((index, slot.ok_or(io::ErrorKind::NotFound)?))
    }

    fn register(&self, port: Option<&Port>, index: usize, side: Side) -> io::Result<()> {
        let Some(port) = port else { return Ok(()) };
        let token = Token(index * 2 + side as usize);
        self.poll
            .registry()
            .register(&mut SourceFd(&port.as_raw_fd()), token, Interest::READABLE)
    }

    pub(super) fn unregister(&self, port: Option<&Port>) {
        if let Some(port) = port {
            // Fails only where it is not registered, which is what we want.
            let _ = self
                .poll
                .registry()
                .deregister(&mut SourceFd(&port.as_raw_fd()));
        }
    }
}
