//! Threads for launches.
//!
//! A launch blocks, so it has a thread of its own. To make one takes longer than some steps of a launch; so one that has
//! nothing to do any more waits for the next launch, unless another does so already.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

/// What a thread is to do.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The thread that waits, if there is one.
#[derive(Clone, Default)]
pub(super) struct Threads {
    idle: Arc<Mutex<Option<mpsc::Sender<Job>>>>,
}

impl Threads {
    /// Does it on a thread of its own.
    pub(super) fn run(&self, job: Job) -> io::Result<()> {
        let idle = self.idle().take();
        let job = match idle {
            Some(thread) => match thread.send(job) {
                Ok(()) => return Ok(()),
                Err(mpsc::SendError(job)) => job,
            },
            None => job,
        };
        let threads = self.clone();
        std::thread::Builder::new().name("launch".into()).spawn(move || threads.work(job)).map(drop)
    }

    fn work(&self, first: Job) {
        first();
        while let Some(job) = self.wait() {
            job();
        }
    }

    /// The next job; none, if another thread waits for it.
    fn wait(&self) -> Option<Job> {
        let (sender, jobs) = mpsc::channel();
        {
            let mut idle = self.idle();
            if idle.is_some() {
                return None;
            }
            *idle = Some(sender);
        }
        jobs.recv().ok()
    }

    fn idle(&self) -> MutexGuard<'_, Option<mpsc::Sender<Job>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread::{self, ThreadId};
    use std::time::Duration;

    use super::*;

    /// Has two jobs done at the same time and tells which threads did them.
    fn two(threads: &Threads) -> [ThreadId; 2] {
        let (sender, told) = mpsc::channel();
        let meeting = Arc::new(std::sync::Barrier::new(2));
        for _ in 0..2 {
            let (sender, meeting) = (sender.clone(), meeting.clone());
            let job = move || {
                meeting.wait();
                sender.send(thread::current().id()).unwrap();
            };
            threads.run(Box::new(job)).unwrap();
        }
        [told.recv().unwrap(), told.recv().unwrap()]
    }

    #[test]
    fn one_thread_waits_for_more_and_no_more_than_one() {
        let threads = Threads::default();
        let before = two(&threads);
        assert_ne!(before[0], before[1]);
        while threads.idle().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        let after = two(&threads);
        assert_eq!(after.iter().filter(|id| before.contains(id)).count(), 1);
    }
}
