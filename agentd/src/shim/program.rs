//! The agent's first process: from birth to exec.

use std::ffi::CString;
use std::io::{self, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use agentd_model::AgentSpec;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{chdir, setsid};

use super::lookup::step;
use super::sys::{self, Strings};
use crate::launch::messages::Failure;

/// Statuses as env(1) has them.
pub(crate) const OUR_FAULT: u8 = 125;
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Where programs are looked for if the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Everything an exec needs, made ready before the gate.
#[derive(Debug)]
pub(crate) struct Program {
    candidates: Vec<CString>,
    args: Strings,
    /// For a script without `#!`.
    shell_args: Vec<CString>,
    env: Strings,
    cwd: String,
    open_files: (u64, u64),
}

/// What a child could not do on its way to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Session, streams, limits: our own doing.
    Prepare,
    /// The working directory, as the agent's user.
    Enter,
    /// The program.
    Run,
}

impl Trouble {
    /// Length of what a child writes.
    pub(crate) const BYTES: usize = 5;

    fn with(self, errno: i32) -> [u8; Trouble::BYTES] {
        let [a, b, c, d] = errno.to_le_bytes();
        [self as u8, a, b, c, d]
    }

    /// Reads what a child wrote.
    pub(crate) fn read([what, a, b, c, d]: [u8; Trouble::BYTES]) -> (Trouble, i32) {
        let all = [Trouble::Prepare, Trouble::Enter, Trouble::Run];
        let what = all.into_iter().find(|one| *one as u8 == what).unwrap_or(Trouble::Prepare);
        (what, i32::from_le_bytes([a, b, c, d]))
    }

    /// As in "cannot … the program".
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Trouble::Prepare => "prepare",
            Trouble::Enter => "enter",
            Trouble::Run => "run",
        }
    }
}

/// The program's standard streams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams<'a> {
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
    pub(crate) terminal: bool,
}

impl Program {
    /// Reads a specification; `open_files` is the limit (soft, hard) that the daemon itself was started with.
    pub(crate) fn new(spec: &AgentSpec, open_files: (u64, u64)) -> Result<Program, Failure> {
        let c_string = |text: String| {
            let what = format!("use {text:?}: it contains a zero byte");
            CString::new(text).map_err(|_nul| Failure::Step { what, errno: libc::EINVAL })
        };
        let no_program = || Failure::Step { what: "run nothing: no program is given".into(), errno: libc::EINVAL };
        let name = spec.argv.first().filter(|name| !name.is_empty()).ok_or_else(no_program)?;
        let candidates = candidates(name, &spec.env).into_iter().map(c_string).collect::<Result<_, _>>()?;
        let args: Vec<CString> = spec.argv.iter().cloned().map(c_string).collect::<Result<_, _>>()?;
        let env = spec.env.iter().map(|(key, value)| c_string(format!("{key}={value}"))).collect::<Result<_, _>>()?;
        Ok(Program {
            candidates,
            shell_args: args.iter().skip(1).cloned().collect(),
            args: Strings::new(args),
            env: Strings::new(env),
            cwd: spec.cwd.clone(),
            open_files,
        })
    }

    /// In the child: becomes the program, or writes its trouble to `errors` and ends.
    pub(crate) fn run(&self, streams: Streams<'_>, mut errors: &PipeWriter) {
        let (what, error, status) = match self.prepare(streams) {
            Err(error) => (Trouble::Prepare, error, OUR_FAULT),
            Ok(()) => match chdir(self.cwd.as_str()) {
                Err(error) => (Trouble::Enter, error.into(), OUR_FAULT),
                Ok(()) => {
                    let error = self.exec();
                    let missing = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR));
                    (Trouble::Run, error, if missing { NOT_FOUND } else { CANNOT_RUN })
                }
            },
        };
        let _ = errors.write_all(&what.with(error.raw_os_error().unwrap_or(libc::EIO)));
        sys::exit_now(status)
    }

    fn prepare(&self, streams: Streams<'_>) -> io::Result<()> {
        setsid()?;
        if streams.terminal {
            sys::control_terminal(streams.stdin)?;
        }
        for (number, file) in [streams.stdin, streams.stdout, streams.stderr].into_iter().enumerate() {
            assert!(file.as_raw_fd() > 2, "the sources of the standard streams are not in their way");
            sys::stand_in(file.as_fd(), number as i32)?;
        }
        sys::close_on_exec()?;
        let (soft, hard) = self.open_files;
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        Ok(())
    }

    /// As execvp(3): the first candidate that can be run; refused ones are remembered, absent ones are passed over.
    fn exec(&self) -> io::Error {
        let mut verdict = io::Error::from_raw_os_error(libc::ENOENT);
        for candidate in &self.candidates {
            let error = sys::execve(candidate, &self.args, &self.env);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES | libc::EPERM) => verdict = error,
                Some(libc::ENOEXEC) => {
                    let args = [c"/bin/sh".to_owned(), candidate.clone()].into_iter();
                    let args = Strings::new(args.chain(self.shell_args.iter().cloned()).collect());
                    return sys::execve(&c"/bin/sh".to_owned(), &args, &self.env);
                }
                _ => return error,
            }
        }
        verdict
    }
}

/// Where a program may be: as given if it has a slash, else along the agent's own `PATH`.
fn candidates(name: &str, env: &[(String, String)]) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let path = env.iter().find(|(key, _)| key == "PATH").map_or(DEFAULT_PATH, |(_, value)| value.as_str());
    let in_directory = |directory: &str| match directory {
        "" => format!("./{name}"),
        directory => format!("{}/{name}", directory.trim_end_matches('/')),
    };
    path.split(':').map(in_directory).collect()
}

/// The limit on open files that the process has now.
pub(crate) fn open_files() -> Result<(u64, u64), Failure> {
    nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE).map_err(step("read the limit on open files"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_in_the_agents_own_path() {
        let env = [("PATH".to_owned(), "/a/:/b::c".to_owned())];
        assert_eq!(candidates("x", &env), ["/a/x", "/b/x", "./x", "c/x"]);
        assert_eq!(candidates("./x", &env), ["./x"]);
        assert_eq!(candidates("x", &[])[0], "/usr/local/bin/x");
    }
}
