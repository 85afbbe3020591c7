//! What a view shows of its rows: which, in which order, from which on: [`List`].

use std::cmp::Ordering;

/// By what rows are sorted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'v> {
    /// Sorted as people count: `leaf2` before `leaf10`.
    Text(&'v str),
    /// The largest first.
    Number(f64),
}

/// The state of a view.
#[derive(Debug, Clone, Default)]
pub(super) struct List {
    /// The number of the column by which rows are sorted; `None` for the fabric's own order.
    pub(super) sort: Option<usize>,
    pub(super) reversed: bool,
    /// Only rows that contain this text are shown, whatever its case.
    pub(super) filter: String,
    /// The name of the selected row, which stays selected wherever it moves.
    selected: Option<String>,
    /// The place of the selected row when it was last seen.
    place: usize,
    /// The first row on the screen.
    first: usize,
}

/// A move of the selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// By so many rows, down if positive.
    By(isize),
    /// By so many screens.
    Pages(isize),
    First,
    Last,
}

impl List {
    /// The rows to show, by their numbers. `matches` is asked with the filter in lower case.
    pub(super) fn order<'v>(
        &self,
        rows: usize,
        matches: impl Fn(usize, &str) -> bool,
        value: impl Fn(usize, usize) -> Value<'v>,
    ) -> Vec<usize> {
        let filter = self.filter.to_lowercase();
        let mut order: Vec<usize> = (0..rows)
            .filter(|row| filter.is_empty() || matches(*row, &filter))
            .collect();
        if let Some(column) = self.sort {
            order.sort_by(|a, b| compare(value(*a, column), value(*b, column)));
        }
        if self.reversed {
            order.reverse();
        }
        order
    }

    /// Sorts by the next of so many columns, and after the last in the fabric's order.
    pub(super) fn sort_by_next(&mut self, columns: usize) {
        let next = self.sort.map_or(0, |column| column + 1);
        self.sort = (next < columns).then_some(next);
        self.reversed = false;
    }

    /// The place of the selected row in `order`. If the row has gone, that is the one which has taken its place.
    pub(super) fn place<'n>(&self, order: &[usize], name: impl Fn(usize) -> &'n str) -> usize {
        let selected = self.selected.as_deref();
        let found = selected.and_then(|it| order.iter().position(|row| name(*row) == it));
        found.unwrap_or(self.place.min(order.len().saturating_sub(1)))
    }

    /// Moves the selection.
    pub(super) fn go<'n>(
        &mut self,
        to: Move,
        order: &[usize],
        name: impl Fn(usize) -> &'n str,
        height: usize,
    ) {
        let last = order.len().saturating_sub(1);
        let now = self.place(order, &name);
        let place = match to {
            Move::By(rows) => now.saturating_add_signed(rows).min(last),
            Move::Pages(pages) => {
                let screen = isize::try_from(height.max(1)).unwrap_or(isize::MAX);
                let rows = pages.saturating_mul(screen);
                now.saturating_add_signed(rows).min(last)
            }
            Move::First => 0,
            Move::Last => last,
        };
        self.place = place;
        self.selected = order.get(place).map(|row| name(*row).to_owned());
    }

    /// The place of the first row on a screen of `height` rows that shows the selected one.
    pub(super) fn scrolled(&mut self, place: usize, rows: usize, height: usize) -> usize {
        let highest = place.saturating_sub(height.saturating_sub(1));
        self.place = place;
        self.first = self
            .first
            .clamp(highest, place)
            .min(rows.saturating_sub(height));
        self.first
    }
}

fn compare(a: Value<'_>, b: Value<'_>) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => b.total_cmp(&a),
        (Value::Text(a), Value::Text(b)) => natural(a, b),
        (Value::Number(_), Value::Text(_)) => Ordering::Less,
        (Value::Text(_), Value::Number(_)) => Ordering::Greater,
    }
}

