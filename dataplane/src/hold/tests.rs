use proptest::prelude::*;

use super::*;

fn wait(release: u64) -> Wait {
    Wait {
        arrival: 0,
        release,
        verdict: Verdict::default(),
    }
}

fn hold(bytes: u64) -> Hold {
    Hold::new(bytes, Arc::new(HoldMemory::new(Some(1 << 40)))).unwrap()
}

fn burst_of(frame: &[u8]) -> Burst {
    let mut burst = Burst::new();
    assert!(burst.push(VnetHeader::default(), frame));
    burst
}

#[test]
fn a_frame_comes_back_when_it_is_due_and_as_it_was() {
    let mut hold = hold(1 << 20);
    let frame: Vec<u8> = (0..65_000_u32).map(|byte| byte as u8).collect();
    hold.copy_in(&burst_of(&frame), 0, wait(100), None).unwrap();
    let mut out = Burst::new();
    assert!(hold.take(99, &mut out).is_none());
    assert_eq!(hold.take(100, &mut out).unwrap().release, 100);
    assert_eq!(out.to_vec(0), frame);
    assert!(hold.is_empty());
}

#[test]
fn a_long_frame_takes_its_memory_with_it_and_gives_it_back() {
    let mut hold = hold(1 << 20);
    let spare = hold.zero_copy.spare.len();
    let mut burst = Burst::new();
    for round in 0..100_u8 {
        assert!(burst.push(VnetHeader::default(), &vec![round; 60_000]));
        let at = burst.segments(0)[0].start();
        hold.take_over(&mut burst, 0, wait(0)).unwrap();
        burst.clear();
        // The next frame is written to other memory.
        assert!(burst.push(VnetHeader::default(), &vec![255; 60_000]));
        burst.clear();
        let mut out = Burst::new();
        hold.take(0, &mut out).unwrap();
        assert_eq!(out.segments(0)[0].start(), at);
        assert_eq!(out.to_vec(0), vec![round; 60_000]);
        hold.reclaim();
    }
    assert_eq!(hold.zero_copy.spare.len(), spare);
    assert!(hold.is_empty());
}

#[test]
fn a_bit_is_flipped_in_the_copy_alone() {
    let mut hold = hold(1 << 20);
    let burst = burst_of(&[0; 1514]);
    let mut corrupt = wait(0);
    corrupt.verdict.corrupted = Some(1000 * 8 + 3);
    hold.copy_in(&burst, 0, corrupt, None).unwrap();
    let mut out = Burst::new();
    hold.take(0, &mut out).unwrap();
    let mut expected = vec![0; 1514];
    expected[1000] = 8;
    assert_eq!(out.to_vec(0), expected);
    assert_eq!(burst.to_vec(0), vec![0; 1514]);
}

#[test]
fn full_it_refuses_and_reclaimed_it_takes_again() {
    let mut hold = hold(1);
    let burst = burst_of(&[7; 1514]);
    let mut kept = 0;
    while hold.copy_in(&burst, 0, wait(kept), None).is_ok() {
        kept += 1;
    }
    assert!(kept * 1514 >= MIN_BYTES);
    let mut out = Burst::new();
    hold.take(0, &mut out).unwrap();
    let full = Err(DropReason::HoldFull);
    let kept_again = |hold: &mut Hold| hold.copy_in(&burst, 0, wait(9), None);
    while kept_again(&mut hold).is_ok() {
        kept += 1; // in what the last frame left over
    }
    assert_eq!(kept_again(&mut hold), full, "it is still lent");
    hold.reclaim();
    assert_eq!(kept_again(&mut hold), Ok(()));
    assert_eq!(hold.purge(), kept);
    assert!(hold.next_release().is_none());
}

