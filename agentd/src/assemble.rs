//! A request to spawn becomes a complete specification, or an error that says what is wrong with it.
//!
//! Everything that can be wrong with a request is found here, before anything is recorded: the profile, the rules, the
//! budget, the user, the promises that this host cannot keep. What is left can only fail at the launch: a path that does
//! not exist in the agent's own view.

use std::borrow::Cow;
use std::path::Path;
use std::sync::LazyLock;

use agentd_model::{AgentName, AgentNumber, AgentSpec, Budget, Gap, NetRule, Origin, PathRule, Rights, Terminal};
use agentd_policy::parse;
use agentd_policy::profile::{Expanded, Profile, Profiles, Vars};
use agentd_policy::tiers::{Demand, check};
use agentd_protocol::{ErrorCode, ErrorObject, ProfileChoice, SpawnParams, TerminalChoice};

use crate::server::Service;
use crate::users::Account;

/// Longest command line and environment, in bytes together; the kernel's own limit is 2 MiB.
const ARGUMENT_BYTES: usize = 512 << 10;

/// A request that makes sense.
pub struct Assembled {
    /// Its name; what nobody names is called `agent-` and its number.
    pub name: AgentName,
    /// Everything else.
    pub spec: AgentSpec,
}

/// Checks a request and fills in what it leaves open.
pub fn assemble(
    params: &SpawnParams,
    caller: u32,
    number: AgentNumber,
    service: &Service,
) -> Result<Assembled, ErrorObject> {
    let name = params.name.as_deref().map_or_else(|| format!("agent-{number}").parse(), str::parse).map_err(usage)?;
    check_command(params)?;
    let account = account(params, caller, number)?;
    let own_home = service.places.agent_home(number).to_string_lossy().into_owned();
    let home = account.home.clone().unwrap_or(own_home);
    let (profiles, profile) = profile(&params.profile, &service.places.profiles)?;
    let vars = Vars {
        workspace: params.cwd.clone(),
        home: home.clone(),
        user: account.name.clone(),
        tmp: "/tmp".to_owned(),
        uid: account.uid,
    };
    let expanded = profiles
        .expand(&profile, &vars)
        .map_err(|error| ErrorObject::from_error(ErrorCode::Usage, &error).hint("agentctl profile list"))?;
    let budget = budget(params, &expanded)?;
    let (paths, nets) = rules(params, &expanded, account.home.is_none().then_some(&home), &home, service)?;
    let accepted = params.degraded.iter().map(|gap| gap.parse()).collect::<Result<Vec<Gap>, _>>().map_err(|error| {
        let all: Vec<String> = Gap::ALL.iter().map(Gap::to_string).collect();
        usage(error).hint(format!("--degraded takes {}", all.join(", ")))
    })?;
    let mut spec = AgentSpec {
        argv: params.argv.clone(),
        env: environment(params, &expanded, &account, &home, service),
        cwd: params.cwd.clone(),
        uid: account.uid,
        gid: account.gid,
        groups: account.groups,
        terminal: match params.terminal {
            TerminalChoice::Pipes => Terminal::Pipes,
            TerminalChoice::Pty { rows, columns } => Terminal::Pty { rows, columns },
        },
        profile,
        paths,
        nets,
        budget,
        accepted_gaps: vec![],
        tmp_directories: expanded.tmp_directories,
    };
    spec.accepted_gaps = accepted;
    spec.accepted_gaps = check_promises(params, &spec, service)?;
    Ok(Assembled { name, spec })
}

fn usage(error: impl std::error::Error + 'static) -> ErrorObject {
    ErrorObject::from_error(ErrorCode::Usage, &error)
}

fn wrong(text: impl Into<String>) -> ErrorObject {
    ErrorObject::new(ErrorCode::Usage, text)
}

fn check_command(params: &SpawnParams) -> Result<(), ErrorObject> {
    if params.argv.first().is_none_or(String::is_empty) {
        return Err(wrong("there is no command to run").hint("agentctl spawn -- make test"));
    }
    let set = params.env.iter().chain(&params.set_env);
    let bytes: usize = params.argv.iter().map(String::len).sum::<usize>()
        + set.clone().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
    if bytes > ARGUMENT_BYTES {
        return Err(wrong(format!("command and environment have {bytes} bytes; {ARGUMENT_BYTES} is the most")));
    }
    if let Some((name, _)) = set.clone().find(|(name, _)| name.is_empty() || name.contains(['=', '\0'])) {
        return Err(wrong(format!("{name:?} cannot be the name of an environment variable")));
    }
    let texts = params.argv.iter().chain(set.map(|(_, value)| value)).chain([&params.cwd]);
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(wrong("a command, path or environment cannot contain a NUL byte"));
    }
    if !Path::new(&params.cwd).is_absolute() {
        return Err(wrong(format!("the working directory {} is not absolute", params.cwd)));
    }
    match std::fs::metadata(&params.cwd) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(wrong(format!("{} is not a directory", params.cwd))),
        Err(error) => {
            let mut object = wrong(format!("cannot use {} as the working directory", params.cwd));
            object.data.causes.push(error.to_string());
            Err(object)
        }
    }
}

