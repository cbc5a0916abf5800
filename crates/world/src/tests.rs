//! The life of an agent as the world decides it, event by event.

use agentd_model::*;

use crate::{Command, Observation, Refusal, State, command, observe};

fn spec() -> Box<AgentSpec> {
    Box::new(AgentSpec {
        argv: vec!["/bin/true".into()],
        env: vec![],
        cwd: "/".into(),
        uid: 1000,
        gid: 1000,
        groups: vec![],
        terminal: Terminal::Pipes,
        profile: "base".into(),
        paths: vec![],
        nets: vec![],
        budget: "cpu:300ms".parse().unwrap(),
        accepted_gaps: vec![],
        tmp_directories: vec![],
    })
}

/// A world that takes events as the daemon does: number them, apply them, keep the effects.
#[derive(Default)]
struct World {
    state: State,
    seq: u64,
    effects: Vec<Effect>,
}

impl World {
    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            self.seq += 1;
            self.effects.extend(self.state.apply(Seq(self.seq), Stamp::default(), &event));
        }
    }

    fn ask(&mut self, what: Command) -> Result<(), Refusal> {
        let events = command(&self.state, what, Principal::User { uid: 0 })?;
        self.take(events);
        Ok(())
    }

    fn see(&mut self, what: Observation) {
        let events = observe(&self.state, what);
        self.take(events);
    }

    fn running() -> World {
        let mut world = World::default();
        world.ask(spawn(1, "worker")).unwrap();
        let (agent, gaps) = (AgentNumber(1), vec![]);
        world.see(Observation::Started {
            agent,
            init_pid: 2,
            shim_pid: 1,
            cgroup_id: 9,
            slot: 1,
            kernel_rules: 0,
            gaps,
        });
        world.effects.clear();
        world
    }

    fn phase(&self) -> AgentPhase {
        self.state.agent(AgentNumber(1)).unwrap().phase()
    }
}

fn spawn(number: u32, name: &str) -> Command {
    Command::Spawn { agent: AgentNumber(number), name: name.parse().unwrap(), spec: spec() }
}

const A: AgentNumber = AgentNumber(1);
const MS: u64 = 1_000_000;

#[test]
fn an_agent_lives_from_request_to_exit() {
    let mut world = World::default();
    world.ask(spawn(1, "agent-1")).unwrap();
    assert_eq!((world.phase(), &world.effects[..]), (AgentPhase::Starting, &[Effect::Launch { agent: A }][..]));
    assert_eq!(world.state.find("agent-1").unwrap().number, A);
    let gaps = vec![];
    world.see(Observation::Started {
        agent: A,
        init_pid: 2,
        shim_pid: 1,
        cgroup_id: 9,
        slot: 1,
        kernel_rules: 0,
        gaps,
    });
    assert_eq!(world.phase(), AgentPhase::Running);
    let status = ExitStatus::Code { code: 0 };
    world.see(Observation::Exited { agent: A, status, spent: Duration(1) });
    assert_eq!(world.phase(), AgentPhase::Exited);
    assert_eq!(world.effects.last(), Some(&Effect::Release { agent: A }));
}

#[test]
fn a_name_is_free_again_when_its_agent_has_ended() {
    let mut world = World::running();
    let again = || spawn(2, "worker");
    assert!(matches!(world.ask(again()), Err(Refusal::NameInUse { by: A, .. })));
    world.see(Observation::Gone { agent: A, reason: "the host went down".into() });
    world.ask(again()).unwrap();
    assert_eq!(world.state.find("worker").unwrap().number, AgentNumber(2));
}

#[test]
fn a_number_is_given_out_once() {
    let mut world = World::running();
    for number in [0, 1] {
        let refused = Refusal::NumberInUse { agent: AgentNumber(number) };
        assert_eq!(world.ask(spawn(number, "other")).unwrap_err(), refused);
    }
    // Numbers may come in any order, and be left out.
    world.ask(spawn(7, "seventh")).unwrap();
    world.ask(spawn(4, "fourth")).unwrap();
    assert_eq!(world.state.next_number(), AgentNumber(8));
}

#[test]
fn a_spent_budget_freezes_and_a_top_up_thaws() {
    let mut world = World::running();
    world.see(Observation::CpuExhausted { agent: A, spent: Duration(301 * MS) });
    assert_eq!((world.phase(), &world.effects[..]), (AgentPhase::Exhausted, &[Effect::Freeze { agent: A }][..]));
    world.effects.clear();
    world.ask(Command::TopUp { agent: A, cpu: Duration(200 * MS) }).unwrap();
    let limit = Duration(500 * MS);
    assert_eq!(world.effects, [Effect::SetCpuLimit { agent: A, limit }, Effect::Thaw { agent: A }]);
    assert_eq!(world.phase(), AgentPhase::Running);
}

