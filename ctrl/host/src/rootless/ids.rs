//! Which ids a user namespace has: subordinate ones (subuid(5), subgid(5)), and what its map grants.

use std::ops::Range;

/// The longest range of subordinate ids that a file such as /etc/subuid gives a user, who stands
/// there by name or by uid.
pub(super) fn subordinate(file: &str, name: &str, uid: u32) -> Option<Range<u32>> {
    let uid = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let user = fields.next()?;
        if user != uid && (user != name || name.is_empty()) {
            return None;
        }
        let first: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        Some(first..first.checked_add(count)?)
    };
    let ranges = file.lines().filter_map(range);
    ranges.max_by_key(ExactSizeIterator::len)
}

/// The numbers that newuidmap(1) and newgidmap(1) take: the user becomes 0, and the subordinate ids
/// follow from 1 on.
pub(super) fn map(own: u32, others: &Range<u32>) -> [String; 6] {
    let count = others.end - others.start;
    [0, own, 1, 1, others.start, count].map(|number| number.to_string())
}

/// How many ids, from 0 on without a gap, a map such as /proc/self/uid_map has.
pub(super) fn held(map: &str) -> u32 {
    let mut lines: Vec<(u32, u32)> = map
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let inside = fields.next()?.parse().ok()?;
            Some((inside, fields.nth(1)?.parse().ok()?))
        })
        .collect();
    lines.sort_unstable();
    lines.into_iter().fold(0, |held, (inside, count)| {
        if inside == held {
            held.saturating_add(count)
        } else {
            held
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_by_uid_and_gets_the_longest_range() {
        let file = "# comment\nalice:100000:65536\nbob:165536:65536\n1001:300000:10\nalice:400000:70000\n\
                    broken:x:y\nalice:4294967295:2\n";
        assert_eq!(subordinate(file, "alice", 1000), Some(400_000..470_000));
        assert_eq!(subordinate(file, "eve", 1001), Some(300_000..300_010));
        assert_eq!(subordinate(file, "broken", 1), None);
        assert_eq!(subordinate(file, "", 7), None, "a user without an account");
        let words = map(1000, &(100_000..165_536)).join(" ");
        assert_eq!(words, "0 1000 1 1 100000 65536");
    }

    #[test]
    fn ids_are_counted_up_to_the_first_gap() {
        assert_eq!(held(""), 0);
        assert_eq!(held("         0       1000          1\n"), 1);
        assert_eq!(held(" 1 100000 65536\n 0 1000 1\n"), 65_537);
        assert_eq!(held("0 1000 1\n2 100000 65536\n"), 1);
        assert_eq!(held("0 0 4294967295\n"), u32::MAX);
    }
}
