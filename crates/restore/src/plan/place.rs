//! What tasks are called in pid namespaces below the root's.

use gelid_image::messages::{GelidPlaceEntry, PstreeEntry};

use super::tree::{Node, PID_MAX};
use super::{Plan, PlanError};

/// Levels of pid namespaces that a kernel allows (`MAX_PID_NS_LEVEL`).
const DEEPEST: usize = 32;

/// The place of a task in them. All lists begin with the namespace below the root's, and are equally long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The number of its pid namespace in images.
    pub(crate) pid_ns: u32,
    /// Numbers of its threads, the leader's first.
    threads: Vec<Vec<i32>>,
    /// Those of its group; 0 where nobody sees it.
    pub(crate) pgid: Vec<i32>,
    /// Those of its session.
    pub(crate) sid: Vec<i32>,
}

impl Place {
    /// Reads that of a task with so many threads.
    pub(super) fn read(
        pid: i32,
        entry: &GelidPlaceEntry,
        threads: usize,
    ) -> Result<Self, PlanError> {
        let wrong = |what| PlanError::Tree { pid, what };
        let numbers = |ids: &[u32], least: u32| -> Result<Vec<i32>, PlanError> {
            let number = |id: &u32| {
                let fits = (least..=PID_MAX).contains(id);
                let odd = wrong("has an id below that no task can have");
                fits.then(|| id.cast_signed()).ok_or(odd)
            };
            ids.iter().map(number).collect()
        };
        let levels = entry.pgid.len();
        let even = (1..=DEEPEST).contains(&levels)
            && entry.sid.len() == levels
            && entry.threads.len() == threads
            && entry.threads.iter().all(|ids| ids.number.len() == levels);
        if !even {
            return Err(wrong("has more or less ids than pid namespaces"));
        }
        let threads = entry.threads.iter().map(|ids| numbers(&ids.number, 1));
        Ok(Self {
            pid_ns: entry.pid_ns,
            threads: threads.collect::<Result<_, _>>()?,
            pgid: numbers(&entry.pgid, 0)?,
            sid: numbers(&entry.sid, 0)?,
        })
    }

    /// How many namespaces there are from the root's on.
    pub(crate) fn levels(&self) -> usize {
        self.pgid.len()
    }

    /// True for the first process of a namespace.
    pub(crate) fn is_init(&self) -> bool {
        self.own(0) == Some(1)
    }

    fn own(&self, thread: usize) -> Option<i32> {
        self.threads.get(thread)?.last().copied()
    }
}

impl Node {
    /// The place of the task of an entry.
    pub(super) fn place_of(
        pid: i32,
        entry: &PstreeEntry,
        threads: usize,
    ) -> Result<Option<Place>, PlanError> {
        let place = entry.place.as_ref();
        place
            .map(|place| Place::read(pid, place, threads))
            .transpose()
    }

    /// How a thread calls itself.
    pub(crate) fn own(&self, thread: usize) -> i32 {
        let place = self.place.as_ref();
        let own = place.and_then(|place| place.own(thread));
        own.or(self.threads.get(thread).copied())
            .unwrap_or(self.pid)
    }

    /// All its numbers from the innermost namespace on, as `clone3(2)` wants them.
    pub(crate) fn set_tid(&self, thread: usize) -> Vec<i32> {
        let place = self.place.as_ref();
        let below = place.and_then(|place| place.threads.get(thread));
        let below = below.into_iter().flatten().rev().copied();
        below.chain(self.threads.get(thread).copied()).collect()
    }

    /// How many pid namespaces it is below that of the root.
    pub(crate) fn level(&self) -> usize {
        self.place.as_ref().map_or(0, Place::levels)
    }

    /// Its pid namespace, if it is below the root's.
    pub(crate) fn pid_ns(&self) -> Option<u32> {
        self.place.as_ref().map(|place| place.pid_ns)
    }

    /// The first process of a pid namespace below that of the root.
    pub(crate) fn begins_numbers(&self) -> bool {
        self.place.as_ref().is_some_and(Place::is_init)
    }

    /// True if anybody calls it so.
    pub(crate) fn is_called(&self, number: u32) -> bool {
        let levels = 0..=self.level();
        levels
            .into_iter()
            .any(|level| self.seen_from(level).cast_unsigned() == number)
    }

    /// The first process of a certain pid namespace.
    pub(crate) fn begins(&self, pid_ns: u32) -> bool {
        self.begins_numbers() && self.pid_ns() == Some(pid_ns)
    }

    /// The number by which somebody so many namespaces below the root's knows it; 0 if not at all.
    pub(crate) fn seen_from(&self, level: usize) -> i32 {
        let place = self.place.as_ref();
        match (level, place) {
            (0, _) => self.pid,
            (level, Some(place)) => {
                let leader = place.threads.first();
                let seen = leader.and_then(|ids| ids.get(level - 1));
                seen.copied().unwrap_or_default()
            }
            _ => 0,
        }
    }

    /// The number of its group, as somebody so many namespaces below the root's knows it, who must be at or above its
    /// own; 0 if not at all.
    pub(crate) fn group_from(&self, level: usize) -> i32 {
        let place = self.place.as_ref();
        match (level, place) {
            (0, _) => self.pgid,
            (level, Some(place)) => place.pgid.get(level - 1).copied().unwrap_or_default(),
            _ => 0,
        }
    }
}

