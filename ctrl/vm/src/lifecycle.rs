//! When a VM is started, restarted, and given up: a state machine without I/O. Time is an argument.

use std::time::{Duration, Instant};

use model::power::PowerAction;
use serde::{Deserialize, Serialize};

/// First and longest pause before a restart; it doubles in between.
pub(crate) const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// After a run of this length earlier deaths no longer count.
pub(crate) const STABLE: Duration = Duration::from_secs(60);

/// A VM is given up after this many deaths without a stable run in between. The pauses before that
/// add up to about four minutes.
pub(crate) const MAX_DEATHS: u32 = 12;

/// This many resets without an answer of the guest agent in between count as a boot loop. Its QEMU is
/// ended and counts as dead, so that the pauses apply. These are three to six boots: after a soft reset
/// by the guest SeaBIOS makes a hard one, which QEMU reports too.
pub(crate) const MAX_RESETS: u32 = 6;

/// Whether a VM boots, runs, is off, or has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VmState {
    /// QEMU runs, the guest agent has not answered yet.
    Booting,
    /// The guest agent has answered since the last start or reset.
    Running,
    /// QEMU died; it will be started again after a pause.
    Restarting,
    /// Switched off, by `power` or by the guest.
    Off,
    /// Given up, until `power on`.
    Failed,
}

/// Why a `power` command was not executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PowerError {
    /// It is off, so there is no guest to reset.
    #[error("it is off: use power on")]
    Off,
    /// It was given up, so there is no guest to reset.
    #[error("it has failed: power on tries again")]
    Failed,
    /// It waits for its next start, so there is no guest to reset.
    #[error("it is being restarted: power on does so at once")]
    Restarting,
    /// The monitor did not take the command.
    #[error("QEMU does not answer: use power cycle")]
    Unresponsive,
    /// QEMU could not be spawned.
    #[error("{0}")]
    NotStarted(String),
    /// The supervisor has been stopped.
    #[error("the fabric is being taken down")]
    Stopped,
}

/// How a QEMU ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The guest powered itself off.
    PoweredOff,
    /// It ran and then ended, for any other reason.
    Died,
    /// It ended by itself before its monitor greeted: bad options, no memory, no permission.
    Refused,
}

/// What the supervisor must do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a QEMU. None runs.
    Start,
    /// End the QEMU.
    Stop,
    /// End the QEMU and start another one.
    Replace,
    /// Reset the guest through the monitor.
    Reset,
}

/// The state machine of one VM. [`Action::Start`] is due from the beginning.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle {
    state: VmState,
    /// When the present QEMU was started, or is to be started.
    since: Instant,
    due: bool,
    deaths: u32,
    restarts: u32,
    resets: u32,
    /// A QEMU of this VM has greeted, so its options are valid and a later refusal is temporary.
    proven: bool,
}

