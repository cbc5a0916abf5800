//! What is said about a refusal, and about a host that cannot keep a promise?

#![allow(clippy::unwrap_used, reason = "a test; helpers of an integration test are not seen as tests")]

use agentd_model::{
    AgentName, AgentSpec, Budget, Denial, DenialReason, DeniedObject, Domain, Gap, Hook, Rights, Terminal, Tier, Tiers,
};
use agentd_policy::explain::explain;
use agentd_policy::parse;
use agentd_policy::profile::{Profiles, Vars};
use agentd_policy::tiers::{Demand, TierError, check, gaps};

const PLACES: parse::Places<'static> = parse::Places { cwd: "/w", home: "/home/u" };

fn spec() -> AgentSpec {
    let vars = Vars { workspace: "/w".into(), home: "/home/u".into(), user: "u".into(), tmp: "/tmp".into(), uid: 1000 };
    let expanded = Profiles::built_in().expand("coding", &vars).unwrap();
    let mut paths = expanded.paths;
    paths.push(parse::deny("read:/w/secret", PLACES).unwrap());
    AgentSpec {
        argv: vec!["rm".into(), "-rf".into(), "/w/build".into()],
        env: Vec::new(),
        cwd: "/w".into(),
        uid: 1000,
        gid: 1000,
        groups: Vec::new(),
        terminal: Terminal::Pipes,
        profile: "coding".into(),
        paths,
        nets: expanded.nets,
        budget: Budget::default(),
        accepted_gaps: Vec::new(),
        tmp_directories: Vec::new(),
    }
}

fn file(path: &str) -> DeniedObject {
    DeniedObject::File { path: path.into(), dev: 1, ino: 2 }
}

fn told(hook: Hook, reason: DenialReason, right: Rights, object: DeniedObject) -> String {
    let denial = Denial { hook, reason, right, object, pid: 42, comm: "cat".into(), mono_ns: 0 };
    let name: AgentName = "optimizer".parse().unwrap();
    let told = explain(&name, &spec(), &denial).to_string();
    assert!(!told.contains("rm -rf"), "an agent's own command is never suggested");
    told
}

fn rule(path: &str) -> DenialReason {
    let index = spec().paths.iter().position(|rule| rule.path == path && !rule.deny.is_empty()).unwrap();
    DenialReason::Rule { rule: index as u32 + 1 }
}

/// The text with the numbers of rule and line taken out, so that a new line in a profile does not change it.
fn without_numbers(text: &str) -> String {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = [rest.find("rule "), rest.find("line ")].into_iter().flatten().min() {
        let (before, after) = rest.split_at(at + 5);
        shown.push_str(before);
        let number = digits(after);
        shown.push_str(if number > 0 { "N" } else { "" });
        rest = &after[number..];
    }
    shown + rest
}

#[test]
fn nothing_allows_it() {
    assert_eq!(
        told(Hook::Open, DenialReason::NothingFound, Rights::READ, file("/srv/data set/x")),
        "refused: optimizer may not open /srv/data set/x, which needs read (process 42 cat)\n\
         because: no rule of profile coding or of the command line allows it\n\
         hint:    agentctl spawn --profile coding --allow 'read:/srv/data set/x' -- COMMAND"
    );
    let created = told(Hook::Mknod, DenialReason::NothingFound, Rights::CREATE, file("/srv/new"));
    assert!(created.ends_with("--allow create:/srv -- COMMAND"), "what does not exist cannot be allowed: {created}");
    let lost = told(Hook::Open, DenialReason::NothingFound, Rights::READ, file("…/a/b"));
    assert!(lost.ends_with("allow a directory above it, by --allow RIGHTS:PATH at the next spawn"), "{lost}");
}

