//! The power of a switch as its neighbours see it: while no QEMU runs, the other ends of its cables have no carrier.

use vm::{VmState, VmStatus};

/// What is reported to the ends of a switch's cables, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CarrierReport {
    /// The other ends: they have lost carrier.
    OthersLose,
    /// The switch's own ends: QEMU starts with all links up, also at cut cables.
    OwnCuts,
    /// The other ends: they have carrier again.
    OthersRegain,
}

/// Follows the QEMUs of one switch.
#[derive(Debug, Default)]
pub(super) struct Power {
    /// The QEMU that accepted commands at the last look.
    known: Option<u32>,
    others_lost: bool,
}

impl Power {
    /// Takes in the present status. A switch that has not started for the first time takes no carrier: all
    /// switches of a fabric start together, and their links would all go down and up again.
    pub(super) fn look(&mut self, now: &VmStatus) -> Vec<CarrierReport> {
        let mut reports = Vec::new();
        let commanded = now.pid.filter(|_| now.commanded);
        let gone = self.known.is_some() && commanded != self.known;
        if (gone || has_no_qemu(now.state)) && !self.others_lost {
            reports.push(CarrierReport::OthersLose);
            self.others_lost = true;
        }
        if commanded.is_some() && commanded != self.known {
            reports.push(CarrierReport::OwnCuts);
            if std::mem::take(&mut self.others_lost) {
                reports.push(CarrierReport::OthersRegain);
            }
        }
        self.known = commanded;
        reports
    }
}

/// Whether a switch in this state has no QEMU, nor one that is about to run.
pub(super) fn has_no_qemu(state: VmState) -> bool {
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
        use CarrierReport::{OthersLose, OthersRegain, OwnCuts};
        use VmState::{Booting, Failed, Off, Restarting, Running};

        let mut power = Power::default();
        let mut look = |state, pid, commanded| power.look(&status(state, pid, commanded));
        assert_eq!(look(Booting, None, false), []);
        assert_eq!(look(Booting, Some(1), false), []);
        assert_eq!(look(Booting, Some(1), true), [OwnCuts]);
        assert_eq!(look(Running, Some(1), true), []);
        // Switched off and on.
        assert_eq!(look(Off, None, false), [OthersLose]);
        assert_eq!(look(Booting, Some(2), false), []);
        assert_eq!(look(Booting, Some(2), true), [OwnCuts, OthersRegain]);
        // Cycled, in two looks and in one.
        assert_eq!(look(Booting, Some(3), false), [OthersLose]);
        assert_eq!(look(Booting, Some(3), true), [OwnCuts, OthersRegain]);
        assert_eq!(
            look(Booting, Some(4), true),
            [OthersLose, OwnCuts, OthersRegain]
        );
        // Died, until it is back.
        assert_eq!(look(Restarting, None, false), [OthersLose]);
        assert_eq!(look(Booting, Some(5), false), []);
        assert_eq!(look(Booting, Some(5), true), [OwnCuts, OthersRegain]);
        // A reset keeps its QEMU.
        assert_eq!(look(Booting, Some(5), true), []);
        assert_eq!(look(Failed, None, false), [OthersLose]);
        assert_eq!(look(Failed, None, false), []);
    }

    #[test]
    fn one_that_never_starts_takes_carrier() {
        let mut power = Power::default();
        assert_eq!(
            power.look(&status(VmState::Failed, None, false)),
            [CarrierReport::OthersLose]
        );
    }
}
