//! Ctrl-C and its relatives.
//!
//! The first signal only sets a flag; every loop that waits for a machine looks at it and unwinds, so that QEMU and its
//! files go away by the ordinary way out. The second one ends the process at once, for whoever is in a hurry: QEMU still
//! dies, because it asked the kernel for that when it was started.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Starts to listen; may be called again.
pub(crate) fn listen() -> Result<()> {
    if FLAG.get().is_some() {
        return Ok(());
    }
    let flag = Arc::clone(FLAG.get_or_init(Arc::default));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
            .context("cannot listen for signals")?;
    }
    Ok(())
}

/// True once somebody asked us to stop.
pub(crate) fn pending() -> bool {
    FLAG.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// An error once somebody asked us to stop.
pub(crate) fn check() -> Result<()> {
    if pending() {
        bail!("interrupted");
    }
    Ok(())
}
