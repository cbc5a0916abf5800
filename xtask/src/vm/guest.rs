//! What host and guest say to each other; the guest's side is `vm-tests/guest/init`.
//!
//! A request is a line. A command does not travel in it: the host writes an archive to the job disk, with the files to
//! copy and a script that holds the quoted arguments, and the line says how long the archive is. So arguments, names and
//! contents may hold any byte that the kernel allows.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Read, Seek, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::qemu;
use crate::clock::{self, Deadline};
use crate::sh::quote;
use crate::signal;
use crate::tar::Archive;

/// The unit in which the guest reads the job disk.
const CHUNK: u64 = 64 << 10;

/// The control channel.
pub(super) struct Control {
    stream: UnixStream,
    pending: Vec<u8>,
}

/// What came instead of a line.
pub(super) enum Silence {
    /// Nothing within the short time that one look takes.
    Yet,
    /// The machine has gone.
    Ended,
}

impl Control {
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(Duration::from_millis(50))).context("cannot set a timeout")?;
        Ok(Self { stream, pending: Vec::new() })
    }

    /// Sends a request.
    pub(super) fn send(&mut self, line: &str) -> Result<()> {
        self.stream.write_all(format!("{line}\n").as_bytes()).context("the machine does not listen")
    }

    /// Looks for a line for a short time.
    pub(super) fn look(&mut self) -> Result<Result<String, Silence>> {
        loop {
            if let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return Ok(Ok(String::from_utf8_lossy(&line).trim().to_owned()));
            }
            let mut buffer = [0; 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(Err(Silence::Ended)),
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return Ok(Err(Silence::Yet));
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Err(Silence::Ended)),
                Err(error) => return Err(error).context("cannot listen to the machine"),
            }
        }
    }

    /// Waits for a line that begins so; `None` when the time is over.
    pub(super) fn wait(&mut self, wanted: &str, deadline: Option<Deadline>) -> Result<Option<String>> {
        loop {
            signal::check()?;
            match self.look()? {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(wanted) {
                        return Ok(Some(rest.trim().to_owned()));
                    }
                }
                Err(Silence::Ended) => bail!("the machine has ended by itself"),
                Err(Silence::Yet) if deadline.is_some_and(Deadline::passed) => return Ok(None),
                Err(Silence::Yet) => {}
            }
        }
    }
}

/// One command and what it needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Job {
    /// Files and folders of the host and where they go.
    pub(crate) copies: Vec<(PathBuf, String)>,
    /// Environment variables.
    pub(crate) env: Vec<(String, String)>,
    /// The command and its arguments, exactly.
    pub(crate) argv: Vec<String>,
}

impl Job {
    /// Writes the archive to the job disk and returns the request that runs it.
    pub(super) fn write(&self, disk: &Path) -> Result<String> {
        let file = OpenOptions::new().write(true).open(disk).context("cannot open the job disk")?;
        let mut archive = Archive::new(BufWriter::new(file));
        for (from, to) in &self.copies {
            archive.host(from, to)?;
        }
        let mut seed = [0; 64];
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut seed))
            .context("cannot read /dev/urandom")?;
        archive.bytes("run/job/seed", 0o600, &seed)?;
        archive.bytes("run/job/command", 0o700, self.script().as_bytes())?;
        let mut file = archive.finish()?.into_inner().context("cannot write the job disk")?;
        let length = file.stream_position().context("cannot write the job disk")?;
        if length > qemu::JOB_DISK {
            bail!("the files to copy take {length} bytes; the job disk holds {}", qemu::JOB_DISK);
        }
        // The disk was made longer and sparse, and zeros end an archive, so a whole number of chunks can be read.
        Ok(format!("job {:.6} {}", clock::unix_seconds(), length.div_ceil(CHUNK)))
    }

    fn script(&self) -> String {
        let mut script = String::from("cd /root\n");
        for (name, value) in &self.env {
            script += &format!("export {name}={}\n", quote(value));
        }
        let words: Vec<_> = self.argv.iter().map(|word| quote(word)).collect();
        script + &words.join(" ") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_holds_exact_arguments() {
        let argv = ["printf", "%s|", "a b", "$x", "it's"].map(String::from).to_vec();
        let job = Job { env: vec![("A".into(), "1 2".into())], argv, ..Job::default() };
        assert_eq!(job.script(), "cd /root\nexport A='1 2'\nprintf '%s|' 'a b' '$x' 'it'\\''s'\n");
    }
}
