//! Time, and waiting for something with a limit.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::time::{ClockId, clock_gettime};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Time since the machine was started.
pub(crate) fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// Looks until there is something to see. `what` finishes the sentence "waited in vain for …".
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = now() + limit;
    loop {
        if let Some(seen) = look()? {
            return Ok(seen);
        }
        if now() >= end {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        thread::sleep(LOOK);
    }
}

/// Processor time that this process has used.
pub(crate) fn processor() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}
