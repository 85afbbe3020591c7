//! The power of a switch as its neighbours see it: without a QEMU there is no light on its cables.

use vm::{VmState, VmStatus};

/// What to tell the ends of a switch's cables, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The other ends: they have lost carrier.
    Dark,
    /// The switch's own ends: QEMU starts with all links up, also at cut cables.
    OwnCuts,
    /// The other ends: they have carrier again.
    Light,
}

/// Follows the QEMUs of one switch.
#[derive(Debug, Default)]
pub(super) struct Power {
    /// The QEMU that accepted commands at the last look.
    known: Option<u32>,
    dark: bool,
}

impl Power {
    /// Takes in the present status. A switch that has not started for the first time is not dark: all
    /// switches of a fabric start together, and their links would all go down and up again.
    pub(super) fn look(&mut self, now: &VmStatus) -> Vec<Told> {
        let mut told = Vec::new();
        let commanded = now.pid.filter(|_| now.commanded);
        let gone = self.known.is_some() && commanded != self.known;
        if (gone || has_no_light(now.state)) && !self.dark {
            told.push(Told::Dark);
            self.dark = true;
        }
        if commanded.is_some() && commanded != self.known {
            told.push(Told::OwnCuts);
            if std::mem::take(&mut self.dark) {
                told.push(Told::Light);
            }
        }
        self.known = commanded;
        told
    }
}

/// Whether a switch in this state has no QEMU, nor one that is about to run.
pub(super) fn has_no_light(state: VmState) -> bool {
    matches!(state, VmState::Off | VmState::Failed | VmState::Restarting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: VmState, pid: Option<u32>, commanded: bool) -> VmStatus {
        VmStatus {
            state,
            pid,
            restarts: 0,
            last_error: None,
            commanded,
            bad_state: None,
        }
    }

    #[test]
    fn the_neighbours_of_a_switch_lose_carrier_for_as_long_as_no_qemu_runs() {
        use Told::{Dark, Light, OwnCuts};
        use VmState::{Booting, Failed, Off, Restarting, Running};

        let mut power = Power::default();
        let mut look = |state, pid, commanded| power.look(&status(state, pid, commanded));
        assert_eq!(look(Booting, None, false), []);
        assert_eq!(look(Booting, Some(1), false), []);
        assert_eq!(look(Booting, Some(1), true), [OwnCuts]);
        assert_eq!(look(Running, Some(1), true), []);
        // Switched off and on.
        assert_eq!(look(Off, None, false), [Dark]);
        assert_eq!(look(Booting, Some(2), false), []);
        assert_eq!(look(Booting, Some(2), true), [OwnCuts, Light]);
        // Cycled, in two looks and in one.
        assert_eq!(look(Booting, Some(3), false), [Dark]);
        assert_eq!(look(Booting, Some(3), true), [OwnCuts, Light]);
        assert_eq!(look(Booting, Some(4), true), [Dark, OwnCuts, Light]);
        // Died, until it is back.
        assert_eq!(look(Restarting, None, false), [Dark]);
        assert_eq!(look(Booting, Some(5), false), []);
        assert_eq!(look(Booting, Some(5), true), [OwnCuts, Light]);
        // A reset keeps its QEMU.
        assert_eq!(look(Booting, Some(5), true), []);
        assert_eq!(look(Failed, None, false), [Dark]);
        assert_eq!(look(Failed, None, false), []);
    }

    #[test]
    fn one_that_never_starts_is_dark() {
        let mut power = Power::default();
        assert_eq!(
            power.look(&status(VmState::Failed, None, false)),
            [Told::Dark]
        );
    }
}
