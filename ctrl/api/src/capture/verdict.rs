//! The verdict on a frame, as a comment.

use dataplane::capture::Verdict;

/// Writes a comment for a frame; empty if nothing happened to it. `super_frame` is the number of wire
/// frames that a super-frame becomes, and the bytes of payload in each.
pub fn comment(verdict: &Verdict, super_frame: Option<(usize, usize)>) -> String {
    if super_frame.is_none() && *verdict == Verdict::default() {
        return String::new();
    }
    let mut words = Vec::new();
    if let Some(reason) = verdict.dropped {
        words.push(format!("dropped: {}", reason.name()));
    }
    if verdict.lost_pieces > 0 {
        words.push(format!(
            "dropped: {} of its wire frames",
            verdict.lost_pieces
        ));
    }
    if let Some(delay) = verdict.delay {
        words.push(format!("delayed {}", milliseconds(delay)));
    }
    if let Some(bit) = verdict.corrupted {
        words.push(format!("corrupted: bit {} of byte {}", bit % 8, bit / 8));
    }
    if verdict.copy {
        words.push("the duplicate".into());
    } else if verdict.duplicated {
        words.push("duplicated".into());
    }
    if verdict.reordered {
        words.push("reordered".into());
    }
    if verdict.marked {
        words.push("marked: ECN congestion experienced".into());
    }
    if let Some((count, size)) = super_frame {
        words.push(format!("super-frame: {count} pieces of {size}"));
    }
    words.join(", ")
}

/// Writes ns as milliseconds, rounded to µs: `10.000 ms`.
fn milliseconds(ns: u64) -> String {
    let us = (ns + 500) / 1000;
    format!("{}.{:03} ms", us / 1000, us % 1000)
}

#[cfg(test)]
mod tests {
    use dataplane::DropReason;

    use super::*;

    #[test]
    fn a_comment_has_everything_that_happened() {
        assert_eq!(comment(&Verdict::default(), None), "");
        let dropped = Verdict {
            dropped: Some(DropReason::Blackhole),
            ..Verdict::default()
        };
        assert_eq!(comment(&dropped, None), "dropped: blackhole");
        let much = Verdict {
            lost_pieces: 3,
            delay: Some(10_000_400),
            duplicated: true,
            corrupted: Some(87 * 8 + 3),
            reordered: true,
            marked: true,
            ..Verdict::default()
        };
        assert_eq!(
            comment(&much, Some((44, 1448))),
            "dropped: 3 of its wire frames, delayed 10.000 ms, corrupted: bit 3 of byte 87, \
             duplicated, reordered, marked: ECN congestion experienced, super-frame: 44 pieces of 1448"
        );
        let copy = Verdict {
            copy: true,
            duplicated: true,
            ..Verdict::default()
        };
        assert_eq!(comment(&copy, None), "the duplicate");
    }
}
