//! Which columns a table has, and how wide they are: [`fit`].

/// A column that a table would like to have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<C> {
    pub(super) column: C,
    /// Its title where there is room, and otherwise.
    pub(super) titles: [&'static str; 2],
    /// Characters of its widest cell.
    pub(super) width: usize,
    /// It has numbers, which stand at its right.
    pub(super) right: bool,
    /// It takes a share of the room that is left, because its cells may be longer.
    pub(super) grows: bool,
    /// Where the room is too small, those with the highest number go first; 0 stays.
    pub(super) expendable: u8,
}

/// A column as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fitted<C> {
    pub(super) column: C,
    pub(super) title: &'static str,
    /// Where it begins, counted from the left edge.
    pub(super) x: usize,
    pub(super) width: usize,
    pub(super) right: bool,
}

/// Columns between two columns.
const GAPS: [usize; 2] = [2, 1];

/// Lays columns out on a line of `room` characters: with long titles and wide gaps if they fit, then
/// with short ones, then without those that are expendable. What does not fit even then is cut at the
/// right edge.
pub(super) fn fit<C: Copy>(wanted: &[Wanted<C>], room: usize) -> Vec<Fitted<C>> {
    let mut wanted = wanted.to_vec();
    loop {
        for (index, gap) in GAPS.into_iter().enumerate() {
            let width = |it: &Wanted<C>| it.width.max(length(it.titles[index]));
            let gaps = gap * wanted.len().saturating_sub(1);
            let needed = wanted.iter().map(width).sum::<usize>() + gaps;
            if needed <= room {
                return placed(&wanted, index, room - needed);
            }
        }
        let most = wanted.iter().map(|it| it.expendable).max().unwrap_or(0);
        if most == 0 {
            return placed(&wanted, 1, 0);
        }
        let last = wanted.iter().rposition(|it| it.expendable == most);
        wanted.remove(last.expect("one has the highest number"));
    }
}

/// Places columns from the left; those that grow share what is `left`.
fn placed<C: Copy>(wanted: &[Wanted<C>], index: usize, left: usize) -> Vec<Fitted<C>> {
    let growing = wanted.iter().filter(|it| it.grows).count();
    let mut x = 0;
    let columns = wanted.iter().map(|it| {
        let more = if it.grows { left / growing } else { 0 };
        let fitted = Fitted {
            column: it.column,
            title: it.titles[index],
            x,
            width: it.width.max(length(it.titles[index])) + more,
            right: it.right,
        };
        x += fitted.width + GAPS[index];
        fitted
    });
    columns.collect()
}

pub(super) fn length(text: &str) -> usize {
    text.chars().count()
}

/// A text of at most `width` characters. It ends at the end of a word if it has several.
pub(super) fn clipped(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    let head: String = text.chars().take(width.saturating_sub(1)).collect();
    let next_is_space = text.chars().nth(width.saturating_sub(1)) == Some(' ');
    let whole = match head.rfind(' ') {
        Some(end) if !next_is_space => &head[..end],
        _ => &head,
    };
    let whole = whole.trim_end();
    if width == 0 {
        String::new()
    } else {
        format!("{whole}…")
    }
}

/// Lines of at most `width` characters, broken between words. A word that is longer is broken.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut word = word.to_owned();
        if !line.is_empty() && length(&line) + 1 + length(&word) > width {
            lines.push(std::mem::take(&mut line));
        }
        while length(&word) > width {
            lines.push(word.chars().take(width).collect());
            word = word.chars().skip(width).collect();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += &word;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(column: char, width: usize, expendable: u8) -> Wanted<char> {
        Wanted {
            column,
            titles: ["LONG", "L"],
            width,
            right: false,
            grows: column == 'g',
            expendable,
        }
    }

    fn shown(columns: &[Wanted<char>], room: usize) -> String {
        let fitted = fit(columns, room).into_iter();
        let shown = fitted.map(|it| format!("{}{}@{}+{}", it.column, it.title, it.x, it.width));
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn titles_gaps_and_then_columns_give_way() {
        let columns = [wanted('a', 3, 0), wanted('b', 3, 2), wanted('g', 3, 1)];
        assert_eq!(shown(&columns, 30), "aLONG@0+4 bLONG@6+4 gLONG@12+18");
        assert_eq!(shown(&columns, 16), "aLONG@0+4 bLONG@6+4 gLONG@12+4");
        assert_eq!(shown(&columns, 15), "aL@0+3 bL@4+3 gL@8+7");
        assert_eq!(shown(&columns, 10), "aLONG@0+4 gLONG@6+4");
        assert_eq!(shown(&columns, 4), "aLONG@0+4");
        assert_eq!(shown(&columns, 2), "aL@0+3");
    }

    #[test]
    fn a_text_ends_with_a_word() {
        assert_eq!(clipped("delay 10ms loss 1%", 18), "delay 10ms loss 1%");
        assert_eq!(clipped("delay 10ms loss 1%", 17), "delay 10ms loss…");
        assert_eq!(clipped("delay 10ms loss 1%", 16), "delay 10ms loss…");
        assert_eq!(clipped("delay 10ms loss 1%", 15), "delay 10ms…");
        assert_eq!(clipped("abcdef", 4), "abc…");
        assert_eq!(clipped("abcdef", 0), "");
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_its_room(text in "[a-c ]{0,40}", width in 1_usize..20) {
            prop_assert!(length(&clipped(&text, width)) <= width);
            for line in wrapped(&text, width) {
                prop_assert!(length(&line) <= width, "{:?}", line);
            }
            let words: String = wrapped(&text, width).concat().split_whitespace().collect();
            prop_assert_eq!(words, text.split_whitespace().collect::<String>());
        }

        #[test]
        fn columns_never_overlap(widths in proptest::collection::vec((0_usize..30, 0_u8..4), 1..9), room in 0_usize..200) {
            let columns: Vec<_> = widths.iter().map(|(width, last)| wanted('x', *width, *last)).collect();
            let fitted = fit(&columns, room);
            for pair in fitted.windows(2) {
                prop_assert!(pair[0].x + pair[0].width < pair[1].x);
            }
            let end = fitted.last().map_or(0, |last| last.x + last.width);
            let stays = columns.iter().filter(|it| it.expendable == 0).count();
            prop_assert!(end <= room || fitted.len() == stays);
        }
    }
}
