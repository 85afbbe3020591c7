//! Who takes a worker's turns: deficit round robin among the lanes that have frames ([`Shares`]).
//!
//! Each turn has a cost ([`Work`](crate::work::Work)). A lane that is ahead of the one that had the least,
//! by more than [`FAIR_TURN`], waits until the others have caught up; its frames wait where they are, in
//! the sender's ring or socket. A lane without frames saves nothing up: once it has some, it
//! begins level with the one that had the least. With one lane that has frames, or several that cost
//! the same, nobody ever waits.

use crate::work::Work;

/// How far a lane may be ahead of the others: two full bursts of the usual MTU, so that senders
/// of one kind never wait for each other.
const FAIR_TURN: u64 = 256 << 10;

/// What the lanes of one worker had of it in relation to each other.
#[derive(Debug)]
pub(super) struct Shares {
    /// By how much the lane that had the least is ahead of where all began this round.
    level: u64,
    /// The same for the next round, of the lanes seen so far.
    next: u64,
}

/// How far one lane is ahead of the one that had the least.
#[derive(Debug, Default)]
pub(super) struct Lead {
    ahead: u64,
    waits: bool,
}

/// Whether a lane has its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    /// It has used its budget up while others wait; `first` when it had its turn the round before.
    Later {
        first: bool,
    },
}

impl Default for Shares {
    fn default() -> Self {
        Shares {
            level: 0,
            next: u64::MAX,
        }
    }
}

impl Shares {
    /// Begins a round over all lanes.
    #[inline]
    pub(super) fn begin_round(&mut self) {
        // No lane had frames: u64::MAX, and all begin anew.
        self.level = std::mem::replace(&mut self.next, u64::MAX);
    }

    /// Once a round for each lane: whether it has its turn. What it costs goes to [`Shares::charge`].
    #[inline]
    pub(super) fn turn(&mut self, lead: &mut Lead) -> Turn {
        lead.ahead = lead.ahead.saturating_sub(self.level);
        if lead.ahead <= FAIR_TURN {
            lead.waits = false;
            return Turn::Now;
        }
        self.next = self.next.min(lead.ahead);
        let first = !std::mem::replace(&mut lead.waits, true);
        Turn::Later { first }
    }

    /// The lane had frames.
    #[inline]
    pub(super) fn charge(&mut self, lead: &mut Lead, work: Work) {
        lead.ahead = lead.ahead.saturating_add(work.0);
        self.next = self.next.min(lead.ahead);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds in which the lane with that index has frames when `wants` says so, each turn at that
    /// cost. Returns what each got, and how often each began to wait.
    fn run(costs: &[u64], rounds: u64, wants: impl Fn(usize, u64) -> bool) -> (Vec<u64>, Vec<u64>) {
        let mut shares = Shares::default();
        let mut leads: Vec<Lead> = costs.iter().map(|_| Lead::default()).collect();
        let (mut got, mut waits) = (vec![0; costs.len()], vec![0; costs.len()]);
        for round in 0..rounds {
            shares.begin_round();
            let mut any = false;
            for (lane, lead) in leads.iter_mut().enumerate() {
                match shares.turn(lead) {
                    Turn::Now if wants(lane, round) => {
                        shares.charge(lead, Work(costs[lane]));
                        got[lane] += costs[lane];
                        any = true;
                    }
                    Turn::Now => {}
                    Turn::Later { first } => waits[lane] += u64::from(first),
                }
            }
            let none_wanted = (0..costs.len()).all(|lane| !wants(lane, round));
            assert!(any || none_wanted || round > 0, "the first round serves");
        }
        (got, waits)
    }

    #[test]
    fn everyone_who_wants_it_gets_the_same_whatever_a_turn_costs() {
        let (got, waits) = run(&[20_000, 1_500_000, 100_000], 100_000, |_, _| true);
        let most = got.iter().max().unwrap();
        assert!(got.iter().all(|got| got * 100 >= most * 99), "{got:?}");
        assert_eq!(waits[0], 0);
        assert!(waits[1] > 0);
    }

    #[test]
    fn senders_of_one_kind_never_wait_for_each_other() {
        let (got, waits) = run(&[97_000, 113_000, 97_000], 1, |_, _| true);
        assert_eq!((got, waits), (vec![97_000, 113_000, 97_000], vec![0; 3]));
        let (_, waits) = run(&[113_000; 3], 10_000, |_, _| true);
        assert_eq!(waits, [0; 3]);
    }

    #[test]
    fn alone_a_lane_never_waits() {
        let (got, waits) = run(&[1_500_000, 1], 1000, |lane, _| lane == 0);
        assert_eq!(got, [1_500_000_000, 0]);
        assert_eq!(waits, [0, 0]);
    }

    /// A pause of one round between expensive turns does not buy the share of others.
    #[test]
    fn a_pause_does_not_clear_what_a_lane_had() {
        let pauses = |lane, round: u64| lane == 0 || round.is_multiple_of(2);
        let (got, _) = run(&[20_000, 1_500_000], 100_000, pauses);
        assert!(got[1] <= got[0] + 2 * 1_500_000 + FAIR_TURN, "{got:?}");
    }

    /// A lane that was idle for long does not get the worker for itself afterwards.
    #[test]
    fn silence_saves_nothing_up() {
        let (got, waits) = run(&[100_000, 100_000], 2_000, |lane, round| {
            lane == 0 || round >= 1_000
        });
        assert_eq!(got, [200_000_000, 100_000_000]);
        assert_eq!(waits, [0, 0]);
    }
}
