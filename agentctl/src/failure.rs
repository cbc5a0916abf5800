//! What went wrong, as the terminal shows it and as the shell sees it.
//!
//! Every error of every operation ends here. The exit codes are API: 0 done, 1 could not, 2 wrong usage, 3 refused by
//! policy, 4 daemon not reachable, 70 our bug. A reader that closed its end of a pipe has what it wanted: 0.

use std::error::Error;
use std::io;

use agentd_protocol::{ErrorCode, ErrorObject};

use crate::text;

/// What the shell sees of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It could not be done.
    Failed,
    /// The command makes no sense.
    Usage,
    /// Policy refuses it.
    Refused,
    /// The daemon cannot be reached.
    Unreachable,
    /// A bug of ours.
    Bug,
    /// Nobody reads our output any more.
    ClosedPipe,
    /// A status of its own: those of env(1) where an agent did not start.
    Status(u8),
}

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Refused => 3,
            Exit::Unreachable => 4,
            Exit::Bug => 70,
            Exit::ClosedPipe => 0,
            Exit::Status(code) => code,
        }
    }
}

/// A failure: what could not be done, what lies behind it, and a command to paste.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What the shell sees.
    pub(crate) exit: Exit,
    /// What could not be done, to what.
    pub(crate) message: String,
    /// What lies behind it, outermost first.
    pub(crate) causes: Vec<String>,
    /// A command to paste.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure without causes.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// A failure with the text of an error and its chain of causes.
    pub(crate) fn of(exit: Exit, error: &(dyn Error + 'static)) -> Failure {
        Failure::new(exit, error.to_string()).causes_of(error.source())
    }

    /// Something that the operating system refused.
    pub(crate) fn io(message: impl Into<String>, error: &io::Error) -> Failure {
        Failure::new(Exit::Failed, message).cause(text::os_error(error))
    }

    /// Adds a cause.
    #[must_use]
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Failure {
        self.causes.push(cause.into());
        self
    }

    /// Adds a command to paste.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a chain of causes.
    #[must_use]
    pub(crate) fn causes_of(mut self, mut source: Option<&(dyn Error + 'static)>) -> Failure {
        while let Some(cause) = source {
            self.causes.push(match cause.downcast_ref::<io::Error>() {
                Some(error) => text::os_error(error),
                None => cause.to_string(),
            });
            source = cause.source();
        }
        self
    }
}

/// What the daemon said.
impl From<ErrorObject> for Failure {
    fn from(error: ErrorObject) -> Failure {
        const FAILED: i32 = ErrorCode::Failed as i32;
        const USAGE: i32 = ErrorCode::Usage as i32;
        const REFUSED: i32 = ErrorCode::Refused as i32;
        const NO_METHOD: i32 = ErrorCode::NoMethod as i32;
        let exit = match error.code {
            // A daemon that is older than this program is no bug.
            FAILED | NO_METHOD => Exit::Failed,
            USAGE => Exit::Usage,
            REFUSED => Exit::Refused,
            126 | 127 => Exit::Status(error.code as u8),
            _ => Exit::Bug,
        };
        Failure { exit, message: error.message, causes: error.data.causes, hint: error.data.hint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_daemon_are_exit_codes() {
        let exit = |code| Failure::from(ErrorObject { code, message: String::new(), data: Default::default() }).exit;
        let codes = [1, 2, 3, 70, 126, 127, -32601, -32600, -32700, 0, 4, 255].map(|code| exit(code).code());
        assert_eq!(codes, [1, 2, 3, 70, 126, 127, 1, 70, 70, 70, 70, 70]);
    }
}
