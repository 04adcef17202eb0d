//! In which order descriptors are brought to their places where what is inherited lies where something else belongs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A call that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// The file that is open at a number belongs to the place with this index.
    Place { from: i32, index: usize },
    /// What is at the place with this index belongs there.
    Stay { index: usize },
    /// The file makes room for another one, and waits.
    Aside { from: i32, to: i32 },
}

/// Where a task has files that it still needs.
#[derive(Debug, Clone)]
pub(super) struct Stock {
    at: BTreeMap<u32, i32>,
    taken: BTreeMap<i32, u32>,
    /// Numbers that are left alone.
    reserved: BTreeSet<i32>,
    /// None below is free.
    lowest: i32,
}

impl Stock {
    /// Takes files and their numbers, no two of which are the same.
    pub(super) fn new(
        files: impl IntoIterator<Item = (u32, i32)>,
        reserved: impl IntoIterator<Item = i32>,
    ) -> Self {
        let at: BTreeMap<u32, i32> = files.into_iter().collect();
        Self {
            taken: at.iter().map(|(id, number)| (*number, *id)).collect(),
            at,
            reserved: reserved.into_iter().collect(),
            lowest: 0,
        }
    }

    /// The number of a file.
    pub(super) fn at(&self, id: u32) -> Option<i32> {
        self.at.get(&id).copied()
    }

    /// The numbers that must stay as they are for now.
    pub(super) fn numbers(&self) -> BTreeSet<i32> {
        let files = self.taken.keys().copied();
        files.chain(self.reserved.iter().copied()).collect()
    }

    /// Makes room at a number for anything but the file that is `wanted`: how what is there goes aside.
    pub(super) fn make_room(&mut self, number: i32, wanted: Option<u32>) -> Option<(i32, i32)> {
        let id = *self.taken.get(&number)?;
        if wanted == Some(id) {
            return None;
        }
        let to = self.free(|to| to != number);
        self.go(id, to);
        Some((number, to))
    }

    /// Brings files to places, each of which is a number and the file that belongs there. Numbers beside the places must
    /// be free but for those of files, one at least.
    pub(super) fn arrange(mut self, places: &[(i32, u32)]) -> Vec<Move> {
        let wanted: BTreeMap<i32, usize> = (0..).zip(places).map(|(i, it)| (it.0, i)).collect();
        let needed: BTreeSet<u32> = places.iter().map(|(_, id)| *id).collect();
        self.taken.retain(|_, id| needed.contains(id));
        let is_free = |stock: &Self, index: usize| {
            let (number, id) = places[index];
            stock.taken.get(&number).is_none_or(|there| *there == id)
        };
        let mut moves = Vec::with_capacity(places.len());
        let mut settled = BTreeSet::new();
        let mut ready: VecDeque<usize> = (0..places.len())
            .filter(|index| is_free(&self, *index))
            .collect();
        let mut rest = 0..places.len();
        let mut done = vec![false; places.len()];
        // Whoever goes there is gone again when nobody is ready any more.
        let mut aside = None;
        loop {
            while let Some(index) = ready.pop_front() {
                let (number, id) = places[index];
                done[index] = true;
                let Some(from) = self.at(id) else { continue };
                if from == number {
                    moves.push(Move::Stay { index });
                    settled.insert(id);
                    continue;
                }
                moves.push(Move::Place { from, index });
                // What else is the same file is made from here, and its old number is free.
                if settled.insert(id) {
                    self.taken.remove(&from);
                    self.at.insert(id, number);
                    let next = wanted.get(&from).copied();
                    ready.extend(next.filter(|next| !done[*next] && is_free(&self, *next)));
                }
            }
            // Whatever is left goes round in circles, and nothing lies beside the places.
            let Some(index) = rest.find(|index| !done[*index]) else {
                return moves;
            };
            let number = places[index].0;
            let to = *aside.get_or_insert_with(|| self.free(|to| !wanted.contains_key(&to)));
            if let Some(id) = self.taken.get(&number).copied() {
                moves.push(Move::Aside { from: number, to });
                self.go(id, to);
            }
            ready.push_back(index);
        }
    }

