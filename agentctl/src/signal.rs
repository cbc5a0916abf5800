//! Signals: their names, and those that reach us while we stand between a person and an agent.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The number of a signal written as `TERM`, `SIGTERM`, `term` or `15`.
pub(crate) fn parse(text: &str) -> Result<u8, String> {
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let number = match text.parse::<u8>() {
        Ok(number) => Some(number).filter(|n| (1..=64).contains(n)),
        Err(_) => name.parse::<Signal>().ok().map(|signal| signal as u8),
    };
    number.ok_or_else(|| format!("{text:?} is not a signal; write TERM, SIGTERM or 15"))
}

/// The name of a signal, `SIGTERM`; real-time signals have numbers only.
pub(crate) fn name(number: u8) -> String {
    Signal::try_from(i32::from(number)).map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

/// The signals that a session answers itself, as a file that can be polled. Taken back when this is dropped.
pub(crate) struct Signals {
    file: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Takes SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGWINCH away from their defaults.
    pub(crate) fn take() -> io::Result<Signals> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGWINCH] {
            set.add(signal);
        }
        let before = SigSet::thread_get_mask()?;
        set.thread_block()?;
        let file = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Signals { file, before })
    }

    /// The next signal, if one has come.
    pub(crate) fn next(&self) -> io::Result<Option<Signal>> {
        let info = self.file.read_signal()?;
        Ok(info.and_then(|info| Signal::try_from(info.ssi_signo as i32).ok()))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_people_write_them() {
        assert_eq!(["TERM", "sigterm", "15", "64", "kill"].map(parse), [Ok(15), Ok(15), Ok(15), Ok(64), Ok(9)]);
        for bad in ["", "0", "65", "NOPE", "-9"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!((name(15), name(40)), ("SIGTERM".into(), "signal 40".into()));
    }
}
