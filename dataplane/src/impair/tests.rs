//! How the keys act together.

use std::time::Duration;

use super::*;

const MS: u64 = 1_000_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn chance(probability: f64) -> Chance {
    Chance {
        probability,
        correlation: 0.0,
    }
}

fn judge(impairer: &mut Impairer, now: u64) -> Fate {
    impairer.judge(now, 1000, false, Backlog::default())
}

#[test]
fn a_constant_delay_keeps_super_frames_whole() {
    let delay = Impairment {
        delay: ms(10),
        ..Impairment::default()
    };
    assert!(!delay.is_clean() && !delay.acts_on_wire_frames());
    let mut impairer = Impairer::new(delay);
    for now in [5, 6, 7] {
        assert_eq!(judge(&mut impairer, now), Fate::passes(now + 10 * MS));
    }
}

#[test]
fn every_nth_overtakes_with_a_gap_at_100_percent() {
    let mut impairer = Impairer::new(Impairment {
        delay: ms(10),
        reorder: chance(1.0),
        gap: 5,
        ..Impairment::default()
    });
    let overtook: Vec<u64> = (1..=20)
        .filter(|n| judge(&mut impairer, *n).reordered)
        .collect();
    assert_eq!(overtook, [5, 10, 15, 20]);
}

#[test]
fn a_reordered_frame_waits_for_nothing() {
    let mut impairer = Impairer::new(Impairment {
        delay: ms(10),
        reorder: chance(1.0),
        gap: 2,
        rate: Some(Rate {
            bits_per_second: 8_000_000,
            overhead: 0,
            cell: 0,
            cell_overhead: 0,
        }),
        ..Impairment::default()
    });
    assert_eq!(judge(&mut impairer, MS).release, 12 * MS);
    assert_eq!(judge(&mut impairer, MS).release, MS);
    assert_eq!(judge(&mut impairer, MS).release, 13 * MS);
}

#[test]
fn of_a_lost_and_duplicated_frame_one_is_left() {
    let loss = Loss::Random {
        probability: 1.0,
        correlation: 0.0,
    };
    let mut impairer = Impairer::new(Impairment {
        loss,
        duplicate: chance(1.0),
        ..Impairment::default()
    });
    let fate = judge(&mut impairer, 7);
    assert_eq!(
        (fate.dropped, fate.duplicate),
        (Some(DropReason::Loss), true)
    );
    let copy = impairer.judge_copy(&fate, 7, 1000, false, Backlog::default());
    assert_eq!(copy, Fate::passes(7));
}

#[test]
fn what_can_be_marked_is_marked_and_not_lost() {
    let mut impairer = Impairer::new(Impairment {
        loss: Loss::gemodel(1.0, None, None, Some(1.0)),
        ecn: true,
        duplicate: chance(1.0),
        ..Impairment::default()
    });
    let fate = impairer.judge(7, 1000, true, Backlog::default());
    assert_eq!((fate.dropped, fate.mark), (None, true));
    let copy = impairer.judge_copy(&fate, 7, 1000, true, Backlog::default());
    assert_eq!((copy.dropped, copy.mark), (None, true));
    assert_eq!(judge(&mut impairer, 7).dropped, Some(DropReason::Loss));
}

#[test]
fn chosen_frames_are_dropped_and_copies_are_not_counted() {
    let mut impairer = Impairer::new(Impairment {
        drop_nth: [3].into(),
        duplicate: chance(1.0),
        ..Impairment::default()
    });
    let mut fates = Vec::new();
    for now in 1..=4 {
        let fate = judge(&mut impairer, now);
        if fate.duplicate {
            impairer.judge_copy(&fate, now, 1000, false, Backlog::default());
        }
        fates.push((fate.dropped, fate.duplicate));
    }
    let sent = (None, true);
    assert_eq!(fates, [sent, sent, (Some(DropReason::Chosen), false), sent]);
}

#[test]
fn a_full_hold_drops() {
    let full = |limit, backlog| {
        let mut impairer = Impairer::new(Impairment {
            delay: ms(1),
            limit: Some(limit),
            ..Impairment::default()
        });
        impairer.judge(1, 1000, false, backlog).dropped == Some(DropReason::HoldFull)
    };
    let backlog = |frames, bytes| Backlog { frames, bytes };
    assert!(!full(Limit::Bytes(5000), backlog(4, 4000)));
    assert!(full(Limit::Bytes(5000), backlog(4, 4001)));
    assert!(!full(Limit::Frames(5), backlog(4, 1 << 20)));
    assert!(full(Limit::Frames(5), backlog(5, 0)));
    // Frames that go at once need no room.
    let mut loss = Impairer::new(Impairment {
        limit: Some(Limit::Frames(1)),
        duplicate: chance(0.5),
        ..Impairment::default()
    });
    assert_eq!(loss.judge(1, 1000, false, backlog(9, 9000)).dropped, None);
}

#[test]
fn nobody_queues_behind_what_was_thrown_away() {
    let mut impairer = Impairer::new(Impairment {
        rate: Some(Rate {
            bits_per_second: 8_000,
            overhead: 0,
            cell: 0,
            cell_overhead: 0,
        }),
        ..Impairment::default()
    });
    let second = 1000 * MS;
    assert_eq!(judge(&mut impairer, 5).release, second + 5);
    assert_eq!(judge(&mut impairer, 5).release, 2 * second + 5);
    impairer.emptied();
    assert_eq!(judge(&mut impairer, 10).release, second + 10);
}

#[test]
fn other_keys_leave_the_losses_where_they_were() {
    let loss = Impairment {
        loss: Loss::Random {
            probability: 0.1,
            correlation: 0.0,
        },
        seed: 11,
        ..Impairment::default()
    };
    let more = Impairment {
        delay: ms(5),
        jitter: ms(3),
        corrupt: chance(0.2),
        reorder: chance(0.2),
        ..loss.clone()
    };
    let (mut loss, mut more) = (Impairer::new(loss), Impairer::new(more));
    for now in 1..10_000 {
        let lost = judge(&mut loss, now).dropped;
        assert_eq!(judge(&mut more, now).dropped, lost);
    }
}
