//! The story that `cargo xtask demo` tells: an agent at work, and what becomes of what it should not do.
//!
//! Everything is done with the commands that a user would type. The agent is `agent.sh`; it says what it tried and whether
//! it went through, and this program does not take its word: it looks at the files afterwards, asks the journal, and
//! ends with 1 if anything is not as told. Everything that it makes lies below one directory and is removed.

mod scene;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use self::scene::{Agent, Daemon, Scene};
use crate::store;
use crate::ui;

/// CPU time that the agent has for its work; the spinning at the end uses up the rest.
const BUDGET: &str = "cpu:25s";

/// Counts what was not as told.
struct Teller {
    wrong: u32,
}

impl Teller {
    /// One line: what was done, what came of it, and whether that is as it should be.
    fn line(&mut self, what: &str, came: &str, right: bool) {
        let mark = if right { "ok" } else { "WRONG" };
        ui::say(format!("  {what:<58} {came:<26} {mark}"));
        self.wrong += u32::from(!right);
    }

    fn allowed(&mut self, agent: &mut Agent, name: &str, what: &str) -> Result<()> {
        let came = agent.told(name)?;
        self.line(what, &came, came == "done");
        Ok(())
    }

    /// `intact`: what can be seen from outside agrees.
    fn refused(&mut self, agent: &mut Agent, name: &str, what: &str, intact: bool) -> Result<()> {
        let came = agent.told(name)?;
        let shown = if intact { came.clone() } else { format!("{came}, but it went through") };
        self.line(what, &shown, came == "refused" && intact);
        Ok(())
    }
}

/// Which story.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Story {
    /// An agent at work.
    Agent,
    /// The same, and then a world that watches agents.
    World,
}

/// Tells the story with a daemon of its own, because this host's kernel can.
pub(crate) fn on_this_host(which: Story) -> Result<ExitCode> {
    let scratch = store::scratch("demo")?;
    let daemon = Daemon::own(scratch.path())?;
    let told = story(daemon, which, &crate::paths::target().join("wasm"));
    let unloaded = Daemon::unload(scratch.path());
    told.and_then(|code| unloaded.map(|()| code))
}

/// Tells the story with the daemon that runs here.
pub(crate) fn tell(which: Story) -> Result<ExitCode> {
    story(Daemon::running()?, which, std::path::Path::new(GUEST_WASM))
}

/// Where the sample reducers lie in a machine.
pub(crate) const GUEST_WASM: &str = "/srv/wasm";

fn story(mut daemon: Daemon, which: Story, wasm: &std::path::Path) -> Result<ExitCode> {
    let mut teller = Teller { wrong: 0 };
    agent_story(&mut daemon, &mut teller)?;
    if which == Story::World {
        world::story(&daemon, &mut teller, wasm)?;
    }
    if teller.wrong > 0 {
        ui::say(format!("\n{} lines are not as told.", teller.wrong));
        return Ok(ExitCode::FAILURE);
    }
    ui::say("\nAll as told.");
    Ok(ExitCode::SUCCESS)
}

fn agent_story(daemon: &mut Daemon, teller: &mut Teller) -> Result<()> {
    let scene = Scene::set()?;

    ui::say(format!("\n$ agentctl spawn --name demo --profile coding --budget {BUDGET} -- ./agent.sh"));
    let mut agent = Agent::spawn(&scene, daemon, BUDGET)?;
    ui::say("\nIts work goes on unhindered:");
    teller.allowed(&mut agent, "clone", "git clone")?;
    teller.allowed(&mut agent, "edit", "edit a source file")?;
    teller.allowed(&mut agent, "build", "make")?;
    teller.allowed(&mut agent, "test", "make test")?;
    teller.allowed(&mut agent, "commit", "git commit")?;

    ui::say("\nWhat it should not do, the kernel refuses:");
    agent.wait("tried")?;
    let home = scene.home_is_whole();
    teller.refused(&mut agent, "rm", "rm -rf ~", home)?;
    teller.refused(&mut agent, "key", "read ~/.ssh/id_ed25519", true)?;
    let hook = scene.no_hook();
    teller.refused(&mut agent, "hook", "write .git/hooks/pre-commit", hook)?;
    teller.refused(&mut agent, "hook-by-rename", "the same by renaming .git and back", hook)?;
    teller.refused(&mut agent, "connect", "connect to 192.0.2.1:443", true)?;
    teller.refused(&mut agent, "trace", "trace a process that is not its own", true)?;
    teller.refused(&mut agent, "ld.so", "run a program that it may only read, through ld.so", true)?;

    ui::say("\n$ agentctl why --agent demo");
    let why = daemon.agentctl(&["why", "--agent", "demo"])?;
    for line in why.lines().take(8) {
        ui::say(format!("  {line}"));
    }
    teller.line("why names the program and the rule", "", why.contains("tool") || why.contains("exec"));

    ui::say("\n$ kill -9 agentd");
    daemon.kill()?;
    scene.signal("daemon-killed")?;
    agent.wait("tried-again")?;
    teller.refused(&mut agent, "key-without-daemon", "read the key while no daemon runs", true)?;
    teller.refused(&mut agent, "fork-without-daemon", "the same from a grandchild", true)?;
    daemon.start()?;
    let adopted = daemon.agentctl(&["ps", "--json"])?.contains("\"demo\"");
    teller.line("the next daemon finds the agent running", if adopted { "adopted" } else { "lost" }, adopted);

    ui::say("\nIt spins until its budget is spent:");
    let frozen = daemon.wait_for_phase("exhausted", Duration::from_secs(120))?;
    teller.line("the kernel counts, the agent is frozen", &daemon.spent()?, frozen);
    let (before, after) = (daemon.spent_ns()?, daemon.spent_ns_later()?);
    teller.line("and uses nothing more", "", before == after);
    ui::say("\n$ agentctl budget topup demo cpu:20s");
    scene.signal("topped-up")?;
    daemon.agentctl(&["budget", "topup", "demo", "cpu:20s"])?;
    teller.allowed(&mut agent, "spun", "it goes on where it was")?;
    let status = agent.finish(Duration::from_secs(60))?;
    teller.line("and ends", &format!("status {status}"), status == 0);

    let audit = daemon.agentctl(&["audit", "--agent", "demo", "--json", "-n", "all"])?;
    let denied: Vec<&str> = audit.lines().filter(|line| line.contains("access_denied")).collect();
    // The object of each, not only so many; a stranger to trace has no number in the agent, so that never came to a hook.
    let objects = ["/.ssh/id_ed25519", "/.git/hooks", "192.0.2.1:443", "/data/tool"];
    let absent = objects.iter().find(|object| !denied.iter().any(|line| line.contains(*object)));
    let shown = absent.map_or(format!("{} records", denied.len()), |object| format!("none about {object}"));
    teller.line("the journal has every refusal", &shown, absent.is_none() && denied.len() >= 8);
    scene.clear()
}