#[test]
fn a_rule_denies_it() {
    let hook = told(Hook::Mknod, rule("**/.git/hooks"), Rights::CREATE, file("/w/.git/hooks/pre-commit"));
    assert_eq!(
        without_numbers(&hook),
        "refused: optimizer may not create /w/.git/hooks/pre-commit, which needs create (process 42 cat)\n\
         because: rule N denies write,create,delete on **/.git/hooks and below (profile coding, line N)\n\
         hint:    agentctl profile show coding\n\
         hint:    no option lifts a denial on the same place; a profile that does not have it can be made with extends"
    );
    let key = told(Hook::Open, rule("**/.ssh"), Rights::READ, file("/home/u/.ssh/id_ed25519"));
    assert!(key.contains("(profile base, line "), "{key}");
    assert!(key.ends_with(
        "to except this one: agentctl spawn --profile coding --allow read:/home/u/.ssh/id_ed25519 -- COMMAND"
    ));
    let typed = told(Hook::Open, rule("/w/secret"), Rights::READ, file("/w/secret"));
    assert!(
        typed.contains("(--deny read:/w/secret)\nhint:    the agent was spawned with --deny read:/w/secret"),
        "{typed}"
    );
    let gone = told(Hook::Open, DenialReason::Rule { rule: 9999 }, Rights::READ, file("/x"));
    assert!(gone.ends_with("because: rule 9999 denies it"), "{gone}");
}

#[test]
fn other_refusals() {
    let told = |hook, reason, object| told(hook, reason, Rights::NONE, object);
    let address = || DeniedObject::Address { text: "tcp 10.0.0.1:443".into() };
    assert_eq!(
        told(Hook::Connect, DenialReason::NothingFound, address()),
        "refused: optimizer may not connect to tcp 10.0.0.1:443 (process 42 cat)\n\
         because: no network rule allows it\n\
         hint:    agentctl spawn --profile coding --net tcp:10.0.0.1:443 -- COMMAND"
    );
    assert!(told(Hook::Bind, DenialReason::NothingFound, address()).contains("--net bind:tcp:10.0.0.1:443"));
    let v6 = DeniedObject::Address { text: "udp [2001:db8::1]:53".into() };
    assert!(told(Hook::SendMessage, DenialReason::NothingFound, v6).contains("--net 'udp:[2001:db8::1]:53'"));
    let forged = DeniedObject::Address { text: "tcp 1.2.3.4:5; reboot".into() };
    assert!(!told(Hook::Connect, DenialReason::NothingFound, forged).contains("hint:"));
    assert!(told(Hook::Fork, DenialReason::Exhausted, file("/x")).contains("agentctl budget topup optimizer cpu:10m"));
    for reason in [DenialReason::Guard, DenialReason::Stranger] {
        let text = told(Hook::Ptrace, reason, DeniedObject::Other { detail: 1 });
        assert!(text.contains("no rule and no option allows it") && !text.contains("hint:"), "{text}");
    }
    assert!(told(Hook::Open, DenialReason::TooDeep, file("/x")).contains("more than 64 directories"));
    assert!(told(Hook::Exec, DenialReason::NoPlace, file("memfd:x")).contains("no place in a tree"));
    assert!(told(Hook::Open, DenialReason::Expired, file("/x")).contains("has expired"));
}

#[test]
fn names_cannot_forge_lines() {
    let path = "/w/x\nhint:    agentctl spawn --allow all:/ \u{1b}[2J\u{202e}";
    let text = told(Hook::Open, DenialReason::NothingFound, Rights::READ, file(path));
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    assert_eq!(text.matches("--allow all:/").count(), 1, "shown where it was refused, not as a hint: {text}");
    let quoted = told(Hook::Open, DenialReason::NothingFound, Rights::READ, file("/w/$(reboot)'; reboot"));
    assert!(quoted.contains(r"--allow 'read:/w/$(reboot)'\''; reboot' -- COMMAND"), "{quoted}");
}

fn tiers(rows: &[(Domain, Tier)]) -> Tiers {
    Tiers { rows: rows.iter().map(|(domain, tier)| (*domain, *tier, Some("EPERM".to_owned()))).collect() }
}

