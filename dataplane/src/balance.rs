//! Decides which cable should change its worker, from measurements alone: pure.

use crate::command::CableId;

/// The load of one worker in an interval.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// The share of the interval in which it moved frames, 0..=1.
    pub(crate) busy: f64,
    /// Frames that each of its cables carried.
    pub(crate) cables: Vec<(CableId, u64)>,
}

/// A cable that is to change its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CableMove {
    pub(crate) cable: CableId,
    pub(crate) to: usize,
}

/// Frames wait in a worker that is busier than this (0..=1).
pub(crate) const OVERLOADED: f64 = 0.8;

/// A move must make the busier of the two workers idler by this much: a cable that goes back
/// and forth gains nothing.
const WORTH: f64 = 0.1;

/// The one move that evens out the load best, if the busiest worker is overloaded and a move
/// helps. A cable's share of its worker's time is taken to be its share of the frames.
pub(crate) fn choose(loads: &[Load]) -> Option<CableMove> {
    let by_busy = |a: &usize, b: &usize| loads[*a].busy.total_cmp(&loads[*b].busy);
    let from = (0..loads.len()).max_by(by_busy)?;
    let to = (0..loads.len()).min_by(by_busy)?;
    let (busiest, idlest) = (&loads[from], &loads[to]);
    if busiest.busy < OVERLOADED {
        return None;
    }
    let frames: u64 = busiest.cables.iter().map(|(_, frames)| frames).sum();
    let after = |share: f64| (busiest.busy - share).max(idlest.busy + share);
    let shares = busiest.cables.iter().map(|(cable, count)| {
        let share = busiest.busy * *count as f64 / frames.max(1) as f64;
        (*cable, after(share))
    });
    let (cable, busy) = shares.min_by(|a, b| a.1.total_cmp(&b.1))?;
    (busy <= busiest.busy - WORTH).then_some(CableMove { cable, to })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load(busy: f64, cables: &[(u32, u64)]) -> Load {
        let cables = cables.iter().map(|(id, frames)| (CableId(*id), *frames));
        Load {
            busy,
            cables: cables.collect(),
        }
    }

    #[test]
    fn the_cable_that_evens_out_best_goes_to_the_idlest() {
        let loads = [
            load(1.0, &[(0, 700), (1, 300), (2, 0)]),
            load(0.5, &[(3, 10)]),
            load(0.1, &[]),
        ];
        let expected = CableMove {
            cable: CableId(1),
            to: 2,
        };
        // 0.7 + 0.1 against 0.3 + 0.1: both leave 0.8 and 0.7 as the busier of the two.
        assert_eq!(choose(&loads), Some(expected));
    }

    #[test]
    fn one_cable_that_fills_a_worker_alone_stays() {
        let loads = [load(1.0, &[(0, 1000), (1, 0)]), load(0.0, &[])];
        assert_eq!(choose(&loads), None);
    }

    #[test]
    fn nobody_moves_while_nobody_is_overloaded() {
        let loads = [load(0.7, &[(0, 50), (1, 50)]), load(0.0, &[])];
        assert_eq!(choose(&loads), None);
    }

    proptest! {
        #[test]
        fn a_move_always_helps(
            busy in proptest::collection::vec(0.0..=1.0f64, 1..6),
            frames in proptest::collection::vec(0..1_000_000u64, 1..20),
        ) {
            let mut loads: Vec<Load> = busy.iter().map(|busy| load(*busy, &[])).collect();
            for (id, count) in frames.iter().enumerate() {
                let worker = id % loads.len();
                loads[worker].cables.push((CableId(id as u32), *count));
            }
            if let Some(CableMove { cable, to }) = choose(&loads) {
                let from = cable.0 as usize % loads.len();
                prop_assert_ne!(from, to);
                let total: u64 = loads[from].cables.iter().map(|(_, frames)| frames).sum();
                let share = loads[from].busy * frames[cable.0 as usize] as f64 / total.max(1) as f64;
                prop_assert!(loads[to].busy + share < loads[from].busy);
            }
        }
    }
}