impl Lifecycle {
    /// A VM that is to be started at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: VmState::Booting,
            since: now,
            due: true,
            deaths: 0,
            restarts: 0,
            resets: 0,
            proven: false,
        }
    }

    /// The present state.
    pub(crate) fn state(&self) -> VmState {
        self.state
    }

    /// How many QEMUs were started because the one before died.
    pub(crate) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// When a start is due; `None` if only an event can make one due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due.then_some(self.since)
    }

    /// [`Action::Start`] if a QEMU must be started at `now`. It then counts as started.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Action> {
        if !self.due || now < self.since {
            return None;
        }
        self.restarts += u32::from(self.state == VmState::Restarting);
        self.booting(now);
        Some(Action::Start)
    }

    /// The monitor has greeted.
    pub(crate) fn greeted(&mut self) {
        self.proven = true;
    }

    /// The guest agent has answered.
    pub(crate) fn ready(&mut self) {
        // While a start is due, a late answer comes from the QEMU before.
        if self.state == VmState::Booting && !self.due {
            self.state = VmState::Running;
            self.resets = 0;
        }
    }

    /// QEMU has reset the guest, at the guest's request or at ours. True if the guest is in a boot loop:
    /// the caller must end its QEMU and report [`Exit::Died`].
    pub(crate) fn was_reset(&mut self) -> bool {
        if self.state == VmState::Running {
            self.state = VmState::Booting;
        }
        self.resets += 1;
        self.resets >= MAX_RESETS
    }

    /// The QEMU has ended by itself.
    pub(crate) fn exited(&mut self, exit: Exit, now: Instant) {
        if now.saturating_duration_since(self.since) >= STABLE {
            self.deaths = 0;
        }
        self.deaths += 1;
        // Bad options and missing rights do not change by themselves.
        let hopeless = exit == Exit::Refused && !self.proven;
        (self.state, self.due) = match exit {
            Exit::PoweredOff => (VmState::Off, false),
            _ if hopeless || self.deaths >= MAX_DEATHS => (VmState::Failed, false),
            _ => (VmState::Restarting, true),
        };
        self.since = now + self.pause();
    }

    /// Decides what a `power` command needs; `None` if the VM is as it asks already.
    ///
    /// # Errors
    /// For a reset without a guest.
    pub(crate) fn power(
        &mut self,
        power: PowerAction,
        now: Instant,
    ) -> Result<Option<Action>, PowerError> {
        let alive = matches!(self.state, VmState::Booting | VmState::Running) && !self.due;
        match power {
            PowerAction::On if alive => Ok(None),
            PowerAction::Off => {
                self.state = VmState::Off;
                // Cancels a start that is due after a pause.
                self.due = false;
                Ok(alive.then_some(Action::Stop))
            }
            PowerAction::Reset if !alive => Err(match self.state {
                VmState::Off => PowerError::Off,
                VmState::Failed => PowerError::Failed,
                _ => PowerError::Restarting,
            }),
            PowerAction::Reset => {
                self.resets = 0;
                Ok(Some(Action::Reset))
            }
            PowerAction::On | PowerAction::Cycle => {
                self.deaths = 0;
                self.booting(now);
                Ok(Some(if alive {
                    Action::Replace
                } else {
                    Action::Start
                }))
            }
        }
    }

    fn booting(&mut self, now: Instant) {
        self.state = VmState::Booting;
        self.due = false;
        self.resets = 0;
        self.since = now;
    }

    /// The pause before the next start: 1, 2, 4, … 30 s.
    fn pause(&self) -> Duration {
        // 2^6 s is beyond the longest pause; a larger shift would overflow.
        (BACKOFF.0 * (1 << self.deaths.saturating_sub(1).min(6))).min(BACKOFF.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn started() -> (Lifecycle, Instant) {
        let now = Instant::now();
        let mut life = Lifecycle::new(now);
        assert_eq!(life.due(now), Some(Action::Start));
        assert_eq!(life.due(now), None);
        (life, now)
    }

    #[test]
    fn boots_runs_and_boots_again_after_a_reset() {
        let (mut life, _) = started();
        assert_eq!(life.state(), VmState::Booting);
        life.ready();
        assert_eq!(life.state(), VmState::Running);
        assert!(!life.was_reset());
        assert_eq!(life.state(), VmState::Booting);
        assert_eq!(life.restarts(), 0);
    }

    #[test]
    fn resets_without_an_answer_are_a_boot_loop_unless_we_made_them() {
        let (mut life, now) = started();
        for _ in 1..MAX_RESETS {
            assert!(!life.was_reset());
        }
        let mut looping = life.clone();
        assert!(looping.was_reset());
        let mut answered = life.clone();
        answered.ready();
        assert!(!answered.was_reset());
        life.power(PowerAction::Reset, now).unwrap();
        assert!(!life.was_reset());
    }

    #[test]
    fn pauses_double_up_to_thirty_seconds_and_a_stable_run_forgets() {
        let (mut life, mut now) = started();
        life.greeted();
        let mut pauses = Vec::new();
        for _ in 1..MAX_DEATHS {
            life.exited(Exit::Died, now);
            assert_eq!(life.state(), VmState::Restarting);
            assert_eq!(
                life.due(
                    life.deadline()
                        .unwrap()
                        .checked_sub(Duration::from_millis(1))
                        .unwrap()
                ),
                None
            );
            pauses.push((life.deadline().unwrap() - now).as_secs());
            now = life.deadline().unwrap();
            assert_eq!(life.due(now), Some(Action::Start));
            life.ready();
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30]);
        assert_eq!(life.restarts(), 11);
        let mut lucky = life.clone();
        lucky.exited(Exit::Died, now + STABLE);
        assert_eq!(lucky.deadline(), Some(now + STABLE + BACKOFF.0));
        life.exited(Exit::Died, now + Duration::from_secs(1));
        assert_eq!((life.state(), life.deadline()), (VmState::Failed, None));
    }

    #[test]
    fn a_first_start_that_is_refused_fails_at_once_a_later_one_is_tried_again() {
        let (mut life, now) = started();
        let mut later = life.clone();
        life.exited(Exit::Refused, now);
        assert_eq!(life.state(), VmState::Failed);
        later.greeted();
        later.exited(Exit::Refused, now);
        assert_eq!(later.state(), VmState::Restarting);
    }

    #[test]
    fn a_guest_that_powers_itself_off_stays_off_until_power_on() {
        let (mut life, now) = started();
        life.exited(Exit::PoweredOff, now);
        assert_eq!((life.state(), life.deadline()), (VmState::Off, None));
        assert_eq!(life.power(PowerAction::Reset, now), Err(PowerError::Off));
        assert_eq!(life.power(PowerAction::Off, now), Ok(None));
        assert_eq!(life.power(PowerAction::On, now), Ok(Some(Action::Start)));
        assert_eq!(life.state(), VmState::Booting);
    }

    #[test]
    fn power_on_a_living_vm() {
        let (mut life, now) = started();
        life.ready();
        assert_eq!(life.power(PowerAction::On, now), Ok(None));
        assert_eq!(life.power(PowerAction::Reset, now), Ok(Some(Action::Reset)));
        assert_eq!(
            life.state(),
            VmState::Running,
            "until QEMU says that it was reset"
        );
        assert_eq!(
            life.power(PowerAction::Cycle, now),
            Ok(Some(Action::Replace))
        );
        assert_eq!(life.state(), VmState::Booting);
        assert_eq!(life.power(PowerAction::Off, now), Ok(Some(Action::Stop)));
        assert_eq!(life.state(), VmState::Off);
        assert_eq!(life.power(PowerAction::Cycle, now), Ok(Some(Action::Start)));
    }

    #[test]
    fn power_during_a_pause() {
        let (mut life, now) = started();
        life.greeted();
        life.exited(Exit::Died, now);
        assert_eq!(
            life.power(PowerAction::Reset, now),
            Err(PowerError::Restarting)
        );
        assert_eq!(
            life.clone().power(PowerAction::On, now),
            Ok(Some(Action::Start))
        );
        assert_eq!(life.power(PowerAction::Off, now), Ok(None));
        assert_eq!(
            (life.state(), life.due(now + BACKOFF.1)),
            (VmState::Off, None)
        );
    }

    proptest! {
        /// No sequence of events leads to a second QEMU, or to a stop without one.
        #[test]
        fn one_qemu_at_most(steps in proptest::collection::vec((0u8..9, 0u64..70), 0..200)) {
            let mut now = Instant::now();
            let mut life = Lifecycle::new(now);
            let mut alive = false;
            for (step, seconds) in steps {
                now += Duration::from_secs(seconds);
                let action = match step {
                    0 => life.power(PowerAction::On, now).unwrap_or(None),
                    1 => life.power(PowerAction::Off, now).unwrap_or(None),
                    2 => life.power(PowerAction::Reset, now).unwrap_or(None),
                    3 => life.power(PowerAction::Cycle, now).unwrap_or(None),
                    4 => { life.ready(); None }
                    5 => { life.was_reset(); None }
                    6..8 if alive => {
                        let exit = [Exit::Died, Exit::PoweredOff][usize::from(step - 6)];
                        alive = false;
                        life.exited(exit, now);
                        None
                    }
                    _ => life.due(now),
                };
                if let Some(action) = action {
                    prop_assert_eq!(alive, action != Action::Start);
                    alive = action != Action::Stop;
                }
                let shown = matches!(life.state(), VmState::Booting | VmState::Running);
                prop_assert!(!alive || shown);
                prop_assert!(alive || !shown || life.deadline().is_some());
            }
        }
    }
}