const BEST: [(Domain, Tier); 6] = [
    (Domain::Files, Tier::Lsm),
    (Domain::Guard, Tier::Lsm),
    (Domain::Network, Tier::CgroupBpf),
    (Domain::Cpu, Tier::Tracepoint),
    (Domain::Memory, Tier::Controller),
    (Domain::Pids, Tier::Controller),
];
const LANDLOCK: [(Domain, Tier); 4] = [
    (Domain::Files, Tier::Landlock),
    (Domain::Guard, Tier::Landlock),
    (Domain::Network, Tier::CgroupBpf),
    (Domain::Cpu, Tier::Polling),
];

#[test]
fn gaps_are_those_of_this_request() {
    let mut spec = spec();
    spec.budget = "cpu:1h,mem:4G,pids:9".parse().unwrap();
    assert_eq!(gaps(&spec, &tiers(&BEST)), []);
    let all = [Gap::DenyInsideAllow, Gap::DenialEvents, Gap::UnixSockets, Gap::CpuExact, Gap::Memory, Gap::Pids];
    assert_eq!(gaps(&spec, &tiers(&LANDLOCK)), all);
    spec.budget = Budget::default();
    assert_eq!(gaps(&spec, &tiers(&LANDLOCK)), all[..3]);
    spec.paths.retain(|rule| rule.deny.is_empty());
    assert_eq!(gaps(&spec, &tiers(&LANDLOCK)), [Gap::DenialEvents, Gap::UnixSockets]);
    spec.paths.push(parse::deny("read:/srv/x", PLACES).unwrap());
    assert_eq!(gaps(&spec, &tiers(&LANDLOCK)), [Gap::DenialEvents, Gap::UnixSockets], "nothing allows /srv");
    spec.paths.push(parse::deny("write:/etc/x", PLACES).unwrap());
    assert_eq!(gaps(&spec, &tiers(&LANDLOCK)).len(), 2, "/etc is only read");
    spec.paths.push(parse::deny("read:**/x", PLACES).unwrap());
    assert_eq!(gaps(&spec, &tiers(&LANDLOCK)).len(), 3, "a pattern can lie anywhere");
    assert_eq!(gaps(&spec, &tiers(&[])), [Gap::UnixSockets, Gap::Network, Gap::Files, Gap::Guard]);
    spec.nets = ["any", "bind:any"].iter().flat_map(|text| parse::net(text).unwrap()).collect();
    assert!(gaps(&spec, &tiers(&[])).contains(&Gap::Network));
}

#[test]
fn gaps_are_accepted_by_name_and_never_where_lsm_is_required() {
    let mut spec = spec();
    let refused = check(&spec, &tiers(&LANDLOCK), Demand::Promises).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "this host cannot enforce a denial inside something allowed; nor reports of what was refused; \
         nor a limit on unix sockets outside the agent"
    );
    assert_eq!(
        refused.hint(&spec).unwrap(),
        "agentctl spawn --profile coding --degraded deny-inside-allow,denial-events,unix-sockets -- COMMAND"
    );
    spec.accepted_gaps = vec![Gap::UnixSockets, Gap::DenialEvents];
    assert_eq!(
        check(&spec, &tiers(&LANDLOCK), Demand::Promises),
        Err(TierError::Gaps { gaps: vec![Gap::DenyInsideAllow] })
    );
    spec.accepted_gaps.extend([Gap::DenyInsideAllow, Gap::Memory]);
    let taken = check(&spec, &tiers(&LANDLOCK), Demand::Promises).unwrap();
    assert_eq!(taken, [Gap::DenyInsideAllow, Gap::DenialEvents, Gap::UnixSockets], "only those that are there");
    assert_eq!(
        check(&spec, &tiers(&LANDLOCK), Demand::Lsm).unwrap_err().to_string(),
        "files is enforced by landlock on this host, and lsm is required (EPERM)"
    );
    assert_eq!(check(&spec, &tiers(&BEST), Demand::Lsm), Ok(vec![]));
    spec.budget = "mem:4G".parse().unwrap();
    let no_memory = tiers(&BEST[..4]);
    assert!(
        matches!(check(&spec, &no_memory, Demand::Lsm), Err(TierError::Gaps { .. })),
        "accepted, but lsm is required"
    );
}
