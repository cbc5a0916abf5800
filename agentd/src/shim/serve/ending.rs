//! The end of an agent: its last output, its record, and who is told.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use agentd_model::{ExitStatus, Terminal};
use agentd_protocol::attach::Output;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::ClockId;

use super::peers::farewell;
use super::{PATIENCE_MS, Phase, Shim, clock_ns, now_ms};
use crate::launch::messages::{ExitRecord, Failure};
use crate::launch::{EXIT_RECORD, ShimEvent};
use crate::shim::init::status;
use crate::shim::sys;

/// How long a pty may hold back output of processes that are all dead.
const DRAIN_MS: u16 = 100;

impl Shim {
    /// Init has died; the kernel has killed all that was left of the agent with it.
    pub(super) fn bury_init(&mut self) -> io::Result<()> {
        let Some((_, how)) = sys::wait(self.init.pid, 0)? else { return Ok(()) };
        self.init.reaped = true;
        if self.phase < Phase::Running {
            self.fail(Failure::Step { what: "keep the agent's init alive".into(), errno: libc::ESRCH });
            return Ok(());
        }
        if self.phase != Phase::Ended {
            self.end(status(how), false);
        }
        self.tell(&ShimEvent::Gone);
        Ok(())
    }

    /// The program has ended and nothing of the agent runs any more.
    pub(super) fn end(&mut self, status: ExitStatus, witnessed: bool) {
        self.drain();
        // First those who wait for it: to read the cgroup's account takes its time.
        self.clients.iter_mut().for_each(|client| farewell(client, status));
        let record = ExitRecord {
            agent: self.place.agent,
            status,
            witnessed,
            cpu_ns: cpu_ns(&self.place.cgroup),
            ended_unix_ns: clock_ns(ClockId::CLOCK_REALTIME),
            ended_boot_ns: clock_ns(ClockId::CLOCK_BOOTTIME),
            log_lost_bytes: self.log.lost,
        };
        self.record = Some(record);
        self.phase = Phase::Ended;
        self.deadline_ms = now_ms() + PATIENCE_MS;
        (self.stdin, self.stdout, self.stderr, self.program) = (None, None, None, None);
        self.stdin_waiting.clear();
        self.tell(&ShimEvent::Exited(record));
        // Not being able to write it is no reason not to tell it.
        let _ = write_record(&self.place.state_dir, &record);
    }

    /// Reads output to its end. A stranger who was given the agent's pipe may keep it open; its writes do not count.
    fn drain(&mut self) {
        while self.copy_output(Output::Stdout) {}
        while self.copy_output(Output::Stderr) {}
        // The kernel moves a pty's last bytes from one side to the other in its own time, and then says EIO.
        while let (Terminal::Pty { .. }, Some(master)) = (self.terminal, &self.stdout) {
            let mut asked = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut asked, PollTimeout::from(DRAIN_MS)) == Ok(0) {
                break;
            }
            while self.copy_output(Output::Stdout) {}
        }
    }

    /// Makes the record durable, unless somebody else has.
    pub(super) fn settle(&self) -> io::Result<()> {
        if self.taken {
            return Ok(());
        }
        File::open(self.place.state_dir.join(EXIT_RECORD))?.sync_all()?;
        File::open(&self.place.state_dir)?.sync_all()
    }
}

/// Written beside and renamed, so that a reader finds all of it or nothing.
fn write_record(state_dir: &Path, record: &ExitRecord) -> io::Result<()> {
    let new = state_dir.join(format!("{EXIT_RECORD}.new"));
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    fs::rename(&new, state_dir.join(EXIT_RECORD))
}

fn cpu_ns(cgroup: &Path) -> Option<u64> {
    let text = fs::read_to_string(cgroup.join("cpu.stat")).ok()?;
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    usage.trim().parse::<u64>().ok()?.checked_mul(1_000)
}
