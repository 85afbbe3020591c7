use proptest::prelude::*;

use super::*;

fn wait(release: u64) -> Wait {
    Wait {
        arrival: 0,
        release,
        verdict: Verdict::default(),
    }
}

fn burst_of(frame: &[u8]) -> Burst {
    let mut burst = Burst::new();
    assert!(burst.push(VnetHeader::default(), frame));
    burst
}

#[test]
fn a_frame_comes_back_when_it_is_due_and_as_it_was() {
    let mut hold = Hold::new(1 << 20).unwrap();
    let frame: Vec<u8> = (0..65_000_u32).map(|byte| byte as u8).collect();
    assert!(hold.copy_in(&burst_of(&frame), 0, wait(100), None));
    let mut out = Burst::new();
    assert!(hold.take(99, &mut out).is_none());
    assert_eq!(hold.take(100, &mut out).unwrap().release, 100);
    assert_eq!(out.to_vec(0), frame);
    assert!(hold.is_empty());
}

#[test]
fn a_long_frame_takes_its_memory_with_it_and_gives_it_back() {
    let mut hold = Hold::new(1 << 20).unwrap();
    let spare = hold.zero_copy.spare.len();
    let mut burst = Burst::new();
    for round in 0..100_u8 {
        assert!(burst.push(VnetHeader::default(), &vec![round; 60_000]));
        let at = burst.segments(0)[0].start();
        assert!(hold.take_over(&mut burst, 0, wait(0)));
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
    let mut hold = Hold::new(1 << 20).unwrap();
    let burst = burst_of(&[0; 1514]);
    let mut corrupt = wait(0);
    corrupt.verdict.corrupted = Some(1000 * 8 + 3);
    assert!(hold.copy_in(&burst, 0, corrupt, None));
    let mut out = Burst::new();
    hold.take(0, &mut out).unwrap();
    let mut expected = vec![0; 1514];
    expected[1000] = 8;
    assert_eq!(out.to_vec(0), expected);
    assert_eq!(burst.to_vec(0), vec![0; 1514]);
}

#[test]
fn full_it_refuses_and_reclaimed_it_takes_again() {
    let mut hold = Hold::new(1).unwrap();
    let burst = burst_of(&[7; 1514]);
    let mut kept = 0;
    while hold.copy_in(&burst, 0, wait(kept), None) {
        kept += 1;
    }
    assert!(kept * 1514 >= MIN_BYTES);
    let mut out = Burst::new();
    hold.take(0, &mut out).unwrap();
    assert!(!hold.copy_in(&burst, 0, wait(9), None), "it is still lent");
    hold.reclaim();
    assert!(hold.copy_in(&burst, 0, wait(9), None));
    assert_eq!(hold.purge(), kept);
    assert!(hold.next_release().is_none());
}

proptest! {
    /// Whatever the times: all come out once, in order of time and then of arrival.
    #[test]
    fn frames_leave_in_order(times in prop::collection::vec(0_u64..50, 1..200)) {
        let mut hold = Hold::new(1 << 20).unwrap();
        for (number, time) in times.iter().enumerate() {
            let mut frame = [0; 60];
            frame[..8].copy_from_slice(&(number as u64).to_be_bytes());
            prop_assert!(hold.copy_in(&burst_of(&frame), 0, wait(*time), None));
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
