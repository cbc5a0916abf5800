//! The core keeps its promises: durable before performed, undone as a whole, in order.

use std::sync::Mutex;

use agentd_model::{AgentNumber, AgentPhase, AgentSpec, Budget, Effect, Event, Principal, Terminal};
use agentd_world::{Command, Observation};
use tokio::sync::oneshot;

use super::*;
use crate::clock::HostClock;

/// Remembers what it was asked to do.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Effect>>>);

impl Performer for Recorder {
    fn expect(&mut self, ticket: LaunchTicket) {
        drop(ticket);
    }

    fn perform(&mut self, _: &State, effect: Effect) {
        self.0.lock().unwrap().push(effect);
    }
}

struct Bench {
    directory: std::path::PathBuf,
    world: World,
    performer: Recorder,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Bench {
    fn new(name: &str) -> Bench {
        let directory = std::env::temp_dir().join(format!("agentd-core-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let opened = Journal::open(&directory.join("journal.sqlite")).unwrap();
        let (core, world) = Core::new(opened, Signer::from_seed(&[1; 32]), Arc::new(HostClock));
        let performer = Recorder::default();
        let thread = std::thread::spawn({
            let performer = performer.clone();
            move || core.run(performer)
        });
        Bench { directory, world, performer, thread: Some(thread) }
    }

    fn ask(&self, what: Command) -> Result<Done, CommandError> {
        let (reply, answer) = oneshot::channel();
        let by = Principal::User { uid: 1000 };
        self.world.inbox.blocking_send(Input::Command { command: Box::new(what), by, ticket: None, reply }).unwrap();
        answer.blocking_recv().unwrap()
    }

    fn spawn(&self, number: u32, name: &str) -> Result<Done, CommandError> {
        let spec = AgentSpec {
            argv: vec!["true".into()],
            env: vec![],
            cwd: "/".into(),
            uid: 1000,
            gid: 1000,
            groups: vec![],
            terminal: Terminal::Pipes,
            profile: "base".into(),
            paths: vec![],
            nets: vec![],
            budget: Budget::default(),
            accepted_gaps: vec![],
            tmp_directories: vec![],
        };
        self.ask(Command::Spawn { agent: AgentNumber(number), name: name.parse().unwrap(), spec: Box::new(spec) })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.world.inbox.blocking_send(Input::Stop);
        self.thread.take().unwrap().join().unwrap();
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

#[test]
fn what_was_acknowledged_is_on_disk_before_it_is_performed() {
    let bench = Bench::new("durable");
    let done = bench.spawn(1, "worker").unwrap();
    let reader = crate::journal::Reader::open(&bench.directory.join("journal.sqlite")).unwrap();
    assert!(matches!(reader.get::<Event>(done.seq).unwrap().unwrap().0.event, Event::AgentRequested { .. }));
    assert_eq!(*bench.performer.0.lock().unwrap(), [Effect::Launch { agent: AgentNumber(1) }]);
    assert!(matches!(bench.spawn(2, "worker"), Err(CommandError::Refused(_))));
}

#[test]
fn a_journal_that_cannot_be_written_changes_nothing() {
    let bench = Bench::new("full");
    bench.spawn(1, "first").unwrap();
    // Somebody holds the writer's lock, as a full disk would: the append fails.
    let holder = rusqlite::Connection::open(bench.directory.join("journal.sqlite")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(bench.spawn(2, "second"), Err(CommandError::NotRecorded(_))));
    assert!(bench.world.state().find("second").is_none());
    bench.world.saw(Observation::LaunchFailed { agent: AgentNumber(1), reason: "kept".into() });
    std::thread::sleep(std::time::Duration::from_millis(50));
    holder.execute_batch("ROLLBACK").unwrap();
    // The observation was kept and comes first.
    let done = bench.spawn(3, "third").unwrap();
    assert_eq!(done.agent, Some(AgentNumber(3)));
    let phase = bench.world.state().find("first").unwrap().phase();
    assert_eq!(phase, AgentPhase::Failed);
}

#[test]
fn followers_see_every_record_in_order() {
    let bench = Bench::new("follow");
    let mut records = bench.world.follow();
    for (number, name) in [(1, "a"), (2, "b"), (3, "c")] {
        bench.spawn(number, name).unwrap();
    }
    let seqs: Vec<_> = (0..4).map(|_| records.blocking_recv().unwrap().0.seq.0).collect();
    assert_eq!(seqs, [1, 2, 3, 4]);
}