fn account(params: &SpawnParams, caller: u32, number: AgentNumber) -> Result<Account, ErrorObject> {
    let account = match (&params.user, caller) {
        (Some(user), _) => {
            let named = Account::named(user).ok_or_else(|| wrong(format!("there is no user {user}")))?;
            if caller != 0 && named.uid != caller {
                let text = format!("only root may start an agent as another user than itself ({})", named.name);
                return Err(ErrorObject::new(ErrorCode::Refused, text));
            }
            named
        }
        (None, 0) => Account::dedicated(number.0),
        (None, uid) => Account::of(uid),
    };
    if account.uid == 0 {
        let text = "an agent never runs as root";
        return Err(ErrorObject::new(ErrorCode::Refused, text).hint("agentctl spawn --user NAME -- …"));
    }
    Ok(account)
}

/// The set of profiles with the chosen one in it, and its name.
fn profile(choice: &ProfileChoice, directory: &Path) -> Result<(Cow<'static, Profiles>, String), ErrorObject> {
    static BUILT_IN: LazyLock<Profiles> = LazyLock::new(Profiles::built_in);
    let mut profiles = Cow::Borrowed(&*BUILT_IN);
    let mut entries: Vec<_> = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries.iter().filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot read {shown}: {error}")))?;
        // A file that is wrong is told to whoever asks for it, and to nobody else.
        match Profile::parse(&text) {
            Ok(profile) => drop(profiles.to_mut().add(profile)),
            Err(error) if is_meant(choice, path) => return Err(rejected(&shown.to_string(), &error)),
            Err(error) => tracing::warn!(profile = %shown, %error, "the profile cannot be read"),
        }
    }
    match choice {
        ProfileChoice::Name(name) => Ok((profiles, name.clone())),
        ProfileChoice::Text(text) => {
            let profile = Profile::parse(text).map_err(|error| rejected("the profile", &error))?;
            let name = profile.name.clone();
            profiles.to_mut().add(profile).map_err(usage)?;
            Ok((profiles, name))
        }
    }
}

fn is_meant(choice: &ProfileChoice, path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    matches!(choice, ProfileChoice::Name(name) if stem == Some(name))
}

fn rejected(what: &str, error: &agentd_policy::profile::Rejected) -> ErrorObject {
    let mut object = wrong(format!("{what} is not a profile"));
    object.data.causes = error.problems.iter().map(|problem| format!("{}: {}", problem.at, problem.kind)).collect();
    object.hint("agentctl profile check FILE")
}

fn budget(params: &SpawnParams, expanded: &Expanded) -> Result<Budget, ErrorObject> {
    let asked = params.budget.as_deref().map(str::parse::<Budget>).transpose().map_err(usage)?.unwrap_or_default();
    Ok(Budget {
        cpu: asked.cpu.or(expanded.budget.cpu),
        memory: asked.memory.or(expanded.budget.memory),
        pids: asked.pids.or(expanded.budget.pids),
    })
}

/// Rules of the profile, of the command line, and those that every agent has.
fn rules(
    params: &SpawnParams,
    expanded: &Expanded,
    own_home: Option<&String>,
    home: &str,
    service: &Service,
) -> Result<(Vec<PathRule>, Vec<NetRule>), ErrorObject> {
    let places = parse::Places { cwd: &params.cwd, home };
    let mut paths = expanded.paths.clone();
    for text in &params.allow {
        paths.push(parse::allow(text, places).map_err(usage)?);
    }
    for text in &params.deny {
        paths.push(parse::deny(text, places).map_err(usage)?);
    }
    let built_in =
        |path: String, allow| PathRule { path, allow, deny: Rights::NONE, optional: true, origin: Origin::BuiltIn };
    // An agent may ask the daemon about itself, at the socket where that is all one can ask.
    paths.push(built_in(service.places.agents_socket().to_string_lossy().into_owned(), Rights::WRITE));
    paths.extend(own_home.map(|home| built_in(home.clone(), Rights::ALL)));
    let mut nets = expanded.nets.clone();
    for text in &params.net {
        nets.extend(parse::net(text).map_err(usage)?);
    }
    Ok((paths, nets))
}

/// What the profile passes and sets, who the agent is, and what the caller insists on.
fn environment(
    params: &SpawnParams,
    expanded: &Expanded,
    account: &Account,
    home: &str,
    service: &Service,
) -> Vec<(String, String)> {
    let caller = params.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut env: std::collections::BTreeMap<String, String> = expanded.environment(caller).into_iter().collect();
    for (name, value) in [("HOME", home), ("USER", &account.name), ("LOGNAME", &account.name), ("PWD", &params.cwd)] {
        env.insert(name.to_owned(), value.to_owned());
    }
    env.entry("PATH".to_owned()).or_insert_with(|| "/usr/local/bin:/usr/bin:/bin".to_owned());
    env.entry("SHELL".to_owned()).or_insert_with(|| "/bin/sh".to_owned());
    env.insert("AGENTD_SOCKET".to_owned(), service.places.agents_socket().to_string_lossy().into_owned());
    env.extend(params.set_env.iter().cloned());
    env.into_iter().collect()
}

/// Refuses what this host cannot enforce, by name, unless the caller gives up exactly that. Returns what is given up.
fn check_promises(params: &SpawnParams, spec: &AgentSpec, service: &Service) -> Result<Vec<Gap>, ErrorObject> {
    let demand = if params.require_lsm { Demand::Lsm } else { Demand::Promises };
    check(spec, &service.host.tiers, demand).map_err(|error| {
        let object = ErrorObject::from_error(ErrorCode::Refused, &error);
        error.hint(spec).into_iter().fold(object, ErrorObject::hint)
    })
}