/// Compares texts by their parts; of digits, by the number that they make.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let parts = (part(a), part(b));
        if a.is_empty() || b.is_empty() {
            return a.len().cmp(&b.len());
        }
        let ordering = match (number(parts.0), number(parts.1)) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => parts.0.cmp(parts.1),
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
        (a, b) = (&a[parts.0.len()..], &b[parts.1.len()..]);
    }
}

/// The digits, or the other characters, that a text begins with.
fn part(text: &str) -> &str {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digits);
    &text[..end.unwrap_or(text.len())]
}

fn number(part: &str) -> Option<u64> {
    part.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROWS: [(&str, f64); 4] = [
        ("leaf10", 5.0),
        ("leaf2", 7.0),
        ("spine1", 0.0),
        ("leaf1", 7.0),
    ];

    fn names(list: &List) -> Vec<&'static str> {
        order(list).into_iter().map(name).collect()
    }

    fn name(row: usize) -> &'static str {
        ROWS[row].0
    }

    fn order(list: &List) -> Vec<usize> {
        list.order(
            ROWS.len(),
            |row, filter| name(row).contains(filter),
            |row, column| match column {
                0 => Value::Text(name(row)),
                _ => Value::Number(ROWS[row].1),
            },
        )
    }

    #[test]
    fn rows_are_sorted_and_filtered() {
        let mut list = List::default();
        assert_eq!(names(&list), ["leaf10", "leaf2", "spine1", "leaf1"]);
        list.sort_by_next(2);
        assert_eq!(names(&list), ["leaf1", "leaf2", "leaf10", "spine1"]);
        list.reversed = true;
        assert_eq!(names(&list), ["spine1", "leaf10", "leaf2", "leaf1"]);
        list.sort_by_next(2);
        assert_eq!(names(&list), ["leaf2", "leaf1", "leaf10", "spine1"]);
        list.filter = "LEAF1".into();
        assert_eq!(names(&list), ["leaf1", "leaf10"]);
        list.sort_by_next(2);
        assert_eq!(list.sort, None, "in the fabric's order again");
    }

    #[test]
    fn the_selected_row_stays_selected_wherever_it_moves() {
        let mut list = List::default();
        list.go(Move::By(1), &order(&list), name, 10);
        let selected = |list: &List| order(list)[list.place(&order(list), name)];
        assert_eq!(name(selected(&list)), "leaf2");
        list.sort_by_next(2);
        assert_eq!(name(selected(&list)), "leaf2");
        list.filter = "leaf1".into();
        assert_eq!(name(selected(&list)), "leaf10", "it took the place");
        list.filter = "nothing".into();
        assert_eq!(list.place(&order(&list), name), 0);
        list.go(Move::Last, &order(&list), name, 10);
        list.filter.clear();
        list.go(Move::Last, &order(&list), name, 10);
        assert_eq!(name(selected(&list)), "spine1");
    }

    #[test]
    fn the_screen_follows_the_selection_and_is_never_half_empty() {
        let mut list = List::default();
        assert_eq!(list.scrolled(0, 100, 10), 0);
        assert_eq!(list.scrolled(9, 100, 10), 0);
        assert_eq!(list.scrolled(10, 100, 10), 1);
        assert_eq!(list.scrolled(99, 100, 10), 90);
        assert_eq!(list.scrolled(95, 100, 10), 90);
        assert_eq!(list.scrolled(4, 5, 10), 0, "a filter has left five");
    }

    proptest! {
        #[test]
        fn the_order_of_texts_is_an_order(a in "[a01]{0,5}", b in "[a01]{0,5}") {
            prop_assert_eq!(natural(&a, &b), natural(&b, &a).reverse());
        }

        #[test]
        fn the_selected_row_is_on_the_screen(place in 0_usize..50, first in 0_usize..50, height in 1_usize..20) {
            let mut list = List { first, ..List::default() };
            let first = list.scrolled(place, 50, height);
            prop_assert!(first <= place && place < first + height);
        }
    }
}