impl Plan {
    /// How those so many pid namespaces below the root's know a task; 0 if not at all.
    pub(crate) fn seen_from(&self, level: usize, number: i32) -> i32 {
        if level == 0 {
            return number;
        }
        let node = self.nodes.iter().find(|node| node.pid == number);
        node.map_or(0, |node| node.seen_from(level))
    }
}

/// Refuses places that contradict each other. `parent_of` tells the pid namespace above one, both below the root's;
/// `None` for a namespace that is not known.
pub(super) fn check(
    nodes: &[Node],
    above: impl Fn(u32) -> Option<Option<u32>>,
) -> Result<(), PlanError> {
    let has_init = |id| {
        let mut inits = nodes.iter().filter(|node| node.begins_numbers());
        inits.any(|node| node.pid_ns() == Some(id))
    };
    for node in nodes {
        let wrong = |what| PlanError::Tree {
            pid: node.pid,
            what,
        };
        let parent = node.parent.map(|parent| &nodes[parent]);
        let of_parent = parent.and_then(Node::pid_ns);
        if let Some(id) = node.pid_ns_for_children.filter(|id| *id != 0)
            && !has_init(id)
        {
            return Err(wrong("has children in a pid namespace that nobody is in"));
        }
        let Some(id) = node.pid_ns() else {
            if of_parent.is_some() {
                return Err(wrong("is a child of a task in a deeper pid namespace"));
            }
            continue;
        };
        let Some(parent) = parent else {
            return Err(wrong(
                "is the root, but in a pid namespace below the root's",
            ));
        };
        if Some(id) == of_parent {
            if node.level() != parent.level() || node.begins_numbers() {
                return Err(wrong("does not have the ids of its pid namespace"));
            }
            continue;
        }
        let fits = node.begins_numbers()
            && node.level() == parent.level() + 1
            && above(id) == Some(of_parent);
        if !fits {
            return Err(wrong(
                "is in a pid namespace that its parent could not have made for it",
            ));
        }
    }
    // Each is begun once.
    let mut begun = std::collections::HashSet::new();
    for node in nodes.iter().filter(|node| node.begins_numbers()) {
        if !begun.insert(node.pid_ns()) {
            return Err(PlanError::Tree {
                pid: node.pid,
                what: "is a second first process of its pid namespace",
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use gelid_image::messages::GelidNumbersEntry;

    use super::*;

    fn node(pid: i32, parent: Option<usize>, below: &[&[u32]]) -> Node {
        let place = (!below.is_empty()).then(|| entry(9, below));
        let place = place.map(|place| Place::read(pid, &place, below.len()).unwrap());
        Node {
            pid,
            parent,
            pgid: pid,
            sid: pid,
            threads: vec![pid],
            place,
            pid_ns_for_children: None,
        }
    }

    fn entry(pid_ns: u32, below: &[&[u32]]) -> GelidPlaceEntry {
        let leader = below[0].to_vec();
        GelidPlaceEntry {
            pid_ns,
            threads: below
                .iter()
                .map(|ids| GelidNumbersEntry {
                    number: ids.to_vec(),
                })
                .collect(),
            pgid: leader.clone(),
            sid: leader,
        }
    }

    #[test]
    fn numbers_at_all_levels_are_known() {
        let node = node(70, Some(0), &[&[8, 1]]);
        assert_eq!(node.set_tid(0), [1, 8, 70]);
        assert_eq!((node.own(0), node.level()), (1, 2));
        assert_eq!(
            [0, 1, 2, 3].map(|level| node.seen_from(level)),
            [70, 8, 1, 0]
        );
        assert!(node.begins(9) && node.is_called(8) && !node.is_called(9));
    }

    #[test]
    fn lists_that_are_not_even_are_refused() {
        let spoiled: [fn(&mut GelidPlaceEntry); 6] = [
            |entry| entry.threads.clear(),
            |entry| entry.threads[0].number.clear(),
            |entry| entry.threads[0].number[0] = 0,
            |entry| entry.threads[0].number[0] = u32::MAX,
            |entry| entry.sid.clear(),
            |entry| {
                entry.pgid = vec![1; 40];
                entry.sid = vec![1; 40];
                entry.threads[0].number = vec![1; 40];
            },
        ];
        for spoil in spoiled {
            let mut entry = entry(9, &[&[1]]);
            spoil(&mut entry);
            Place::read(5, &entry, 1).unwrap_err();
        }
    }

    #[test]
    fn every_namespace_begins_with_a_child_of_the_one_above() {
        let known = |id| (id == 9).then_some(None);
        let root = || node(5, None, &[]);
        let first = |pid| node(pid, Some(0), &[&[1]]);
        check(&[root(), first(6)], known).unwrap();
        check(&[root(), first(6), node(7, Some(1), &[&[2]])], known).unwrap();
        let wrong: [Vec<Node>; 6] = [
            vec![node(5, None, &[&[1]])],
            vec![root(), node(6, Some(0), &[&[2]])],
            vec![root(), first(6), first(7)],
            vec![root(), first(6), node(7, Some(1), &[])],
            vec![root(), node(6, Some(0), &[&[4, 1]])],
            vec![root(), first(6), node(7, Some(1), &[&[1]])],
        ];
        for nodes in wrong {
            check(&nodes, known).unwrap_err();
        }
        check(&[root(), first(6)], |_| None).unwrap_err();
        check(&[root(), first(6)], |_| Some(Some(3))).unwrap_err();
        let mut empty = root();
        empty.pid_ns_for_children = Some(3);
        check(&[empty], known).unwrap_err();
    }
}