proptest! {
    /// Whatever the times: all come out once, in order of time and then of arrival.
    #[test]
    fn frames_leave_in_order(times in prop::collection::vec(0_u64..50, 1..200)) {
        let mut hold = hold(1 << 20);
        let mut burst = Burst::new();
        for (number, time) in times.iter().enumerate() {
            let mut frame = [0; 60];
            frame[..8].copy_from_slice(&(number as u64).to_be_bytes());
            burst.clear();
            burst.push(VnetHeader::default(), &frame);
            prop_assert!(hold.copy_in(&burst, 0, wait(*time), None).is_ok());
        }
        let mut expected: Vec<_> = times.iter().copied().zip(0_u64..).collect();
        expected.sort_unstable();
        let mut seen = Vec::new();
        let mut out = Burst::new();
        for now in 0..50 {
            while let Some(due) = hold.take(now, &mut out) {
                let frame = out.to_vec(0);
                let number = u64::from_be_bytes(frame[..8].try_into().unwrap());
                seen.push((due.release, number));
                out.clear();
                hold.reclaim();
            }
            prop_assert!(hold.next_release().is_none_or(|next| next > now));
        }
        prop_assert_eq!(seen, expected);
    }
}

/// What a hold takes of the budget is little more than the bytes of its frames, whatever their length.
#[test]
fn small_frames_are_packed() {
    let touched = |len: usize| {
        let memory = Arc::new(HoldMemory::new(Some(1 << 40)));
        let mut hold = Hold::new(32 << 20, memory.clone()).unwrap();
        let burst = burst_of(&vec![1; len]);
        let frames = (16 << 20) / len.max(CHUNK) as u64;
        for _ in 0..frames {
            hold.copy_in(&burst, 0, wait(0), None).unwrap();
        }
        memory.taken() as f64 / (frames * len as u64) as f64
    };
    for (len, most) in [
        (60, 5.0),
        (129, 3.2),
        (257, 2.2),
        (1514, 1.3),
        (9014, 1.2),
        (65_000, 1.2),
    ] {
        let factor = touched(len);
        assert!(factor < most, "{len} bytes: {factor}");
    }
}

#[test]
fn beyond_the_budget_of_all_holds_frames_are_refused_under_a_reason() {
    let memory = Arc::new(HoldMemory::new(Some(4 << 20)));
    let [mut a, mut b] = [(); 2].map(|()| Hold::new(32 << 20, memory.clone()).unwrap());
    let burst = burst_of(&[1; 1514]);
    let fill = |hold: &mut Hold| loop {
        if let Err(reason) = hold.copy_in(&burst, 0, wait(0), None) {
            return reason;
        }
    };
    assert_eq!(fill(&mut a), DropReason::HoldMemory);
    assert_eq!(fill(&mut b), DropReason::HoldMemory);
    assert!(b.is_empty());
    assert!(memory.taken() <= memory.limit());
    let mut own = Burst::new();
    assert!(own.push(VnetHeader::default(), &vec![1; 60_000]));
    let refused = b.take_over(&mut own, 0, wait(0));
    assert_eq!(refused, Err(DropReason::HoldMemory));
    // What is released is used again without more of the budget.
    let mut out = Burst::new();
    a.take(0, &mut out).unwrap();
    a.reclaim();
    assert_eq!(a.copy_in(&burst, 0, wait(0), None), Ok(()));
    drop(a);
    b.take_over(&mut own, 0, wait(0)).unwrap();
    drop(b);
    assert_eq!(memory.taken(), 0);
}

proptest! {
    /// Frames of any lengths, kept and released in any order, come out as they went in.
    #[test]
    fn chunks_are_used_again_and_never_shared(
        steps in prop::collection::vec((14_usize..5_000, 0_u64..40, any::<bool>()), 1..150),
    ) {
        let mut hold = hold(1 << 20);
        let mut out = Burst::new();
        // One burst for all: each reserves memory of its own.
        let mut burst = Burst::new();
        let mut lens = Vec::new();
        for (now, (len, later, release)) in (0_u64..).zip(steps) {
            burst.clear();
            burst.push(VnetHeader::default(), &vec![lens.len() as u8; len]);
            prop_assert_eq!(hold.copy_in(&burst, 0, wait(now + later), None), Ok(()));
            lens.push(len);
            while release && hold.take(now, &mut out).is_some() {
                let seen = out.to_vec(0);
                let number = seen[0];
                prop_assert_eq!(seen, vec![number; lens[usize::from(number)]]);
                out.clear();
                hold.reclaim();
            }
        }
    }
}