#[test]
fn a_report_overtaken_by_a_top_up_freezes_nobody() {
    let mut world = World::running();
    world.ask(Command::TopUp { agent: A, cpu: Duration(200 * MS) }).unwrap();
    world.effects.clear();
    world.see(Observation::CpuExhausted { agent: A, spent: Duration(301 * MS) });
    assert_eq!((world.phase(), &world.effects[..]), (AgentPhase::Running, &[][..]));
}

#[test]
fn whoever_is_paused_and_spent_stays_frozen_until_both_are_over() {
    let mut world = World::running();
    world.ask(Command::Pause { agent: A }).unwrap();
    world.see(Observation::CpuExhausted { agent: A, spent: Duration(301 * MS) });
    world.effects.clear();
    world.ask(Command::TopUp { agent: A, cpu: Duration(200 * MS) }).unwrap();
    assert!(!world.effects.contains(&Effect::Thaw { agent: A }));
    assert_eq!(world.phase(), AgentPhase::Paused);
    world.ask(Command::Resume { agent: A }).unwrap();
    assert!(world.effects.contains(&Effect::Thaw { agent: A }));
}

fn grant(number: u32) -> Box<Grant> {
    Box::new(Grant {
        capability: CapabilityNumber(number),
        loans: vec![],
        until_wall_ns: None,
        until_mono_ns: None,
        slot: 1,
        token: vec![1, 2],
    })
}

#[test]
fn what_is_lent_counts_from_its_record_on_and_is_taken_back_once() {
    let mut world = World::running();
    let agent = AgentNumber(1);
    world.effects.clear();
    world.ask(Command::Grant { agent, grant: grant(1) }).unwrap();
    let capability = CapabilityNumber(1);
    assert_eq!(world.effects, [Effect::PutInForce { capability }]);
    let again = world.ask(Command::Grant { agent, grant: grant(1) });
    assert_eq!(again, Err(Refusal::CapabilityInUse { capability }));
    assert_eq!(world.state.next_capability(), CapabilityNumber(2));
    let revoke = |capability| Command::Revoke { capability, reason: "done".into() };
    world.ask(revoke(capability)).unwrap();
    assert_eq!(world.effects.last(), Some(&Effect::TakeBack { capability }));
    let record = Seq(world.seq);
    assert_eq!(world.ask(revoke(capability)), Err(Refusal::Revoked { capability, record }));
    let missing = CapabilityNumber(7);
    assert_eq!(world.ask(revoke(missing)), Err(Refusal::NoCapability { capability: missing }));
    assert_eq!(State::restore(&world.state.save()), Some(world.state));
}

#[test]
fn who_does_not_run_is_lent_nothing() {
    let mut world = World::default();
    world.ask(spawn(1, "worker")).unwrap();
    let agent = AgentNumber(1);
    for phase in [AgentPhase::Starting, AgentPhase::Failed] {
        let refused = world.ask(Command::Grant { agent, grant: grant(1) });
        assert!(matches!(refused, Err(Refusal::Phase { phase: found, .. }) if found == phase), "{refused:?}");
        world.see(Observation::LaunchFailed { agent, reason: "no".into() });
    }
    let unknown = world.ask(Command::Grant { agent: AgentNumber(9), grant: grant(1) });
    assert_eq!(unknown, Err(Refusal::Unknown { agent: AgentNumber(9) }));
}

#[test]
fn what_has_ended_cannot_be_changed() {
    let mut world = World::running();
    world.see(Observation::Gone { agent: A, reason: "x".into() });
    for what in [
        Command::Pause { agent: A },
        Command::Resume { agent: A },
        Command::Signal { agent: A, signal: None },
        Command::TopUp { agent: A, cpu: Duration(1) },
    ] {
        assert!(matches!(world.ask(what), Err(Refusal::Phase { phase: AgentPhase::Lost, .. })));
    }
    world.see(Observation::Exited { agent: A, status: ExitStatus::Code { code: 0 }, spent: Duration(0) });
    assert_eq!(world.phase(), AgentPhase::Lost);
}

#[test]
fn replay_gives_the_same_state() {
    let mut world = World::running();
    let mut events = vec![];
    for what in
        [Command::Pause { agent: A }, Command::Resume { agent: A }, Command::Signal { agent: A, signal: Some(15) }]
    {
        let made = command(&world.state, what, Principal::Daemon).unwrap();
        events.extend(made.clone());
        world.take(made);
    }
    let mut replayed = World::running();
    replayed.take(events);
    assert_eq!(replayed.state, world.state);
}

#[test]
fn only_so_many_ended_agents_are_remembered() {
    let mut world = World::default();
    for n in 1..=crate::state::ENDED_KEPT as u32 + 10 {
        world.ask(spawn(n, &format!("agent-{n}"))).unwrap();
        world.see(Observation::LaunchFailed { agent: AgentNumber(n), reason: "x".into() });
    }
    assert_eq!(world.state.agents().count(), crate::state::ENDED_KEPT);
    assert_eq!(world.state.next_number().0, crate::state::ENDED_KEPT as u32 + 11);
}
