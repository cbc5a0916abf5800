//! Who may have one of the pool's places now.
//!
//! The pool refuses a place when all are taken. Whether it would is a matter of luck, so nobody asks it before a place is
//! known to be free: a step waits here instead. It cannot wait forever, since every step before it ends with its fuel, and
//! no step waits for another.

use std::sync::{Condvar, Mutex, PoisonError};

/// Places, counted.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Mutex<u32>,
    given_back: Condvar,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a>(&'a Slots);

impl Slots {
    pub(crate) fn new(count: u32) -> Self {
        Self { free: Mutex::new(count), given_back: Condvar::new() }
    }

    /// Waits for a place.
    pub(crate) fn take(&self) -> Slot<'_> {
        // The number is whole at every moment, so a panic of somebody who held the lock does not matter.
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.given_back.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn there_are_never_more_than_there_are() {
        let (slots, inside) = (Slots::new(3), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _slot = slots.take();
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(*slots.free.lock().unwrap(), 3);
    }
}
