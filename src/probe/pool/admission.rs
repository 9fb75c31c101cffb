//! Who may have a worker: a cap in total, a cap per owner, and a reserve that known-dead targets cannot take.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// Whether a job is likely to block its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The target answered last time, or was never asked.
    Hopeful,
    /// The target was dead last time: it may not take the last places.
    Suspect,
}

/// One place of this many is kept free of suspects.
const RESERVE: usize = 8;

#[derive(Debug)]
pub(super) struct Admission {
    max: usize,
    per_owner: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    owners: HashMap<String, usize>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    owner: String,
    class: Class,
    turn: oneshot::Sender<Permit>,
}

/// A place; dropping it gives it to the next in the queue.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    owner: String,
}

impl Admission {
    pub(super) fn new(max: usize, per_owner: usize) -> Admission {
        Admission { max, per_owner, state: Mutex::default() }
    }

    /// A place within `patience`, or `None`. First come, first served among those that may have one.
    pub(super) async fn acquire(self: &Arc<Self>, owner: &str, class: Class, patience: Duration) -> Option<Permit> {
        let turn = {
            let mut state = self.state();
            if self.admits(&state, owner, class) {
                return Some(self.admit(&mut state, owner));
            }
            state.waiting.retain(|waiting| !waiting.turn.is_closed());
            let (sender, turn) = oneshot::channel();
            state.waiting.push_back(Waiting { owner: owner.to_owned(), class, turn: sender });
            turn
        };
        timeout(patience, turn).await.ok()?.ok()
    }

    fn admits(&self, state: &State, owner: &str, class: Class) -> bool {
        let max = match class {
            Class::Hopeful => self.max,
            Class::Suspect => self.max - self.max / RESERVE,
        };
        state.taken < max && state.owners.get(owner).copied().unwrap_or(0) < self.per_owner
    }

    fn admit(self: &Arc<Self>, state: &mut State, owner: &str) -> Permit {
        state.taken += 1;
        *state.owners.entry(owner.to_owned()).or_default() += 1;
        Permit { admission: Arc::clone(self), owner: owner.to_owned() }
    }

    /// Takes one place back and hands it on. Permits that nobody waits for any more are kept aside and dropped after
    /// the lock is released: dropping one comes back here.
    fn release(self: &Arc<Self>, owner: &str) {
        let mut unwanted = Vec::new();
        {
            let mut state = self.state();
            state.taken = state.taken.saturating_sub(1);
            if let Some(count) = state.owners.get_mut(owner) {
                *count -= 1;
                if *count == 0 {
                    state.owners.remove(owner);
                }
            }
            state.waiting.retain(|waiting| !waiting.turn.is_closed());
            let next = state.waiting.iter().position(|waiting| self.admits(&state, &waiting.owner, waiting.class));
            if let Some(waiting) = next.and_then(|index| state.waiting.remove(index)) {
                let permit = self.admit(&mut state, &waiting.owner);
                unwanted.extend(waiting.turn.send(permit).err());
            }
        }
        drop(unwanted);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.release(&self.owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(10);

    async fn take(admission: &Arc<Admission>, owner: &str, class: Class) -> Option<Permit> {
        admission.acquire(owner, class, SHORT).await
    }

    #[tokio::test(start_paused = true)]
    async fn one_owner_cannot_take_all_places() {
        let admission = Arc::new(Admission::new(16, 4));
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(take(&admission, "tenant", Class::Hopeful).await.unwrap());
        }
        assert!(take(&admission, "tenant", Class::Hopeful).await.is_none());
        assert!(take(&admission, "other", Class::Hopeful).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn suspects_leave_places_for_the_others() {
        let admission = Arc::new(Admission::new(16, 16));
        let mut held = Vec::new();
        for index in 0..14 {
            held.push(take(&admission, &index.to_string(), Class::Suspect).await.unwrap());
        }
        assert!(take(&admission, "one more", Class::Suspect).await.is_none());
        assert!(take(&admission, "healthy", Class::Hopeful).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_becomes_free_goes_to_the_first_who_may_have_it() {
        let admission = Arc::new(Admission::new(1, 1));
        let held = take(&admission, "a", Class::Hopeful).await.unwrap();
        let waiting = {
            let admission = Arc::clone(&admission);
            tokio::spawn(async move { admission.acquire("b", Class::Hopeful, Duration::from_secs(60)).await })
        };
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiting.await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gave_up_waiting_leaks_no_place() {
        let admission = Arc::new(Admission::new(1, 1));
        let held = take(&admission, "a", Class::Hopeful).await.unwrap();
        assert!(take(&admission, "b", Class::Hopeful).await.is_none());
        drop(held);
        assert!(take(&admission, "c", Class::Hopeful).await.is_some());
        assert_eq!(admission.state().taken, 0);
    }
}
