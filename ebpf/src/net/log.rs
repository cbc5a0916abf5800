//! What the programs say about themselves, through aya-log. For people who look for a fault; nothing depends on it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use aya::Ebpf;
use aya_log::EbpfLogger;

/// One line of the programs' log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How bad it is.
    pub level: ::log::Level,
    /// What was said.
    pub text: String,
}

/// The log of the programs. Its descriptor is readable when there are lines; lines that nobody drains are dropped by the
/// programs once 128 KiB are full.
pub struct NetLog {
    logger: EbpfLogger<Lines>,
    lines: Lines,
}

impl NetLog {
    /// The log of programs that were loaded just now.
    pub(super) fn of(programs: &mut Ebpf) -> Option<NetLog> {
        let lines = Lines::default();
        Some(NetLog { logger: EbpfLogger::init_with_logger(programs, lines.clone()).ok()?, lines })
    }

    /// The log of a program that a daemon before this one has loaded.
    pub(super) fn of_program(id: u32) -> Option<NetLog> {
        let lines = Lines::default();
        Some(NetLog { logger: EbpfLogger::init_from_id_with_logger(id, lines.clone()).ok()?, lines })
    }

    /// Takes the lines that are there. Never waits.
    pub fn drain(&mut self) -> Vec<LogLine> {
        self.logger.flush();
        std::mem::take(&mut *self.lines.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsFd for NetLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.logger.as_fd()
    }
}

impl std::fmt::Debug for NetLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetLog").finish_non_exhaustive()
    }
}

/// Where aya-log puts the lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<LogLine>>>);

impl ::log::Log for Lines {
    fn enabled(&self, _: &::log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &::log::Record<'_>) {
        let line = LogLine { level: record.level(), text: record.args().to_string() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn flush(&self) {}
}
