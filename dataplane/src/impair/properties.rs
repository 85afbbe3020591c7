//! What holds for any settings and any traffic.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A lane: frames that go out are counted, those that wait wait here.
#[derive(Debug, Default)]
struct Lane {
    entered: u64,
    out: u64,
    dropped: u64,
    waiting: BinaryHeap<Reverse<(u64, u32)>>,
    backlog: Backlog,
    fates: Vec<Fate>,
}

impl Lane {
    fn pass(&mut self, impairer: &mut Impairer, now: u64, len: u32, ect: bool) {
        self.release(now);
        let backlog = self.backlog;
        let fate = impairer.judge(now, len, ect, backlog);
        let most = impairer.settings().hold_bytes();
        self.meet(fate, now, len, most);
        if fate.duplicate {
            let copy = impairer.judge_copy(&fate, now, len, ect, backlog);
            assert!(!copy.duplicate);
            self.meet(copy, now, len, most);
        }
    }

    fn meet(&mut self, fate: Fate, now: u64, len: u32, most: u64) {
        self.entered += 1;
        self.fates.push(fate);
        if fate.dropped.is_some() {
            self.dropped += 1;
            return;
        }
        assert!(fate.release >= now);
        assert!(fate.corrupt.is_none_or(|bit| bit < len * 8));
        assert!(!fate.reordered || fate.release == now);
        if fate.release == now {
            self.out += 1;
            return;
        }
        self.waiting.push(Reverse((fate.release, len)));
        self.backlog.frames += 1;
        self.backlog.bytes += u64::from(len);
        assert!(
            self.backlog.bytes <= most,
            "a frame was let in that has no room"
        );
    }

    fn release(&mut self, now: u64) {
        while let Some(Reverse((time, len))) = self.waiting.peek().copied()
            && time <= now
        {
            self.waiting.pop();
            self.out += 1;
            self.backlog.frames -= 1;
            self.backlog.bytes -= u64::from(len);
        }
    }
}

fn probability() -> BoxedStrategy<f64> {
    prop_oneof![Just(0.0), 0.0..=1.0, Just(1.0)].boxed()
}

fn chances() -> BoxedStrategy<Chance> {
    (probability(), probability())
        .prop_map(|(probability, correlation)| Chance {
            probability,
            correlation,
        })
        .boxed()
}

fn distributions() -> BoxedStrategy<Distribution> {
    prop_oneof![
        Just(Distribution::Uniform),
        Just(Distribution::Normal),
        Just(Distribution::Pareto),
        Just(Distribution::ParetoNormal),
        proptest::collection::vec(any::<i16>(), 1..20)
            .prop_map(|table| Distribution::Table(table.into())),
    ]
    .boxed()
}

fn losses() -> BoxedStrategy<Loss> {
    let p = probability;
    prop_oneof![
        Just(Loss::None),
        chances().prop_map(|chance| Loss::Random {
            probability: chance.probability,
            correlation: chance.correlation,
        }),
        (p(), p(), p(), p(), p()).prop_map(|(p13, p31, p32, p23, p14)| Loss::State {
            p13: p13 * (1.0 - p14),
            p31: p31 * (1.0 - p32),
            p32,
            p23,
            p14,
        }),
        (p(), p(), p(), p()).prop_map(|(p, r, h, k)| Loss::Gemodel { p, r, h, k }),
    ]
    .boxed()
}

fn rates() -> BoxedStrategy<Rate> {
    let cells = (1..=MAX_CELL, -1..=MAX_CELL_OVERHEAD);
    (
        1_000..=MAX_RATE,
        -MAX_OVERHEAD..=MAX_OVERHEAD,
        prop_oneof![Just((0, 0)), cells],
    )
        .prop_map(|(bits_per_second, overhead, (cell, cell_overhead))| Rate {
            bits_per_second,
            overhead,
            cell,
            cell_overhead,
        })
        .boxed()
}

fn slots() -> BoxedStrategy<Slot> {
    let between = (0..20_u64, 1..20_u64).prop_map(|(min, more)| SlotWait::Between {
        min: ms(min),
        max: ms(min + more),
    });
    let distributed = (0..20_u64, 1..20_u64, distributions()).prop_map(|(mean, jitter, d)| {
        SlotWait::Distributed {
            delay: ms(mean),
            jitter: ms(jitter),
            distribution: d,
        }
    });
    let wait = prop_oneof![between, distributed];
    (wait, 0..5_u64, 0..5000_u64)
        .prop_map(|(wait, frames, bytes)| Slot {
            wait,
            frames,
            bytes,
        })
        .boxed()
}

fn limits() -> BoxedStrategy<Limit> {
    prop_oneof![
        (1..100_000_u64).prop_map(Limit::Bytes),
        (1..100_u64).prop_map(Limit::Frames),
    ]
    .boxed()
}

prop_compose! {
    fn impairments()(
        delay in 0..20_u64, jitter in 0..20_u64, delay_correlation in probability(),
        distribution in distributions(), loss in losses(), ecn: bool,
        (duplicate, corrupt, reorder) in (chances(), chances(), chances()), gap in 0..5_u32,
        (rate, slot, limit) in (
            proptest::option::of(rates()), proptest::option::of(slots()),
            proptest::option::of(limits())),
        drop_nth in proptest::collection::vec(1..200_u64, 0..4), seed: u64,
    ) -> Impairment {
        let jittery = jitter > 0;
        let mut settings = Impairment {
            delay: ms(delay),
            jitter: ms(jitter),
            delay_correlation: if jittery { delay_correlation } else { 0.0 },
            distribution: if jittery { distribution } else { Distribution::Uniform },
            ecn: ecn && loss != Loss::None,
            loss, duplicate, corrupt, reorder, gap, rate, limit, slot, seed,
            drop_nth: drop_nth.into(),
            matches: None,
        };
        if !settings.holds() {
            settings.reorder = Chance::default();
        }
        if settings.reorder.is_never() {
            settings.gap = 0;
        }
        settings
    }
}

