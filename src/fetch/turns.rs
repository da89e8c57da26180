//! Turns: how many files are brought at once, and whose file goes next.
//!
//! Knows adds by number. Does not know files.
//! Invariant: no more than `most` turns are out, and while there is room an add without one gets one at once,
//! however many others have taken: an add of something small never waits for the hours of something huge.
//!
//! A turn is not taken back, and one for a huge file may last for hours. So a plain row would be unfair: it
//! would let three files of one user keep out everybody else.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::Error;
use super::landing::lock;

/// Names an add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AddId(pub(super) u64);

/// The turns for one kind of file.
pub(super) struct Turns {
    /// How many there are, unless adds without one are waiting.
    usual: usize,
    /// How many there are at the very most.
    most: usize,
    row: Mutex<Row>,
}

#[derive(Default)]
struct Row {
    out: usize,
    of_add: HashMap<AddId, usize>,
    waiting: VecDeque<(AddId, oneshot::Sender<Turn>)>,
}

/// The right to bring one file; ends when it is dropped.
pub(super) struct Turn {
    turns: Arc<Turns>,
    add: AddId,
}

impl Turns {
    pub(super) fn new(usual: usize, most: usize) -> Arc<Self> {
        Arc::new(Self { usual, most, row: Mutex::default() })
    }

    /// Waits for a turn. Cancel safe: whoever stops waiting has none.
    pub(super) async fn take(self: &Arc<Self>, add: AddId) -> Result<Turn, Error> {
        let (sender, turn) = oneshot::channel();
        lock(&self.row).waiting.push_back((add, sender));
        self.deal();
        turn.await.map_err(|_| Error::Interrupted)
    }

    /// Gives out the turns that there are.
    fn deal(self: &Arc<Self>) {
        loop {
            let Some((add, sender)) = lock(&self.row).next(self.usual, self.most) else { return };
            // Whoever stopped waiting meanwhile drops it, and so gives it back.
            let _ = sender.send(Turn { turns: Arc::clone(self), add });
        }
    }
}

impl Row {
    /// Takes whoever has the next turn out of the row: of the add that has the fewest, the first.
    fn next(&mut self, usual: usize, most: usize) -> Option<(AddId, oneshot::Sender<Turn>)> {
        self.waiting.retain(|(_, sender)| !sender.is_closed());
        let has = |add: &AddId| self.of_add.get(add).copied().unwrap_or(0);
        let fewest = self.waiting.iter().enumerate().min_by_key(|(_, (add, _))| has(add));
        let (place, add) = fewest.map(|(place, (add, _))| (place, *add))?;
        let limit = if has(&add) == 0 { most } else { usual };
        if self.out >= limit {
            return None;
        }
        self.out += 1;
        *self.of_add.entry(add).or_default() += 1;
        self.waiting.remove(place)
    }

    fn back(&mut self, add: AddId) {
        self.out = self.out.saturating_sub(1);
        match self.of_add.get_mut(&add) {
            Some(left) if *left > 1 => *left -= 1,
            _ => {
                self.of_add.remove(&add);
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.turns.row).back(self.add);
        self.turns.deal();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use proptest::prelude::*;

    fn now(turns: &Arc<Turns>, add: u64) -> Option<Turn> {
        turns.take(AddId(add)).now_or_never().map(Result::unwrap)
    }

    #[test]
    fn an_add_without_a_turn_gets_one_though_another_has_taken_the_usual_ones() {
        let turns = Turns::new(3, 8);
        let huge: Vec<Turn> = (0..3).map(|_| now(&turns, 1).unwrap()).collect();
        assert!(now(&turns, 1).is_none());
        let other = now(&turns, 2).unwrap();
        assert!(now(&turns, 2).is_none(), "a second one is not due while the usual ones are out");
        assert!(now(&turns, 3).is_some());
        drop((huge, other));
        assert_eq!(lock(&turns.row).out, 0);
    }

    #[tokio::test]
    async fn a_turn_that_comes_back_goes_to_the_add_with_the_fewest() {
        let turns = Turns::new(2, 2);
        let (first, _second) = (now(&turns, 1).unwrap(), now(&turns, 1).unwrap());
        let mut same = Box::pin(turns.take(AddId(1)));
        assert!((&mut same).now_or_never().is_none());
        let mut other = Box::pin(turns.take(AddId(2)));
        assert!((&mut other).now_or_never().is_none());
        drop(first);
        let _other = other.await.unwrap();
        assert!((&mut same).now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_turn_is_not_lost_with_whoever_stops_waiting_for_it() {
        let turns = Turns::new(1, 1);
        let first = now(&turns, 1).unwrap();
        let mut gone = Box::pin(turns.take(AddId(2)));
        assert!((&mut gone).now_or_never().is_none());
        drop(first);
        // The turn is in its hands by now, and it never looks.
        drop(gone);
        assert!(now(&turns, 3).is_some());
    }

    proptest! {
        #[test]
        fn turns_stay_within_their_bounds_and_nobody_waits_for_nothing(
            steps in proptest::collection::vec((0u64..5, any::<bool>()), 1..200)
        ) {
            let turns = Turns::new(3, 6);
            let mut out: Vec<Turn> = Vec::new();
            for (add, takes) in steps {
                if !takes {
                    if !out.is_empty() {
                        out.remove(add as usize % out.len());
                    }
                    continue;
                }
                let has = out.iter().filter(|turn| turn.add == AddId(add)).count();
                let (total, turn) = (out.len(), now(&turns, add));
                prop_assert_eq!(turn.is_some(), total < if has == 0 { 6 } else { 3 });
                out.extend(turn);
                prop_assert!(out.len() <= 6);
                prop_assert_eq!(lock(&turns.row).out, out.len());
            }
        }
    }
}
