//! How many connections may there be, and whose?
//!
//! Connections are accepted at once, always: a full house turns people away instead of leaving them in a queue, where
//! nobody knows how long they have been. Nobody can fill it for others: an agent has a few places, a user some, and the
//! last ones are root's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use agentd_model::AgentNumber;

/// Places in all, and those that only root may take.
const ALL: usize = 1024;
const FOR_ROOT: usize = 64;
/// Places of one user and of one agent.
const OF_A_USER: usize = 256;
const OF_AN_AGENT: usize = 16;

/// On whose account a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Account {
    /// The superuser, outside every agent.
    Root,
    /// Another user, outside every agent.
    User(u32),
    /// An agent, whatever its user.
    Agent(AgentNumber),
}

/// All places.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: Mutex<HashMap<Account, usize>>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    account: Account,
}

impl Seats {
    /// Takes a place; `None`: there is none for that account.
    pub(super) fn take(self: &Arc<Seats>, account: Account) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(&account).copied().unwrap_or(0);
        let room = match account {
            Account::Root => all < ALL,
            Account::User(_) => all < ALL - FOR_ROOT && own < OF_A_USER,
            Account::Agent(_) => all < ALL - FOR_ROOT && own < OF_AN_AGENT,
        };
        room.then(|| {
            taken.insert(account, own + 1);
            Seat { seats: self.clone(), account }
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.account) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_places_of_others() {
        let seats = Arc::new(Seats::default());
        let take = |account, wanted: usize| (0..wanted).map_while(|_| seats.take(account)).collect::<Vec<_>>();
        let agent = take(Account::Agent(AgentNumber(1)), 2000);
        assert_eq!(agent.len(), OF_AN_AGENT);
        let users: Vec<_> = (1..10).map(|uid| take(Account::User(uid), 2000)).collect();
        assert_eq!(users[0].len(), OF_A_USER);
        assert_eq!(agent.len() + users.iter().map(Vec::len).sum::<usize>(), ALL - FOR_ROOT);
        assert_eq!(take(Account::Root, 2000).len(), FOR_ROOT);
        drop(agent);
        assert_eq!(take(Account::Agent(AgentNumber(2)), 2000).len(), OF_AN_AGENT);
    }
}