/// Gaps in ns, lengths, and whether they can be marked.
fn traffic() -> BoxedStrategy<Vec<(u64, u32, bool)>> {
    proptest::collection::vec((0..2 * MS, 14..=65_550_u32, any::<bool>()), 1..200).boxed()
}

fn lane_of(impairer: &mut Impairer, traffic: &[(u64, u32, bool)]) -> (Lane, u64) {
    let (mut lane, mut now) = (Lane::default(), MS);
    for (gap, len, ect) in traffic {
        now += gap;
        lane.pass(impairer, now, *len, *ect);
    }
    (lane, now)
}

/// Short enough to read, as all the fates are not.
fn first_difference(one: &[Fate], other: &[Fate]) -> Option<(Fate, Fate)> {
    assert_eq!(one.len(), other.len());
    let mut both = one.iter().zip(other);
    both.find(|(a, b)| a != b).map(|(a, b)| (*a, *b))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_frame_is_out_held_or_dropped(settings in impairments(), traffic in traffic()) {
        prop_assert_eq!(settings.check(), Ok(()));
        let (mut lane, _) = lane_of(&mut Impairer::new(settings), &traffic);
        let waiting = lane.waiting.len() as u64;
        prop_assert_eq!(lane.entered, lane.out + waiting + lane.dropped);
        prop_assert_eq!(lane.backlog.frames, waiting);
        lane.release(u64::MAX);
        prop_assert_eq!(lane.entered, lane.out + lane.dropped);
        prop_assert_eq!(lane.backlog, Backlog::default());
    }

    #[test]
    fn frames_are_conserved_while_settings_change(
        all in proptest::collection::vec((impairments(), traffic()), 1..5)
    ) {
        let (mut lane, mut now, mut before) = (Lane::default(), MS, None::<Impairer>);
        for (settings, traffic) in all {
            let mut impairer = Impairer::new(settings);
            if let Some(before) = before {
                impairer.follow(&before);
            }
            for (gap, len, ect) in traffic {
                now += gap;
                // A limit may be below what waits already: that stays, nothing comes to it.
                lane.pass(&mut impairer, now, len, ect);
            }
            before = Some(impairer);
        }
        let waiting = lane.waiting.len() as u64;
        prop_assert_eq!(lane.entered, lane.out + waiting + lane.dropped);
    }

    #[test]
    fn the_same_seed_gives_the_same_verdicts(settings in impairments(), traffic in traffic()) {
        let (one, _) = lane_of(&mut Impairer::new(settings.clone()), &traffic);
        let (other, _) = lane_of(&mut Impairer::new(settings), &traffic);
        prop_assert_eq!(first_difference(&one.fates, &other.fates), None);
    }

    #[test]
    fn new_settings_that_are_the_old_change_nothing(
        settings in impairments(), traffic in traffic(), at in any::<prop::sample::Index>()
    ) {
        let (before, after) = traffic.split_at(at.index(traffic.len()));
        let run = |change: bool| {
            let mut impairer = Impairer::new(settings.clone());
            let (mut lane, mut now) = lane_of(&mut impairer, before);
            if change {
                let mut again = Impairer::new(settings.clone());
                again.follow(&impairer);
                impairer = again;
            }
            for (gap, len, ect) in after {
                now += gap;
                lane.pass(&mut impairer, now, *len, *ect);
            }
            lane.fates
        };
        prop_assert_eq!(first_difference(&run(true), &run(false)), None);
    }

    #[test]
    fn order_is_kept_without_jitter_and_reorder(
        mut settings in impairments(), traffic in traffic()
    ) {
        if settings.rate.is_none() {
            settings.jitter = Duration::ZERO;
        }
        settings.reorder = Chance::default();
        let (lane, _) = lane_of(&mut Impairer::new(settings), &traffic);
        let sent = lane.fates.iter().filter(|fate| fate.dropped.is_none());
        prop_assert!(sent.is_sorted_by_key(|fate| fate.release));
    }

    #[test]
    fn clean_settings_pass_every_frame_as_it_is(
        settings in impairments(), traffic in traffic()
    ) {
        let clean = Impairment {
            seed: settings.seed,
            limit: settings.limit,
            ecn: settings.ecn,
            gap: settings.gap,
            distribution: settings.distribution.clone(),
            ..Impairment::default()
        };
        prop_assert!(clean.is_clean() && !clean.acts_on_wire_frames());
        let (lane, _) = lane_of(&mut Impairer::new(clean), &traffic);
        prop_assert_eq!(lane.out, traffic.len() as u64);
        prop_assert!(lane.fates.iter().all(|fate| *fate == Fate::passes(fate.release)));
        if settings.is_clean() {
            let (same, _) = lane_of(&mut Impairer::new(settings), &traffic);
            prop_assert_eq!(first_difference(&same.fates, &lane.fates), None);
        }
    }
}
