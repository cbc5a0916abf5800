//! The person's terminal: its size, and raw mode that is always taken back.
//!
//! Raw mode is taken back when [`Raw`] is dropped, which a return, an error and a panic all do; signals that would end
//! us are taken by the session, which returns. SIGKILL alone cannot be answered; `reset` is for that.

use std::io;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// Whether a person sits at both ends: standard input and standard output are terminals.
pub(crate) fn is_interactive() -> bool {
    isatty(rustix::stdio::stdin()) && isatty(rustix::stdio::stdout())
}

/// Rows and columns of the terminal on standard output; the classic 24 by 80 where it does not say.
pub(crate) fn size() -> (u16, u16) {
    match tcgetwinsize(rustix::stdio::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        _ => (24, 80),
    }
}

/// Columns of the terminal on standard output, if it is one.
pub(crate) fn columns() -> Option<usize> {
    isatty(rustix::stdio::stdout()).then(|| usize::from(size().1))
}

/// Raw mode of the terminal on standard input, while this lives.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Sets raw mode.
    pub(crate) fn enter() -> io::Result<Raw> {
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone away needs nothing any more.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.before);
    }
}
