//! Long lists, a page at a time, in the order of their names.

use serde::Deserialize;

/// Most rows of one page.
const ROWS_MAX: usize = 100;

/// The query of a long list: behind which record its page begins.
#[derive(Deserialize)]
pub(super) struct After<I> {
    pub(super) after: Option<I>,
}

/// A page of a list.
pub(super) struct Rows<I, T> {
    pub(super) rows: Vec<(I, T)>,
    /// Behind which record the next page begins, where there is one.
    pub(super) next: Option<I>,
}

impl<I: Copy + Ord, T> Rows<I, T> {
    /// Takes the page behind the record `after` out of `all`, each with its name; the first page
    /// where that record is gone.
    pub(super) fn cut(mut all: Vec<(String, I, T)>, after: Option<I>) -> Rows<I, T> {
        all.sort_by_cached_key(|(name, id, _)| (name.to_lowercase(), *id));
        let place = after.and_then(|after| all.iter().position(|(_, id, _)| *id == after));
        let begin = place.map_or(0, |place| place + 1);
        let is_last = all.len() <= begin + ROWS_MAX;
        let page = all.into_iter().skip(begin).take(ROWS_MAX);
        let rows: Vec<(I, T)> = page.map(|(_, id, row)| (id, row)).collect();
        let next = if is_last { None } else { rows.last().map(|(id, _)| *id) };
        Rows { rows, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_joined_are_the_list_by_name() {
        let all: Vec<(String, u32, ())> = (0..250)
            .map(|id| (format!("{}{:03}", ["b", "A"][id as usize % 2], id), id, ()))
            .collect();
        let mut by_name: Vec<u32> = (1..250).step_by(2).collect();
        by_name.extend((0..250).step_by(2));

        let (mut joined, mut after) = (Vec::new(), None);
        loop {
            let page = Rows::cut(all.clone(), after);
            joined.extend(page.rows.iter().map(|(id, ())| *id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }

        assert_eq!(joined, by_name);
        assert_eq!(Rows::cut(all.clone(), Some(999)).rows[0].0, 1, "one that is gone");
        assert!(Rows::cut(all, Some(248)).rows.is_empty());
    }
}