    fn go(&mut self, id: u32, to: i32) {
        if let Some(from) = self.at.insert(id, to) {
            self.taken.remove(&from);
            self.lowest = self.lowest.min(from);
        }
        self.taken.insert(to, id);
    }

    /// The lowest number that is free, and good.
    pub(super) fn free(&mut self, is_good: impl Fn(i32) -> bool) -> i32 {
        while !self.is_free(self.lowest) {
            self.lowest += 1;
        }
        let mut free = (self.lowest..i32::MAX).filter(|number| self.is_free(*number));
        free.find(|number| is_good(*number)).unwrap_or_default()
    }

    fn is_free(&self, number: i32) -> bool {
        !self.taken.contains_key(&number) && !self.reserved.contains(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is where after all moves; nothing may be lost on the way, and no number may be `limit` or higher.
    fn play(files: &[(u32, i32)], places: &[(i32, u32)], reserved: &[i32], limit: i32) {
        let mut table: BTreeMap<i32, u32> = files.iter().map(|(id, at)| (*at, *id)).collect();
        let stock = Stock::new(files.iter().copied(), reserved.iter().copied());
        for step in stock.arrange(places) {
            match step {
                Move::Place { from, index } => {
                    let (number, id) = places[index];
                    assert_ne!(from, number);
                    assert_eq!(table.get(&from), Some(&id), "{step:?}");
                    table.insert(number, id);
                }
                Move::Stay { index } => {
                    let (number, id) = places[index];
                    assert_eq!(table.get(&number), Some(&id), "{step:?}");
                }
                Move::Aside { from, to } => {
                    assert!(
                        (0..limit).contains(&to) && !reserved.contains(&to),
                        "{step:?}"
                    );
                    let id = table[&from];
                    table.insert(to, id);
                }
            }
        }
        for (number, id) in places {
            assert_eq!(table.get(number), Some(id), "at {number}");
        }
    }

    #[test]
    fn what_is_apart_is_placed_in_order() {
        let stock = Stock::new([(7, 100), (8, 101)], []);
        let moves = stock.arrange(&[(0, 7), (1, 7), (5, 8)]);
        let froms: Vec<_> = moves
            .iter()
            .map(|it| match it {
                Move::Place { from, index } => (*from, *index),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(froms, [(100, 0), (0, 1), (101, 2)]);
    }

    #[test]
    fn circles_are_broken() {
        play(
            &[(1, 0), (2, 1), (3, 2)],
            &[(0, 2), (1, 3), (2, 1)],
            &[3],
            5,
        );
        play(&[(1, 0), (2, 1)], &[(0, 2), (1, 1)], &[], 3);
        play(
            &[(1, 0), (2, 1), (3, 4)],
            &[(0, 2), (1, 1), (4, 3), (2, 3)],
            &[],
            6,
        );
    }

    #[test]
    fn room_is_made_for_others() {
        let mut stock = Stock::new([(1, 0), (2, 1)], [2]);
        assert_eq!(stock.make_room(1, Some(2)), None);
        assert_eq!(stock.make_room(5, None), None);
        assert_eq!(stock.make_room(1, Some(1)), Some((1, 3)));
        assert_eq!(stock.at(2), Some(3));
        assert_eq!(stock.numbers().into_iter().collect::<Vec<_>>(), [0, 2, 3]);
    }

    /// Files and their numbers, and places as numbers and files.
    type Tables = (Vec<(u32, i32)>, Vec<(i32, u32)>);

    /// Files at any numbers, and places for them of which one number below the limit is none.
    fn tables() -> impl Strategy<Value = Tables> {
        let numbers = Just((0..12).collect::<Vec<i32>>()).prop_shuffle();
        (
            numbers.clone(),
            numbers,
            1..11_usize,
            proptest::collection::vec(any::<u32>(), 11),
        )
            .prop_map(|(from, to, count, ids)| {
                let kinds = 1 + ids[0] as usize % count;
                let files = (0..).zip(from).take(kinds).collect();
                let ids = ids.iter().map(|id| id % kinds as u32);
                (files, to.into_iter().take(count).zip(ids).collect())
            })
    }

    proptest! {
        #[test]
        fn nothing_is_lost((files, places) in tables()) {
            play(&files, &places, &[], 12);
        }
    }
}
