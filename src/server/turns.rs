//! Few places that many may want, such as those to probe an upload. They are handed out in turns, so that who wants many
//! doesn't keep the others waiting. Called by `audio` and `copies`.

use super::{address::ClientAddress, counts::Counts, owner::Owner};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// An owner with history.
    Known(Owner),
    /// All newcomers at an address, because a new cookie costs nothing.
    Newcomers(ClientAddress),
}

/// The places, and who has one or waits for one.
#[derive(Debug)]
pub struct Turns {
    places: usize,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    /// By number, in the order in which they came.
    comers: BTreeMap<u64, Comer>,
    next: u64,
    /// When each of the callers above was served last. This isn't a time, but counts up.
    served: HashMap<Caller, u64>,
    turn: u64,
}

#[derive(Debug)]
struct Comer {
    caller: Caller,
    /// Told that there is a place; none once it was.
    waits: Option<oneshot::Sender<()>>,
}

/// A place in the line, and then one of the places; given back when dropped.
#[derive(Debug)]
pub struct Place {
    turns: Arc<Turns>,
    number: u64,
}

impl Turns {
    /// So many places, all of them free.
    #[must_use]
    pub fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { places, line: Mutex::default() })
    }

    /// Waits for a place. The next one goes to the caller that has the fewest, and of those to the one that was served the
    /// longest ago. The newcomers at one address never have all the places, if there are several.
    pub async fn take(turns: &Arc<Self>, caller: Caller) -> Place {
        // Whoever drops this future drops the place, and so leaves the line.
        let (place, told) = Self::stand(turns, caller);
        // The sender is dropped only after it has told.
        let _ = told.await;
        place
    }

    fn stand(turns: &Arc<Self>, caller: Caller) -> (Place, oneshot::Receiver<()>) {
        let (tell, told) = oneshot::channel();
        let mut line = turns.lock();
        let number = line.next;
        line.next += 1;
        line.comers.insert(number, Comer { caller, waits: Some(tell) });
        line.hand_out(turns.places);
        drop(line);
        (Place { turns: Arc::clone(turns), number }, told)
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn hand_out(&mut self, places: usize) {
        let (mut held, mut taken) = (Counts::default(), 0);
        for comer in self.comers.values().filter(|comer| comer.waits.is_none()) {
            held.add(comer.caller.clone());
            taken += 1;
        }
        while taken < places {
            let mut waiting: Vec<_> = self.comers.iter().filter(|(_, comer)| comer.waits.is_some()).collect();
            waiting.retain(|(_, comer)| (held.get(&comer.caller) as usize) < share(&comer.caller, places));
            let first = waiting.into_iter().min_by_key(|(number, comer)| {
                (held.get(&comer.caller), self.served.get(&comer.caller).copied().unwrap_or(0), **number)
            });
            let Some((&number, _)) = first else { return };
            let Some(comer) = self.comers.get_mut(&number) else { return };
            if let Some(waits) = comer.waits.take() {
                // Who doesn't wait any more is about to drop the place.
                let _ = waits.send(());
            }
            self.turn += 1;
            self.served.insert(comer.caller.clone(), self.turn);
            held.add(comer.caller.clone());
            taken += 1;
        }
    }
}

/// How many places a caller may have at once.
fn share(caller: &Caller, places: usize) -> usize {
    match caller {
        Caller::Known(_) => places,
        Caller::Newcomers(_) => places.saturating_sub(1).max(1),
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut line = self.turns.lock();
        let Some(gone) = line.comers.remove(&self.number) else { return };
        line.hand_out(self.turns.places);
        // Afterwards, because the others go first now. Nothing is kept of a caller that neither has a place nor waits.
        if !line.comers.values().any(|comer| comer.caller == gone.caller) {
            line.served.remove(&gone.caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Caller {
        Caller::Newcomers(ClientAddress::of(address.parse().unwrap()))
    }

    /// Somebody in the line.
    struct Standing(Place);

    impl Standing {
        fn new(turns: &Arc<Turns>, caller: &Caller) -> Self {
            Self(Turns::stand(turns, caller.clone()).0)
        }

        fn has_place(&self) -> bool {
            self.0.turns.lock().comers[&self.0.number].waits.is_none()
        }
    }

    fn served(line: &[Standing]) -> Vec<bool> {
        line.iter().map(Standing::has_place).collect()
    }

    #[test]
    fn newcomers_at_one_address_leave_a_place_to_others() {
        let turns = Turns::new(3);
        let stranger = at("2001:db8::1");
        let line: Vec<_> = (0..5).map(|_| Standing::new(&turns, &stranger)).collect();
        assert_eq!(served(&line), [true, true, false, false, false]);
        // The same network, and another.
        assert!(!Standing::new(&turns, &at("2001:db8::2")).has_place());
        let other = Standing::new(&turns, &at("192.0.2.1"));
        assert!(other.has_place());
        assert!(!Standing::new(&turns, &Caller::Known(Owner::fresh())).has_place(), "there is none left");
        drop((line, other));
        // An owner with history may have all of them, and one place is anybody's.
        let known = Caller::Known(Owner::fresh());
        let line: Vec<_> = (0..4).map(|_| Standing::new(&turns, &known)).collect();
        assert_eq!(served(&line), [true, true, true, false]);
        assert!(Standing::new(&Turns::new(1), &stranger).has_place());
    }

    #[test]
    fn a_place_that_comes_free_goes_to_whoever_had_none() {
        let turns = Turns::new(1);
        let (stranger, other) = (at("192.0.2.1"), at("192.0.2.2"));
        let first = Standing::new(&turns, &stranger);
        let line: Vec<_> = (0..40).map(|_| Standing::new(&turns, &stranger)).collect();
        let late = [Standing::new(&turns, &other), Standing::new(&turns, &other)];
        drop(first);
        assert_eq!(served(&late), [true, false], "before the forty that came earlier");
        let [one, two] = late;
        drop(one);
        assert_eq!((served(&line[..2]), two.has_place()), (vec![true, false], false), "in turns");
        drop(line);
        assert!(two.has_place());
        drop(two);
        let line = turns.lock();
        assert!(line.comers.is_empty() && line.served.is_empty(), "{line:?}");
    }

    #[test]
    fn who_comes_back_at_once_is_behind_those_who_wait() {
        let turns = Turns::new(2);
        let (stranger, second) = (at("192.0.2.1"), at("192.0.2.2"));
        let (a, b) = (Standing::new(&turns, &stranger), Standing::new(&turns, &second));
        let waits = Standing::new(&turns, &at("192.0.2.3"));
        let again = Standing::new(&turns, &second);
        drop(b);
        assert!(waits.has_place() && !again.has_place());
        drop(a);
        assert!(again.has_place());
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_line() {
        let turns = Turns::new(1);
        let held = Turns::take(&turns, at("192.0.2.1")).await;
        let waiting = Turns::take(&turns, at("192.0.2.2"));
        assert!(tokio::time::timeout(std::time::Duration::ZERO, waiting).await.is_err());
        assert_eq!(turns.lock().comers.len(), 1);
        drop(held);
        Turns::take(&turns, at("192.0.2.3")).await;
        assert!(turns.lock().comers.is_empty());
    }
}
